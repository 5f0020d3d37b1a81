import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { isFailure } from '../../../src/lib/errors.ts';
import {
  CLUSTER_BYTES,
  createEmptyLayer,
  LAYER_BYTES_MAX,
  type LayerBacking,
  type LayerOperation,
  LayerWriter,
  readHeader,
} from '../../../src/qcow2/index.ts';
import {
  chainCases,
  contentOf,
  expectedContent,
  interestingRanges,
  LARGE_SIZES,
  type LayerCase,
  layerCases,
  mapOf,
  SMALL_SIZES,
} from '../../support/layer-operations.ts';
import { openChain, openLayer } from '../../support/qcow2-reader.ts';
import { MemoryFiles } from './memory-files.ts';

const ANY_SIZE = [...SMALL_SIZES, ...LARGE_SIZES];

async function perform(writer: LayerWriter, operation: LayerOperation, seed: number): Promise<void> {
  const { kind, offset, length } = operation;
  if (kind === 'zero') await writer.zero(offset, length);
  else await writer.write(offset, contentOf(seed, offset, length));
}

async function writeLayer(
  files: MemoryFiles,
  path: string,
  layer: LayerCase,
  backing: LayerBacking | null = null,
): Promise<{ fileBytes: number }> {
  await using writer = await LayerWriter.create(files, path, { sizeBytes: layer.sizeBytes, backing });
  for (const operation of layer.operations) await perform(writer, operation, layer.seed);
  return await writer.finish();
}

test('a layer holds exactly its operations', async () => {
  await fc.assert(
    fc.asyncProperty(layerCases(ANY_SIZE), async (layer) => {
      const files = new MemoryFiles();
      const { fileBytes } = await writeLayer(files, '/layer', layer);
      assert.equal(await files.sizeOf('/layer'), fileBytes);
      await using reader = await openLayer(files, '/layer');
      assert.deepEqual(reader.map(), mapOf(layer.operations));
      assert.equal(reader.sizeBytes, layer.sizeBytes);
      const header = await readHeader(files, '/layer');
      assert.equal(header.sizeBytes, layer.sizeBytes);
      assert.equal(header.granularityBytes, 4096);
    }),
    { numRuns: 100 },
  );
});

test('a chain of layers reads as the model', async () => {
  await fc.assert(
    fc.asyncProperty(chainCases(ANY_SIZE, 3), async ({ layers }) => {
      const files = new MemoryFiles();
      for (const [i, layer] of layers.entries()) {
        await writeLayer(
          files,
          `/layer-${i}`,
          layer,
          i === 0 ? null : { name: `layer-${i - 1}`, format: 'qcow2' },
        );
      }
      await using chain = await openChain(files, '/layer-2');
      assert.equal(chain.layers.length, 3);
      for (const { offset, length } of interestingRanges(layers)) {
        const got = await chain.read(offset, length);
        assert.ok(got.equals(expectedContent(layers, offset, length)), `${offset}+${length}`);
      }
    }),
    { numRuns: 40 },
  );
});

test('a layer over a raw base shows the base where it holds nothing, and zeroes behind its end', async () => {
  const files = new MemoryFiles();
  const base = await files.open('/base.raw', 'create');
  await base.write(contentOf(9, 0, 10_000), 0);
  await base.close();
  const layer: LayerCase = {
    sizeBytes: 20_480,
    seed: 3,
    operations: [
      { kind: 'zero', offset: 0, length: 4096 },
      { kind: 'data', offset: 12_288, length: 4096 },
    ],
  };
  await writeLayer(files, '/layer', layer, { name: 'base.raw', format: 'raw' });
  await using chain = await openChain(files, '/layer');
  const expected = Buffer.alloc(20_480);
  contentOf(9, 4096, 10_000 - 4096).copy(expected, 4096);
  contentOf(3, 12_288, 4096).copy(expected, 12_288);
  assert.ok((await chain.read(0, 20_480)).equals(expected));
});

