/**
 * Branches brought to life: recovery points booted in isolation, watched and proven.
 *
 * Nouns. A *console picture* is a machine's screen as QEMU dumps it. A *nonce* is a fresh random word that a
 * guest is asked to draw on its text console; reading it off the picture proves that this very guest, in this
 * very boot, runs far enough to answer its agent and to draw. *Glyphs* are learned from the picture itself, so
 * that no font is assumed.
 *
 * Promises. Pictures are the guest's bytes: every reader takes any bytes and answers «undefined» for what it
 * cannot read; sizes are bounded before memory is taken. Nothing here draws, waits or keeps state.
 *
 * Relies on `lib` only. Sources: PPM (netpbm), PNG (RFC 2083), Linux console escapes (console_codes(4)).
 */

export { consoleCommand, consoleScript, readNonce, readNonceOf } from './console-picture.ts';
export { cropPicture, decodePpm, distinctColours, encodePng, type Picture } from './picture.ts';
