import { assert } from '../lib/assert.ts';
import { decodePpm, type Picture } from './picture.ts';

/**
 * Proof by picture that a guest draws on its screen: it is asked, through its agent, to write a fresh nonce on
 * its text console, and the nonce is read off a screendump. Nothing is known of the font beforehand: the guest
 * draws the alphabet first, the reader learns the glyphs from that line and decodes the next line with them.
 *
 *     [<0123456789abcdef>[
 *     [<NONCE IN HEXADECIMAL>[
 *
 * The frame makes the two lines findable anywhere on the screen; a nonce cut off at its edge is not read.
 */
const ALPHABET = '0123456789abcdef';
const NONCE = /^[0-9a-f]{8,64}$/;

/**
 * Cells in pixels (width, height) that are tried: VGA text at 720×400, then the frame buffer console's fonts.
 * The grid starts at the screen's top left corner in all of them.
 */
const CELLS = [
  [9, 16],
  [8, 16],
  [8, 14],
  [8, 8],
  [10, 18],
  [12, 22],
  [16, 32],
] as const;

/**
 * What to write to /dev/tty0 for a nonce of 8 to 64 lower-case hexadecimal digits: console unblanked and
 * cleared, cursor hidden (it would cover a cell), then the two lines.
 */
export function consoleScript(nonce: string): string {
  assert(NONCE.test(nonce), 'a console nonce is 8 to 64 hexadecimal digits');
  const esc = '\x1b';
  const prepare = `${esc}[9;0]${esc}[13]${esc}[?25l${esc}[0m${esc}[2J${esc}[H`;
  return `${prepare}\r\n[<${ALPHABET}>[\r\n[<${nonce}>[\r\n`;
}

/** The command, for a guest agent's exec, that draws the nonce in a Linux guest. */
export function consoleCommand(nonce: string): { path: string; args: string[] } {
  const quoted = consoleScript(nonce)
    .replaceAll('\x1b', '\\033')
    .replaceAll('\r', '\\r')
    .replaceAll('\n', '\\n');
  return { path: '/bin/sh', args: ['-c', `printf '${quoted}' > /dev/tty0`] };
}

/** The nonce drawn on a screendump (PPM, any bytes), the lowest one if there are several; or undefined. */
export function readNonce(ppm: Uint8Array): string | undefined {
  const picture = decodePpm(ppm);
  return picture && readNonceOf(picture);
}

export function readNonceOf(picture: Picture): string | undefined {
  for (const [cellWidth, cellHeight] of CELLS) {
    const rows = cellRows(picture, cellWidth, cellHeight);
    for (let row = rows.length - 2; row >= 0; row--) {
      const found = findAlphabet(rows[row]!);
      const nonce = found && decodeLine(rows[row + 1]!, found);
      if (nonce !== undefined) return nonce;
    }
  }
  return undefined;
}

/** The screen as rows of cells, each cell as its pixels' bytes: equal glyphs in equal colours are equal strings. */
function cellRows(picture: Picture, cellWidth: number, cellHeight: number): string[][] {
  const columns = Math.floor(picture.width / cellWidth);
  const rows: string[][] = [];
  for (let row = 0; row < Math.floor(picture.height / cellHeight); row++) {
    const cells: string[] = [];
    for (let column = 0; column < columns; column++) {
      let cell = '';
      for (let line = 0; line < cellHeight; line++) {
        const from = ((row * cellHeight + line) * picture.width + column * cellWidth) * 3;
        cell += Buffer.from(picture.rgb.buffer, picture.rgb.byteOffset + from, cellWidth * 3).toString(
          'latin1',
        );
      }
      cells.push(cell);
    }
    rows.push(cells);
  }
  return rows;
}

interface Found {
  readonly column: number;
  readonly bracket: string;
  readonly open: string;
  readonly close: string;
  readonly digits: ReadonlyMap<string, string>;
}

/** Where a row holds the framed alphabet: bracket, opening, 16 glyphs, closing, bracket; all others distinct. */
function findAlphabet(cells: readonly string[]): Found | undefined {
  const length = ALPHABET.length + 4;
  for (let column = 0; column + length <= cells.length; column++) {
    const bracket = cells[column]!;
    if (bracket !== cells[column + length - 1]) continue;
    const inner = cells.slice(column + 1, column + length - 1);
    if (inner.includes(bracket) || new Set(inner).size !== inner.length) continue;
    return {
      column,
      bracket,
      open: inner[0]!,
      close: inner.at(-1)!,
      digits: new Map([...ALPHABET].map((digit, index) => [inner[index + 1]!, digit])),
    };
  }
  return undefined;
}

function decodeLine(cells: readonly string[], found: Found): string | undefined {
  if (cells[found.column] !== found.bracket || cells[found.column + 1] !== found.open) return undefined;
  let nonce = '';
  for (let column = found.column + 2; column < cells.length; column++) {
    const cell = cells[column]!;
    if (cell === found.close) {
      return cells[column + 1] === found.bracket && NONCE.test(nonce) ? nonce : undefined;
    }
    const digit = found.digits.get(cell);
    if (digit === undefined) return undefined;
    nonce += digit;
  }
  return undefined;
}
