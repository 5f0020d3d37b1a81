import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { consoleCommand, consoleScript, readNonce } from '../../../src/failover/index.ts';

const NONCE = '00c0ffee5eed1234';

/** Draws lines of text with a made-up font: any glyphs will do, as long as they differ. */
function draw(
  lines: readonly string[],
  cell: readonly [number, number],
  size: readonly [number, number],
): Buffer {
  const [width, height] = size;
  const rgb = Buffer.alloc(width * height * 3);
  for (const [row, line] of lines.entries()) {
    for (const [column, character] of [...line].entries()) {
      const code = character.charCodeAt(0) - 32;
      for (let bit = 0; bit < 7; bit++) {
        if (((code >> bit) & 1) === 0) continue;
        const x = column * cell[0] + bit;
        const y = row * cell[1] + (bit % 3) + 1;
        rgb.fill(170, (y * width + x) * 3, (y * width + x) * 3 + 3);
      }
    }
  }
  return Buffer.concat([Buffer.from(`P6\n${width} ${height}\n255\n`), rgb]);
}

function screen(nonce: string, before: readonly string[] = []): string[] {
  return [...before, '[<0123456789abcdef>[', `[<${nonce}>[`];
}

test('a nonce is read from VGA text and from frame buffer consoles', () => {
  for (const [cell, size] of [
    [
      [9, 16],
      [720, 400],
    ],
    [
      [8, 16],
      [1024, 768],
    ],
    [
      [16, 32],
      [1280, 800],
    ],
  ] as const) {
    assert.equal(readNonce(draw(screen(NONCE, ['login: ', '']), cell, size)), NONCE);
  }
});

test('the lowest nonce counts, wherever it stands on the line', () => {
  const lines = [...screen('1111111111111111'), ...screen(NONCE).map((line) => `  > ${line} ok`)];
  assert.equal(readNonce(draw(lines, [9, 16], [720, 400])), NONCE);
});

test('a picture without nonce reads as undefined', () => {
  const cell = [9, 16] as const;
  const size = [720, 400] as const;
  assert.equal(readNonce(draw([], cell, size)), undefined);
  assert.equal(readNonce(draw(['[<0123456789abcdef>['], cell, size)), undefined);
  assert.equal(readNonce(draw(screen('12345'), cell, size)), undefined, 'too short');
  assert.equal(readNonce(draw(screen('0123456789abcdeg'), cell, size)), undefined, 'a glyph never shown');
  assert.equal(readNonce(draw(screen('0'.repeat(79)), cell, size)), undefined, 'cut off at the edge');
});

test('any bytes are survived', () => {
  const sound = draw(screen(NONCE), [8, 8], [160, 16]);
  fc.assert(
    fc.property(fc.nat(sound.length - 1), fc.nat(255), fc.nat(sound.length), (at, value, length) => {
      const damaged = Buffer.from(sound);
      damaged[at] = value;
      readNonce(damaged.subarray(0, length));
      const read = readNonce(damaged);
      assert.ok(read === undefined || read === NONCE);
    }),
  );
});

test('the command is one printf without anything that a shell would expand', () => {
  const { path, args } = consoleCommand(NONCE);
  assert.equal(path, '/bin/sh');
  assert.match(args[1]!, /^printf '[^']*' > \/dev\/tty0$/);
  assert.ok(consoleScript(NONCE).endsWith(`[<${NONCE}>[\r\n`));
  assert.throws(() => consoleScript("'; reboot"), /hexadecimal/);
});

test('the nonce is read from the screen of a real Linux in VGA text mode', () => {
  const golden = join(import.meta.dirname, '../../golden/console/vga-text.ppm.gz');
  assert.equal(readNonce(gunzipSync(readFileSync(golden))), '5ca1ab1e0ddba110');
});
