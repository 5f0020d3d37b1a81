import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseDisk, parseNic } from '../../../src/cli/machine-description.ts';
import {
  listed,
  named,
  parseAddress,
  parseCount,
  parseDuration,
  parseInterval,
  parsePort,
  parseRate,
  parseSize,
  parseWord,
} from '../../../src/cli/values.ts';
import { isFailure } from '../../../src/lib/errors.ts';

/** Every text is refused with CLI_VALUE_INVALID, which repeats it. */
function refuses(parse: (text: string) => unknown, texts: readonly string[]): void {
  for (const text of texts) {
    assert.throws(
      () => parse(text),
      (error) => isFailure(error, 'CLI_VALUE_INVALID') && error.kind === 'input',
      `«${text}» was taken`,
    );
  }
}

function reads<T>(parse: (text: string) => T, pairs: readonly (readonly [string, T])[]): void {
  for (const [text, value] of pairs) assert.deepEqual(parse(text), value, text);
}

describe('values of the command line', () => {
  it('durations have a unit and are whole milliseconds', () => {
    reads(parseDuration, [
      ['500ms', 500],
      ['5s', 5000],
      ['1.5h', 5_400_000],
      ['10m', 600_000],
      ['10min', 600_000],
      [' 24 h ', 86_400_000],
      ['7d', 604_800_000],
      ['2w', 1_209_600_000],
    ]);
    refuses(parseDuration, [
      '',
      '5',
      's',
      '0s',
      '-5s',
      '+5s',
      '5 parsecs',
      '5S',
      '1e3s',
      '.5s',
      '5.s',
      '0.1ms',
      '1h30m',
      '99999999999999d',
      '5constructor',
      '５s',
    ]);
    assert.equal(parseInterval('off'), 'off');
    assert.equal(parseInterval('10s'), 10_000);
    refuses(parseInterval, ['OFF', 'never', '0s']);
  });

  it('sizes are powers of 1024; a unit that could mean either is refused', () => {
    reads(parseSize, [
      ['4096', 4096],
      ['4096B', 4096],
      ['64K', 65_536],
      ['64KiB', 65_536],
      ['512M', 2 ** 29],
      ['1.5G', 1.5 * 2 ** 30],
      ['1.5gib', 1.5 * 2 ** 30],
      ['2T', 2 ** 41],
    ]);
    refuses(parseSize, [
      '',
      '0',
      '0M',
      '-1M',
      '1.5',
      '0.3K',
      '64KB',
      '1mb',
      '1P',
      '1,5G',
      '1e3',
      '0x10',
      'M',
      '9999999T',
    ]);
  });

  it('rates are bytes or bits a second, or unlimited, and never nothing', () => {
    reads(parseRate, [
      ['100M/s', 100 * 2 ** 20],
      ['1.5G/s', 1.5 * 2 ** 30],
      ['512/s', 512],
      ['800Mbit/s', 100e6],
      ['1Gbit/s', 125e6],
      ['64kbit/s', 8000],
      ['unlimited', 'unlimited'],
    ]);
    refuses(parseRate, [
      '',
      '100M',
      '/s',
      '0/s',
      '0Mbit/s',
      '0.001kbit/s',
      '99999999999999Gbit/s',
      '100MB/s',
      '100mbit/s',
      '-1M/s',
      '100M/min',
      'Unlimited',
    ]);
  });

  it('a whole number is itself, whatever its unit of 1', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), (value) => {
        assert.equal(parseDuration(`${value}ms`), value);
        assert.equal(parseSize(`${value}`), value);
        assert.equal(parseRate(`${value}/s`), value);
        assert.equal(parseCount(`${value}`, 1, 1_000_000), value);
      }),
    );
  });

  it('text of any kind is either read or refused with a code', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        for (const parse of [parseDuration, parseSize, parseRate, parsePort, parseDisk, parseNic]) {
          try {
            parse(text);
          } catch (error) {
            assert.ok(isFailure(error, 'CLI_VALUE_INVALID'), String(error));
          }
        }
      }),
    );
  });

  it('counts keep to their bounds, words to their list', () => {
    assert.equal(parseCount('0', 0, 128), 0);
    assert.equal(parseCount('128', 0, 128), 128);
    refuses((text) => parseCount(text, 1, 128), ['0', '129', '-1', '1.0', '', ' ', '1e2', '0x1']);
    assert.equal(parsePort('0'), 0);
    refuses(parsePort, ['65536', 'https']);
    assert.equal(parseWord('app', ['crash', 'app']), 'app');
    refuses((text) => parseWord(text, ['crash', 'app']), ['App', '', 'toString']);
  });

  it('a failure names the option; a repeatable option keeps its order', () => {
    assert.throws(() => named('--memory', parseSize)('2 apples'), {
      code: 'CLI_VALUE_INVALID',
      message: /^--memory: «2 apples» is not a size such as /,
    });
    const sizes = listed('--size', parseSize);
    assert.deepEqual(sizes('2K', sizes('1K', undefined)), [1024, 2048]);
  });
});

describe('disks and NICs of the command line', () => {
  it('a disk says its format, or its name does; its content is never asked', () => {
    reads(parseDisk, [
      ['root=/srv/web.qcow2', { diskId: 'root', path: '/srv/web.qcow2', format: 'qcow2' }],
      ['root=/srv/web.img', { diskId: 'root', path: '/srv/web.img', format: 'raw' }],
      ['data=/dev/vg0/web:raw', { diskId: 'data', path: '/dev/vg0/web', format: 'raw' }],
      ['data=/srv/odd.raw:qcow2', { diskId: 'data', path: '/srv/odd.raw', format: 'qcow2' }],
      ['a=b=c:d.qcow2', { diskId: 'a', path: 'b=c:d.qcow2', format: 'qcow2' }],
    ]);
    refuses(parseDisk, [
      '/srv/web.qcow2',
      'root=',
      'root=:raw',
      '=x.raw',
      'Root=x.raw',
      'root=x',
      'root=x.vmdk',
      'root=x:vmdk',
      `${'r'.repeat(25)}=x.raw`,
    ]);
  });

  it('a NIC has an id, and a network, an address and a model if wanted', () => {
    const model = 'virtio-net-pci' as const;
    assert.deepEqual(parseNic('lan'), { nicId: 'lan', network: '', model });
    assert.deepEqual(parseNic('lan=br0,mac=52:54:00:AB:CD:EF,model=e1000e'), {
      nicId: 'lan',
      network: 'br0',
      model: 'e1000e',
      mac: '52:54:00:ab:cd:ef',
    });
    refuses(parseNic, ['', 'LAN', 'lan,mac=52:54:00:ab:cd', 'lan,model=rtl8139', 'lan,vlan=7', 'lan,']);
  });

  it('addresses have a host and a port', () => {
    reads(parseAddress, [
      ['south.example.com:7443', { host: 'south.example.com', port: 7443 }],
      ['[2001:db8::7]:1', { host: '2001:db8::7', port: 1 }],
    ]);
    refuses(parseAddress, ['south', 'south:0', 'south:65536', '2001:db8::7:7443', ':7443', 'a b:1']);
  });
});
