import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Failure } from '../../../src/lib/errors.ts';
import {
  createEmptyLayer,
  parseHeader,
  type Qcow2Header,
  readHeader,
  readVirtualSize,
} from '../../../src/qcow2/index.ts';
import { MemoryFiles } from './memory-files.ts';

const FILE_BYTES = 2 ** 20;

/** A header as `qemu-img create -f qcow2 -b base.raw -F raw` writes it for a disk of 1 GiB. */
function ordinary(change?: (header: Buffer) => void): Buffer {
  const header = Buffer.alloc(65_536);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeBigUInt64BE(152n, 8); // backing_file_offset
  header.writeUInt32BE(8, 16); // backing_file_size
  header.writeUInt32BE(16, 20); // cluster_bits
  header.writeBigUInt64BE(2n ** 30n, 24); // size
  header.writeUInt32BE(2, 36); // l1_size
  header.writeBigUInt64BE(0x30000n, 40); // l1_table_offset
  header.writeBigUInt64BE(0x10000n, 48); // refcount_table_offset
  header.writeUInt32BE(1, 56); // refcount_table_clusters
  header.writeUInt32BE(4, 96); // refcount_order
  header.writeUInt32BE(112, 100); // header_length
  header.writeUInt32BE(0xe2792aca, 112);
  header.writeUInt32BE(3, 116);
  header.write('raw', 120);
  header.writeUInt32BE(0x6803f857, 128); // feature name table, here without entries
  header.writeUInt32BE(0, 132);
  header.write('base.raw', 152);
  change?.(header);
  return header;
}

const parse = (bytes: Uint8Array, allowVersion2 = false): Qcow2Header =>
  parseHeader(bytes, { path: 'disk.qcow2', fileBytes: FILE_BYTES, allowVersion2 });

test('an ordinary header is understood', () => {
  assert.deepEqual(parse(ordinary()), {
    version: 3,
    sizeBytes: 2 ** 30,
    clusterBytes: 65_536,
    granularityBytes: 65_536,
    extendedL2: false,
    dirty: false,
    lazyRefcounts: false,
    compression: 'zlib',
    encryption: 'none',
    refcountBits: 16,
    snapshots: 0,
    bitmaps: 'none',
    backing: { name: 'base.raw', format: 'raw' },
  });
});

test('what is unusual and harmless is reported', () => {
  const header = parse(
    ordinary((h) => {
      h.writeBigUInt64BE(1n | 8n, 72); // dirty, compression type
      h.writeBigUInt64BE(1n | (1n << 40n), 80); // lazy refcounts, and an unknown compatible feature
      h.writeBigUInt64BE(1n | (1n << 50n), 88); // bitmaps, and an unknown autoclear feature
      h.writeUInt8(1, 104);
      h.writeUInt32BE(2, 32);
      h.writeUInt32BE(3, 60);
      h.writeBigUInt64BE(0x50000n, 64);
      h.writeUInt32BE(0x23852875, 128);
    }),
  );
  assert.equal(header.dirty, true);
  assert.equal(header.lazyRefcounts, true);
  assert.equal(header.compression, 'zstd');
  assert.equal(header.encryption, 'luks');
  assert.equal(header.snapshots, 3);
  assert.equal(header.bitmaps, 'consistent');
});

test('version 2 is refused with its own code, and readable for who asks', () => {
  const old = ordinary((h) => {
    h.writeUInt32BE(2, 4);
    h.fill(0, 72, 152);
    h.writeUInt32BE(0xe2792aca, 72);
    h.writeUInt32BE(3, 76);
    h.write('raw', 80);
  });
  assert.throws(() => parse(old), { code: 'QCOW2_VERSION_OLD' });
  const header = parse(old, true);
  assert.equal(header.version, 2);
  assert.deepEqual(header.backing, { name: 'base.raw', format: 'raw' });
});

type Refusal = [what: string, code: string, change: (header: Buffer) => void];

/** Writes another backing name where there is room for it. */
const named = (name: string) => (h: Buffer) => {
  h.writeBigUInt64BE(4096n, 8);
  h.writeUInt32BE(Buffer.byteLength(name), 16);
  h.write(name, 4096);
};

