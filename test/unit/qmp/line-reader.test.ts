import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LineReader } from '../../../src/qmp/line-reader.ts';

function reading(lineBytesMax: number, restartByte?: number) {
  const seen: string[] = [];
  const options = restartByte === undefined ? { lineBytesMax } : { lineBytesMax, restartByte };
  const reader = new LineReader(options, {
    onLine: (line, restarted) => seen.push(`${restarted ? 'restarted ' : ''}${line.toString('latin1')}`),
    onTooLong: () => seen.push('too long'),
  });
  return { seen, reader, push: (text: string) => reader.push(Buffer.from(text, 'latin1')) };
}

test('lines are the same however the stream is cut into pieces', () => {
  const letter = fc.constantFrom('a', 'b', '\n', '\xff');
  fc.assert(
    fc.property(fc.array(letter), fc.array(fc.nat(7)), (letters, cuts) => {
      const text = letters.join('');
      const whole = reading(4, 0xff);
      whole.push(text);
      const pieces = reading(4, 0xff);
      let from = 0;
      for (const cut of cuts) {
        pieces.push(text.slice(from, from + cut));
        from += cut;
      }
      pieces.push(text.slice(from));
      assert.deepEqual(pieces.seen, whole.seen);
    }),
  );
});

test('a line of just the allowed length is kept, a longer one is dropped, the next one is read', () => {
  const { seen, push } = reading(3);
  push('abc\nab');
  push('cd');
  push('efgh\nxyz\n');
  assert.deepEqual(seen, ['abc', 'too long', 'xyz']);
});

test('a restart byte drops what came before it in the line, even if that was too long', () => {
  const { seen, push } = reading(3, 0xff);
  push('rubbish that is cut off');
  push('\xffab\ncd\n');
  assert.deepEqual(seen, ['restarted ab', 'cd']);
});

test('the memory held for an unfinished line stays within the limit', () => {
  const { seen, reader } = reading(1000);
  for (let i = 0; i < 100_000; i++) reader.push(Buffer.from('a'));
  assert.ok(reader.unfinishedBytes <= 1000);
  reader.push(Buffer.from('\n'));
  assert.deepEqual(seen, ['too long']);
});

test('a long line in tiny pieces is read in linear time', () => {
  const count = 2_000_000;
  let length = 0;
  const reader = new LineReader(
    { lineBytesMax: 16 * 1024 * 1024 },
    {
      onLine: (line) => {
        length = line.length;
      },
      onTooLong: () => assert.fail('it is not too long'),
    },
  );
  const piece = Buffer.from('abcd');
  // Copying all that is held for each piece would move 8 TB here and never end.
  for (let i = 0; i < count; i++) reader.push(piece);
  reader.push(Buffer.from('\n'));
  assert.equal(length, 4 * count);
});
