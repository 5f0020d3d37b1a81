/**
 * Everything that a terminal or a page might take for more than text, escaped: control characters, line and paragraph separators, and the
 * marks that turn the direction of writing. Names and reasons come from guests and other sites; none may move the
 * cursor, hide a line or change a title.
 */
export function printable(text: string): string {
  return text
    .toWellFormed()
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (character) => {
      const code = character.codePointAt(0)!.toString(16);
      return code.length > 2 ? `\\u{${code}}` : `\\x${code.padStart(2, '0')}`;
    });
}