const REFUSALS: Refusal[] = [
  ['another magic', 'QCOW2_BAD_MAGIC', (h) => h.write('QFI\xfc', 0, 'latin1')],
  ['an unfinished layer', 'QCOW2_BAD_MAGIC', (h) => h.fill(0)],
  ['version 1', 'QCOW2_VERSION_UNKNOWN', (h) => h.writeUInt32BE(1, 4)],
  ['a future version', 'QCOW2_VERSION_UNKNOWN', (h) => h.writeUInt32BE(4, 4)],
  ['an unknown incompatible feature', 'QCOW2_FEATURE_UNKNOWN', (h) => h.writeBigUInt64BE(1n << 5n, 72)],
  ['the last incompatible feature', 'QCOW2_FEATURE_UNKNOWN', (h) => h.writeBigUInt64BE(1n << 63n, 72)],
  ['an external data file', 'QCOW2_DATA_FILE', (h) => h.writeBigUInt64BE(4n, 72)],
  ['the name of a data file alone', 'QCOW2_DATA_FILE', (h) => h.writeUInt32BE(0x44415441, 128)],
  ['the corrupt bit', 'QCOW2_MARKED_CORRUPT', (h) => h.writeBigUInt64BE(2n, 72)],
  ['an unknown encryption', 'QCOW2_FEATURE_UNKNOWN', (h) => h.writeUInt32BE(3, 32)],
  [
    'an unknown compression',
    'QCOW2_FEATURE_UNKNOWN',
    (h) => {
      h.writeBigUInt64BE(8n, 72);
      h.writeUInt8(2, 104);
    },
  ],
  ['a compression type without its feature', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt8(1, 104)],
  ['a compression feature without its type', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(8n, 72)],
  ['clusters of 256 bytes', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(8, 20)],
  ['clusters of 4 MiB', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(22, 20)],
  ['cluster bits beyond shifting', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0xffffffff, 20)],
  [
    'extended entries in small clusters',
    'QCOW2_HEADER_INVALID',
    (h) => {
      h.writeBigUInt64BE(16n, 72);
      h.writeUInt32BE(13, 20);
    },
  ],
  ['a disk of 64 PB', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(1n << 56n, 24)],
  ['a disk of 2^64 - 1 bytes', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(2n ** 64n - 1n, 24)],
  ['a giant L1 table', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0xffffffff, 36)],
  ['an L1 table just too large', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(2 ** 22 + 1, 36)],
  ['an L1 table too short for the disk', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(1, 36)],
  ['an L1 table between clusters', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(0x30200n, 40)],
  ['an L1 table behind the end', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(1n << 40n, 40)],
  ['an L1 table that is the header', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(0n, 40)],
  ['an L1 table that is the refcount table', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(0x10000n, 40)],
  ['a refcount table that is the header', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(0n, 48)],
  ['no refcount table', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0, 56)],
  ['a giant refcount table', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0xffffffff, 56)],
  ['too many snapshots', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(65_537, 60)],
  [
    'a snapshot table in the L1 table',
    'QCOW2_HEADER_INVALID',
    (h) => {
      h.writeUInt32BE(1, 60);
      h.writeBigUInt64BE(0x30000n, 64);
    },
  ],
  ['refcounts of 128 bits', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(7, 96)],
  ['a header of 96 bytes', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(96, 100)],
  ['a header of uneven length', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(109, 100)],
  ['a header longer than its cluster', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(65_544, 100)],
  ['consistent bitmaps without bitmaps', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(1n, 88)],
  ['an extension longer than the header', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0xffffffff, 132)],
  ['an extension twice', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0xe2792aca, 128)],
  ['a format that is no name', 'QCOW2_HEADER_INVALID', (h) => h.write('r,w', 120)],
  ['a backing name of no bytes', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(0, 16)],
  ['a backing name of 1024 bytes', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt32BE(1024, 16)],
  ['a backing name in the header', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(8n, 8)],
  ['a backing name across the cluster', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(65_530n, 8)],
  ['a backing name far away', 'QCOW2_HEADER_INVALID', (h) => h.writeBigUInt64BE(2n ** 63n, 8)],
  ['a backing name that is not UTF-8', 'QCOW2_HEADER_INVALID', (h) => h.writeUInt8(0xff, 153)],
  ['a backing name with a NUL', 'QCOW2_BACKING_REFUSED', (h) => h.writeUInt8(0, 155)],
  ['a backing name json:', 'QCOW2_BACKING_REFUSED', named('json:{"driver":"null-co"}')],
  ['a backing name nbd:', 'QCOW2_BACKING_REFUSED', named('nbd://somewhere/disk')],
  ['a backing name file:', 'QCOW2_BACKING_REFUSED', named('file:/etc/hostname')],
];