test('resumed after any operation, with any leftovers, a layer ends as the same bytes', async () => {
  const interrupted = fc.record({
    layer: layerCases(ANY_SIZE),
    applied: fc.nat(20),
    extra: fc.nat(20),
    finished: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(interrupted, async ({ layer, applied, extra, finished }) => {
      const shape = { sizeBytes: layer.sizeBytes, backing: { name: 'parent', format: 'qcow2' as const } };
      const files = new MemoryFiles();
      await writeLayer(files, '/whole', layer, shape.backing);

      const durable = layer.operations.slice(0, applied);
      {
        await using writer = await LayerWriter.create(files, '/layer', shape);
        for (const operation of durable) await perform(writer, operation, layer.seed);
        await writer.sync();
        // Beyond what is durable the earlier attempt wrote other data, and perhaps even finished.
        for (const operation of layer.operations.slice(applied, applied + extra)) {
          await perform(writer, operation, layer.seed + 1);
        }
        if (finished) await writer.finish();
      }
      await using writer = await LayerWriter.resume(files, '/layer', shape, durable);
      await assert.rejects(readHeader(files, '/layer'), { code: 'QCOW2_BAD_MAGIC' });
      for (const operation of layer.operations.slice(applied)) await perform(writer, operation, layer.seed);
      await writer.finish();
      assert.deepEqual(files.contentOf('/layer'), files.contentOf('/whole'));
    }),
    { numRuns: 100 },
  );
});

test('interrupted by a failure at any act, a layer resumes to the same bytes', async () => {
  const layer: LayerCase = {
    sizeBytes: 2 ** 31,
    seed: 5,
    operations: [
      { kind: 'data', offset: 8192, length: 12_288 },
      { kind: 'zero', offset: 65_536, length: 400_000 - (400_000 % 4096) },
      { kind: 'data', offset: 2 ** 30 - 8192, length: 16_384 },
      { kind: 'zero', offset: 2 ** 30 + 65_536, length: 4096 },
    ],
  };
  const shape = { sizeBytes: layer.sizeBytes, backing: null };
  let failures = 0;
  for (let failAt = 2; ; failAt++) {
    const files = new MemoryFiles();
    await writeLayer(files, '/whole', layer);
    let durable = 0;
    let failed = false;
    {
      files.failAt = failAt;
      await using writer = await LayerWriter.create(files, '/layer', shape);
      try {
        for (const operation of layer.operations) {
          await perform(writer, operation, layer.seed);
          await writer.sync();
          durable++;
        }
        await writer.finish();
      } catch (error) {
        failed = true;
        assert.ok(isFailure(error, 'DISK_FULL', 'FSYNC_FAILED'), String(error));
        const refused = { code: 'QCOW2_WRITER_FAILED' };
        await assert.rejects(writer.sync(), refused);
        await assert.rejects(writer.zero(2 ** 31 - 4096, 4096), refused);
        await assert.rejects(writer.finish(), refused);
      }
    }
    files.failAt = Number.POSITIVE_INFINITY;
    assert.equal(files.openHandles, 0);
    if (!failed) break;
    failures++;
    await using writer = await LayerWriter.resume(files, '/layer', shape, layer.operations.slice(0, durable));
    for (const operation of layer.operations.slice(durable)) await perform(writer, operation, layer.seed);
    await writer.finish();
    assert.deepEqual(files.contentOf('/layer'), files.contentOf('/whole'), `failure at act ${failAt}`);
  }
  assert.ok(failures >= 14, `${failures} failures were tried`);
});

test('operations may be resumed in other pieces than they were written', async () => {
  const shape = { sizeBytes: 2 ** 20, backing: null };
  const files = new MemoryFiles();
  const writer = await LayerWriter.create(files, '/layer', shape);
  await writer.write(0, contentOf(1, 0, 200_704));
  await writer.sync();
  await writer[Symbol.asyncDispose]();
  const pieces: LayerOperation[] = [];
  for (let offset = 0; offset < 200_704; offset += 4096) pieces.push({ kind: 'data', offset, length: 4096 });
  const resumed = await LayerWriter.resume(files, '/layer', shape, pieces);
  await resumed.finish();
  await using reader = await openLayer(files, '/layer');
  assert.deepEqual(reader.map(), [{ offset: 0, length: 200_704, kind: 'data' }]);
});

test('the magic is written last, between two syncs, after the name is durable', async () => {
  const files = new MemoryFiles();
  await writeLayer(files, '/layer', {
    sizeBytes: 2 ** 31,
    seed: 1,
    operations: [{ kind: 'data', offset: 2 ** 30 - 4096, length: 8192 }],
  });
  const acts = files.events.map(({ act }) => act);
  assert.equal(acts[0], 'syncDirectory');
  assert.deepEqual(acts.slice(-4), ['sync', 'write', 'sync', 'close']);
  assert.equal(files.events.at(-3)!.position, 0);
  const early = files.events.slice(0, -4).filter(({ act, position }) => act === 'write' && position < 4096);
  assert.deepEqual(early, []);
});

test('what lies side by side in the file is written in one piece of up to 1 MiB; what is long, past the cache', async () => {
  const files = new MemoryFiles();
  const writer = await LayerWriter.create(files, '/layer', { sizeBytes: 2 ** 31, backing: null });
  const before = files.events.length;
  for (let offset = 0; offset < 3 * 2 ** 19; offset += 2 ** 18)
    await writer.write(offset, Buffer.alloc(2 ** 18, 1));
  await writer.write(2 ** 30 - 8192, Buffer.alloc(12_288, 1));
  await writer.sync();
  const written = files.events.slice(before).filter(({ act }) => act !== 'sync');
  assert.deepEqual(
    written.map(({ act, length }) => [act, length]).sort(),
    [
      ['write', 8192],
      ['write', CLUSTER_BYTES],
      ['write', 4096],
      ['writeDirect', 2 ** 20],
      ['writeDirect', 2 ** 19],
    ].sort(),
  );
  await writer[Symbol.asyncDispose]();
});

test('a write that failed behind the caller is thrown by the next call, whichever it is', async () => {
  const next: [string, (writer: LayerWriter) => Promise<unknown>][] = [
    ['write', (w) => w.write(2 ** 21, Buffer.alloc(4096))],
    ['zero', (w) => w.zero(2 ** 21, 4096)],
    ['sync', (w) => w.sync()],
    ['finish', (w) => w.finish()],
  ];
  for (const [name, call] of next) {
    const files = new MemoryFiles();
    const writer = await LayerWriter.create(files, `/layer`, { sizeBytes: 2 ** 30, backing: null });
    files.failAt = 1;
    await writer.write(0, Buffer.alloc(2 ** 20, 1));
    await assert.rejects(call(writer), { code: 'DISK_FULL' }, name);
    await assert.rejects(writer.zero(2 ** 22, 4096), { code: 'QCOW2_WRITER_FAILED' }, name);
    await writer[Symbol.asyncDispose]();
    assert.equal(files.openHandles, 0);
  }
});

test('a disk that ends within a page ends in zeros up to the end of that page', async () => {
  const files = new MemoryFiles();
  const sizeBytes = 2 ** 18 + 512;
  const writer = await LayerWriter.create(files, '/layer', { sizeBytes, backing: null });
  // A buffer of the pool is used twice, so that old bytes would be seen.
  for (let offset = 0; offset < 2 ** 18; offset += 2 ** 17) {
    await writer.write(offset, Buffer.alloc(2 ** 16, 1));
  }
  await writer.write(2 ** 18, Buffer.alloc(512, 1));
  await writer.sync();
  const { length, position } = files.events.findLast(({ act }) => act === 'write')!;
  assert.equal(length, 4096);
  const handle = await files.open('/layer', 'read');
  const page = Buffer.alloc(4096);
  await handle.read(page, position);
  assert.deepEqual(page, Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(3584)]));
  await handle.close();
  await writer[Symbol.asyncDispose]();
});

