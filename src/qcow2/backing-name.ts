/** The format's own limit. */
export const BACKING_NAME_BYTES_MAX = 1023;

/**
 * Why a name must not stand as a backing file in a header, or undefined if it is a plain file name.
 *
 * QEMU reads a name with a colon before its first slash as `protocol:rest`: `json:{…}` can describe any
 * block graph, `nbd:` and `ssh:` reach over the network. None of that may come out of an image.
 */
export function backingNameTrouble(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (Buffer.byteLength(name) > BACKING_NAME_BYTES_MAX)
    return `is longer than ${BACKING_NAME_BYTES_MAX} bytes`;
  for (let i = 0; i < name.length; i++) {
    const unit = name.charCodeAt(i);
    if (unit < 0x20 || unit === 0x7f) return 'holds a control character';
  }
  const colon = name.indexOf(':');
  const slash = name.indexOf('/');
  if (colon >= 0 && (slash < 0 || colon < slash)) {
    return 'begins with a protocol, which QEMU would follow; write ./ before a file name with a colon';
  }
  return undefined;
}