for (const [what, code, change] of REFUSALS) {
  test(`a header with ${what} is refused as ${code}`, () => {
    assert.throws(() => parse(ordinary(change)), { code });
  });
}

test('more than 64 extensions are refused', () => {
  const crowded = ordinary((h) => {
    h.writeBigUInt64BE(4096n, 8);
    h.write('base.raw', 4096);
    for (let i = 0; i < 65; i++) h.writeUInt32BE(1000 + i, 128 + i * 8);
  });
  assert.throws(() => parse(crowded), { code: 'QCOW2_HEADER_INVALID' });
});

test('a header cut off at any byte is refused with a code', () => {
  const whole = ordinary().subarray(0, 160);
  for (let length = 0; length < 104; length++) {
    const code = length < 8 ? 'QCOW2_BAD_MAGIC' : 'QCOW2_HEADER_INVALID';
    assert.throws(() => parse(whole.subarray(0, length)), { code }, `${length} bytes`);
  }
  for (let length = 104; length < 160; length++) {
    assert.throws(
      () => parse(whole.subarray(0, length)),
      { code: 'QCOW2_HEADER_INVALID' },
      `${length} bytes`,
    );
  }
  assert.equal(parse(whole).backing?.name, 'base.raw');
});

test('any bytes are either understood within bounds or refused with a code', () => {
  const noise = fc.array(fc.record({ at: fc.nat(170), byte: fc.nat(255) }), { maxLength: 8 });
  fc.assert(
    fc.property(noise, fc.boolean(), (changes, allowVersion2) => {
      const bytes = ordinary((h) => {
        for (const { at, byte } of changes) h[at] = byte;
      });
      try {
        const header = parse(bytes, allowVersion2);
        assert.ok(Number.isSafeInteger(header.sizeBytes) && header.sizeBytes >= 0);
        assert.ok(header.clusterBytes >= 512 && header.clusterBytes <= 2 ** 21);
        assert.ok(header.backing === null || !header.backing.name.startsWith('json:'));
      } catch (error) {
        assert.ok(error instanceof Failure && error.code.startsWith('QCOW2_'), String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('an image that names itself as its backing file is refused', async () => {
  const files = new MemoryFiles();
  for (const name of ['loop', './loop', '/d/loop', '../d/loop']) {
    await createEmptyLayer(
      files,
      '/d/loop',
      { sizeBytes: 4096, backing: { name, format: 'qcow2' } },
      { sync: false },
    );
    await assert.rejects(readHeader(files, '/d/loop'), { code: 'QCOW2_BACKING_REFUSED' }, name);
    await files.remove('/d/loop');
  }
  assert.equal(files.openHandles, 0);
});

test('the size of a disk can be read of images whose header is refused otherwise, and of no other file', async () => {
  const files = new MemoryFiles();
  const put = async (path: string, bytes: Buffer) => {
    const file = await files.open(path, 'create');
    await file.write(bytes, 0);
    await file.close();
  };
  const unknown = ordinary((header) => header.writeBigUInt64BE(2n ** 40n, 72));
  await put('/unknown', unknown);
  await assert.rejects(readHeader(files, '/unknown'), Failure);
  assert.equal(await readVirtualSize(files, '/unknown'), 2 ** 30);
  await put('/text', Buffer.alloc(100, 'no image '));
  await put('/short', ordinary().subarray(0, 20));
  for (const path of ['/text', '/short']) assert.equal(await readVirtualSize(files, path), undefined);
});