test('zeroes and holes within a cluster take no space', async () => {
  const files = new MemoryFiles();
  const { fileBytes } = await writeLayer(files, '/layer', {
    sizeBytes: 64 * 2 ** 30,
    seed: 1,
    operations: [
      { kind: 'data', offset: 4096, length: 4096 },
      { kind: 'data', offset: 16_384, length: 4096 },
      { kind: 'zero', offset: 131_072, length: 2 ** 29 },
    ],
  });
  // Header, refcount table, L1 table, one cluster of data, one L2 table, one refcount block.
  assert.equal(fileBytes, 6 * CLUSTER_BYTES);
  const written = files.events.reduce((sum, { act, length }) => sum + (act === 'write' ? length : 0), 0);
  assert.ok(written < 2 * 4096 + CLUSTER_BYTES + 8192, `${written} bytes were written`);
});

test('wrong use of a writer asserts', async () => {
  const files = new MemoryFiles();
  const wrong: [string, (writer: LayerWriter) => Promise<void>][] = [
    ['unaligned offset', (w) => w.write(512, Buffer.alloc(4096))],
    ['unaligned end', (w) => w.write(0, Buffer.alloc(512))],
    ['empty', (w) => w.zero(0, 0)],
    ['negative', (w) => w.zero(-4096, 4096)],
    ['past the end', (w) => w.zero(1_048_576, 4096)],
    ['not a number', (w) => w.zero(Number.NaN, 4096)],
    [
      'descending',
      async (w) => {
        await w.zero(8192, 4096);
        await w.zero(4096, 4096);
      },
    ],
    [
      'overlapping',
      async (w) => {
        await w.write(8192, Buffer.alloc(8192));
        await w.zero(12_288, 4096);
      },
    ],
    [
      'after the end of the disk',
      async (w) => {
        await w.zero(1_048_576, 512);
        await w.zero(1_048_576, 512);
      },
    ],
    [
      'two at once',
      async (w) => {
        await Promise.all([w.zero(0, 4096), w.zero(4096, 4096)]);
      },
    ],
    [
      'after finish',
      async (w) => {
        await w.finish();
        await w.zero(0, 4096);
      },
    ],
  ];
  for (const [name, use] of wrong) {
    const writer = await LayerWriter.create(files, `/${name}`, { sizeBytes: 2 ** 20 + 512, backing: null });
    await assert.rejects(use(writer), { name: 'AssertionError' }, name);
    await writer[Symbol.asyncDispose]();
  }
  assert.equal(files.openHandles, 0);
});

