import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatAge, formatBytes, formatDuration, formatRate, formatTime } from '../../../src/cli/format.ts';
import { Page } from '../../../src/cli/page.ts';
import { printable } from '../../../src/lib/printable.ts';

const KIB = 1024;

/** Often control characters and marks of direction; also halves of surrogate pairs. */
const anyText = fc
  .array(
    fc.oneof(
      fc.integer({ min: 0, max: 0xff }),
      fc.integer({ min: 0x2000, max: 0x206f }),
      fc.integer({ min: 0, max: 0x10ffff }),
    ),
    { maxLength: 30 },
  )
  .map((codePoints) => String.fromCodePoint(...codePoints));

describe('numbers as people read them', () => {
  it('sizes take the unit that keeps them short', () => {
    const expected: [number, string][] = [
      [0, '0 B'],
      [1023, '1023 B'],
      [KIB, '1 KiB'],
      [1.5 * KIB, '1.5 KiB'],
      [99.96 * KIB, '100 KiB'],
      [1023.4 * KIB, '1023 KiB'],
      [1023.6 * KIB, '1 MiB'],
      [1.5 * KIB ** 3, '1.5 GiB'],
      [5000 * KIB ** 5, '5000 PiB'],
    ];
    for (const [bytes, text] of expected) assert.equal(formatBytes(bytes), text);
    assert.equal(formatRate(1536.4), '1.5 KiB/s');
  });

  it('durations take two units at most and never show sixty of a unit', () => {
    const expected: [number, string][] = [
      [0, '0 ms'],
      [3.25, '3.3 ms'],
      [350, '350 ms'],
      [999.6, '1 s'],
      [5200, '5.2 s'],
      [9960, '10 s'],
      [59_499, '59 s'],
      [59_500, '1 min'],
      [200_000, '3 min 20 s'],
      [3_599_600, '1 h'],
      [7_500_000, '2 h 5 min'],
      [86_399_600, '1 d'],
      [273_600_000, '3 d 4 h'],
      [-5000, '−5 s'],
    ];
    for (const [ms, text] of expected) assert.equal(formatDuration(ms), text, String(ms));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 10 * 86_400_000 }), (ms) => {
        assert.doesNotMatch(formatDuration(ms), /\b60 (s|min)|\b24 h/);
      }),
    );
  });

  it('an age says whether it is past', () => {
    assert.equal(formatAge(1000, 6000), '5 s ago');
    assert.equal(formatAge(6000, 1000), 'in 5 s');
  });

  it('a time carries its offset, so that it reads back as the same instant', () => {
    const earliest = Date.UTC(1971, 0);
    const latest = Date.UTC(2100, 0);
    fc.assert(
      fc.property(fc.integer({ min: earliest, max: latest }), (ms) => {
        const text = formatTime(ms);
        assert.match(text, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d$/);
        const [day, time, offset] = text.split(' ');
        assert.equal(Date.parse(`${day}T${time}${offset}`), Math.floor(ms / 1000) * 1000);
      }),
    );
  });
});

describe('a page', () => {
  it('lets nothing through that a terminal takes for more than text', () => {
    assert.equal(printable('\x1b[2Jname\r\n\x00\x9b'), '\\x1b[2Jname\\x0d\\x0a\\x00\\x9b');
    assert.equal(printable('a\u202eb\u2028c\u2069'), 'a\\u{202e}b\\u{2028}c\\u{2069}');
    assert.equal(printable('Zürich 東京 «ok»'), 'Zürich 東京 «ok»');
    fc.assert(
      fc.property(anyText, (text) => {
        const page = new Page(false)
          .line(text)
          .title(text)
          .fields([[text, text]])
          .table([{ head: 'A' }, { head: 'B' }], [[text, 'b']]);
        assert.doesNotMatch(page.toString(), /[^\P{Cc}\n]|[\u2028-\u202e\u2066-\u2069]/u);
        assert.equal(page.toString().split('\n').length, 7);
      }),
    );
  });

  it('aligns columns, leaves out those without a value, and colours what is coloured only if asked', () => {
    const rows = [
      ['web', '', { text: 'bad', tone: 'bad' } as const, '7'],
      ['database', '', 'ok', '12'],
    ];
    const columns = [
      { head: 'NAME' },
      { head: 'NONE' },
      { head: 'STATE' },
      { head: 'NO', align: 'right' } as const,
    ];
    assert.equal(
      new Page(false).table(columns, rows).toString(),
      'NAME      STATE  NO\nweb       bad     7\ndatabase  ok     12\n',
    );
    const coloured = new Page(true).table(columns, rows).toString();
    assert.ok(coloured.includes('\x1b[31mbad\x1b[0m     7\n'), JSON.stringify(coloured));
    assert.ok(coloured.includes('database  ok     12\n'), 'the width of a column does not count its colours');
  });
});