test('a shape that no layer can have is refused before anything is made', async () => {
  const files = new MemoryFiles();
  const make = (sizeBytes: number, backing: LayerBacking | null = null) =>
    Promise.any([
      createEmptyLayer(files, '/layer', { sizeBytes, backing }, { sync: false }),
      LayerWriter.create(files, '/layer', { sizeBytes, backing }),
    ]).catch((error: AggregateError) => {
      const [first, second] = error.errors;
      assert.equal(first.code, second.code);
      throw first;
    });
  for (const size of [0, -512, 511, 1000.5, Number.NaN, 2 ** 60, LAYER_BYTES_MAX + 512]) {
    await assert.rejects(make(size), { code: 'QCOW2_SHAPE_UNSUPPORTED' }, String(size));
  }
  for (const name of [
    '',
    'json:{}',
    'nbd://host/x',
    'a:b',
    'a\0b',
    'a\nb',
    'x'.repeat(1024),
    'é'.repeat(512),
  ]) {
    await assert.rejects(make(512, { name, format: 'raw' }), { code: 'QCOW2_BACKING_REFUSED' }, name);
  }
  assert.deepEqual(await files.list(), []);
});

test('an empty layer of any size is complete, and small', async () => {
  for (const sizeBytes of [512, 540_672, 2 ** 30, 16 * 2 ** 40 + 512, LAYER_BYTES_MAX]) {
    const files = new MemoryFiles();
    const backing = { name: `./${'x'.repeat(1021)}`, format: 'qcow2' as const };
    await createEmptyLayer(files, '/layer', { sizeBytes, backing }, { sync: true });
    assert.deepEqual(
      files.events.slice(-3).map(({ act }) => act),
      ['sync', 'close', 'syncDirectory'],
    );
    const written = files.events.reduce((sum, { act, length }) => sum + (act === 'write' ? length : 0), 0);
    assert.ok(written < 4200 + (sizeBytes / 2 ** 30) * 8 + 64, `${written} bytes were written`);
    await using reader = await openLayer(files, '/layer');
    assert.deepEqual(reader.map(), []);
    assert.deepEqual((await readHeader(files, '/layer')).backing, backing);
  }
});

test('a writer left during an operation closes after it', async () => {
  const files = new MemoryFiles();
  let finished: Promise<unknown>;
  {
    await using writer = await LayerWriter.create(files, '/layer', { sizeBytes: 4096, backing: null });
    finished = writer.finish();
  }
  assert.equal(files.openHandles, 0);
  await finished;
  assert.equal(files.events.at(-1)!.act, 'close');
  await (await openLayer(files, '/layer'))[Symbol.asyncDispose]();
});

test('an empty layer that could not be completed leaves nothing behind', async () => {
  for (let failAt = 1; failAt <= 7; failAt++) {
    const files = new MemoryFiles();
    files.failAt = failAt;
    await assert.rejects(
      createEmptyLayer(files, '/layer', { sizeBytes: 4096, backing: null }, { sync: true }),
      (error) => isFailure(error, 'DISK_FULL', 'FSYNC_FAILED'),
    );
    assert.deepEqual(await files.list(), []);
    assert.equal(files.openHandles, 0);
  }
});

test('resuming a file that is shorter than its record, or a record that is none, is refused', async () => {
  const files = new MemoryFiles();
  const shape = { sizeBytes: 2 ** 20, backing: null };
  const writer = await LayerWriter.create(files, '/layer', shape);
  await writer.write(0, Buffer.alloc(8192, 1));
  await writer.sync();
  await writer[Symbol.asyncDispose]();
  const wrong: LayerOperation[][] = [
    [{ kind: 'data', offset: 0, length: 12_288 }],
    [{ kind: 'data', offset: 0, length: 4095 }],
    [{ kind: 'zero', offset: 2 ** 20, length: 4096 }],
    [
      { kind: 'data', offset: 0, length: 8192 },
      { kind: 'zero', offset: 4096, length: 4096 },
    ],
  ];
  for (const applied of wrong) {
    await assert.rejects(LayerWriter.resume(files, '/layer', shape, applied), {
      code: 'QCOW2_RESUME_MISMATCH',
    });
  }
  await assert.rejects(LayerWriter.resume(files, '/missing', shape, []), { code: 'FILE_UNREADABLE' });
  assert.equal(files.openHandles, 0);
});

test('the reader of the tests is strict: damage of any table is noticed', async () => {
  const files = new MemoryFiles();
  await writeLayer(files, '/layer', {
    sizeBytes: 2 ** 21,
    seed: 1,
    operations: [
      { kind: 'data', offset: 0, length: 4096 },
      { kind: 'data', offset: 262_144, length: 4096 },
    ],
  });
  const u64 = (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(value);
    return bytes;
  };
  const damages: [string, number, Uint8Array][] = [
    ['magic', 0, Buffer.from([0])],
    ['refcount of data', 6 * CLUSTER_BYTES + 2 * 3 + 1, Buffer.from([0])],
    ['refcount of nothing', 6 * CLUSTER_BYTES + 2 * 7 + 1, Buffer.from([1])],
    ['L1 entry out of the file', 2 * CLUSTER_BYTES, u64((1n << 63n) + 100n * 131_072n)],
    ['L1 entry to the header', 2 * CLUSTER_BYTES, u64(1n << 63n)],
    ['L2 entry to the other cluster', 5 * CLUSTER_BYTES, u64((1n << 63n) + 4n * 131_072n)],
    ['L2 entry compressed', 5 * CLUSTER_BYTES, u64((1n << 62n) + 3n * 131_072n)],
    ['both data and zero', 5 * CLUSTER_BYTES + 8, u64((1n << 32n) + 1n)],
    ['refcount table empty', CLUSTER_BYTES, u64(0n)],
  ];
  for (const [name, position, bytes] of damages) {
    const before = Buffer.alloc(bytes.length);
    const file = await files.open('/layer', 'read');
    await file.read(before, position);
    await file.close();
    files.patch('/layer', position, bytes);
    await assert.rejects(openLayer(files, '/layer'), { name: 'Qcow2Damage' }, name);
    files.patch('/layer', position, before);
  }
  await (await openLayer(files, '/layer'))[Symbol.asyncDispose]();
  assert.equal(files.openHandles, 0);
});
