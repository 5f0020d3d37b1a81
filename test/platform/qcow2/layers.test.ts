import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { createEmptyLayer, type LayerBacking, LayerWriter, readHeader } from '../../../src/qcow2/index.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
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
import { type MappedExtent, openChain } from '../../support/qcow2-reader.ts';
import { sized } from '../../support/size.ts';
import { socketListens, startedProcess } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** What QEMU's own tools say about our layers. */

async function writeLayer(path: string, layer: LayerCase, backing: LayerBacking | null): Promise<number> {
  await using writer = await LayerWriter.create(nodeFiles, path, { sizeBytes: layer.sizeBytes, backing });
  for (const { kind, offset, length } of layer.operations) {
    if (kind === 'zero') await writer.zero(offset, length);
    else await writer.write(offset, contentOf(layer.seed, offset, length));
  }
  return (await writer.finish()).fileBytes;
}

/** Fails unless `qemu-img check` finds neither errors nor leaks; it ends with 2 or 3 otherwise. */
async function assertClean(path: string): Promise<void> {
  const { stdout } = await runCommand('qemu-img', ['check', '-f', 'qcow2', '--output=json', path]);
  const report = JSON.parse(stdout);
  assert.equal(report['check-errors'], 0);
  assert.equal(report.corruptions ?? 0, 0);
  assert.equal(report.leaks ?? 0, 0);
}

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
}

/** What QEMU finds in the layer itself. */
async function qemuMap(path: string): Promise<MappedExtent[]> {
  const { stdout } = await runCommand('qemu-img', ['map', '-f', 'qcow2', '--output=json', path]);
  const entries: MapEntry[] = JSON.parse(stdout);
  return mapOf(
    entries
      .filter(({ depth, present }) => depth === 0 && present)
      .map(({ start, length, zero }) => ({ kind: zero ? 'zero' : 'data', offset: start, length })),
  );
}

async function assertConverts(path: string, layers: readonly LayerCase[]): Promise<void> {
  const raw = `${path}.raw`;
  await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
  const file = await open(raw);
  try {
    assert.equal((await file.stat()).size, layers[0]!.sizeBytes);
    for (const { offset, length } of interestingRanges(layers)) {
      const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
      assert.ok(buffer.equals(expectedContent(layers, offset, length)), `content of ${offset}+${length}`);
    }
  } finally {
    await file.close();
    await nodeFiles.remove(raw);
  }
}

const sizes = [...SMALL_SIZES, ...LARGE_SIZES];

test('QEMU finds every layer clean, maps it as written and reads what was written', async (t) => {
  const directory = await temporaryDirectory(t);
  let count = 0;
  await fc.assert(
    fc.asyncProperty(layerCases(sizes), async (layer) => {
      const path = join(directory, `${count++}.qcow2`);
      const fileBytes = await writeLayer(path, layer, null);
      assert.equal(await nodeFiles.sizeOf(path), fileBytes);
      await assertClean(path);
      assert.deepEqual(await qemuMap(path), mapOf(layer.operations));
      await assertConverts(path, [layer]);
      await nodeFiles.remove(path);
    }),
    { numRuns: sized({ what: 'qcow2: layers', normal: 25, full: 500 }) },
  );
});

test('QEMU reads chains of three layers as the model, and maps the top one as its own', async (t) => {
  const directory = await temporaryDirectory(t);
  let count = 0;
  await fc.assert(
    fc.asyncProperty(chainCases(sizes, 3), async ({ layers }) => {
      const run = count++;
      const paths = layers.map((_, i) => join(directory, `${run}-${i}.qcow2`));
      for (const [i, layer] of layers.entries()) {
        await writeLayer(
          paths[i]!,
          layer,
          i === 0 ? null : { name: `${run}-${i - 1}.qcow2`, format: 'qcow2' },
        );
        await assertClean(paths[i]!);
      }
      assert.deepEqual(await qemuMap(paths[2]!), mapOf(layers[2]!.operations));
      await assertConverts(paths[2]!, layers);
      for (const path of paths) await nodeFiles.remove(path);
    }),
    { numRuns: sized({ what: 'qcow2: chains', normal: 10, full: 200 }) },
  );
});

const ON_BORDERS: LayerCase = {
  sizeBytes: 2 ** 30 + 540_672,
  seed: 77,
  operations: [
    { kind: 'data', offset: 8192, length: 4096 },
    { kind: 'zero', offset: 16_384, length: 8192 },
    { kind: 'data', offset: 2 ** 30 - 262_144, length: 524_288 },
    { kind: 'zero', offset: 2 ** 30 + 524_288, length: 16_384 },
  ],
};

test('QEMU writes further into a finished layer and it stays clean', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'layer.qcow2');
  await writeLayer(path, ON_BORDERS, null);
  const writes = [
    ['12k', '1k'], // a sub-cluster that was absent, beside data in the same cluster
    ['16k', '512'], // one that reads as zero
    ['8k', '4k'], // over data
    ['500M', '300k'], // new clusters
    ['1024M', '200k'], // over data across clusters
  ];
  const commands = writes.flatMap(([at, length]) => ['-c', `write -P 0xa5 ${at} ${length}`]);
  await runCommand('qemu-io', ['-f', 'qcow2', ...commands, '-c', 'discard 600M 1M', path]);
  await assertClean(path);
  const reads = writes.flatMap(([at, length]) => ['-c', `read -P 0xa5 ${at} ${length}`]);
  const zeroes = ['-c', 'read -P 0 13k 3k', '-c', 'read -P 0 16896 7680'];
  const { stdout } = await runCommand('qemu-io', ['-r', '-f', 'qcow2', ...reads, ...zeroes, path]);
  assert.doesNotMatch(stdout, /verification failed/);
  // Still one that the strict header parser knows, though QEMU may have rewritten the header.
  assert.equal((await readHeader(nodeFiles, path)).granularityBytes, 4096);
});

test('an empty layer is a tip for QEMU over any backing, also with a name of 1023 bytes', async (t) => {
  const directory = await temporaryDirectory(t);
  await writeLayer(join(directory, 'base.qcow2'), ON_BORDERS, null);
  const longName = `.//${'./'.repeat(505)}base.qcow2`;
  for (const name of ['base.qcow2', join(directory, 'base.qcow2'), longName]) {
    const path = join(directory, 'tip.qcow2');
    const shape = { sizeBytes: ON_BORDERS.sizeBytes, backing: { name, format: 'qcow2' as const } };
    await createEmptyLayer(nodeFiles, path, shape, { sync: true });
    await assertClean(path);
    assert.deepEqual(await qemuMap(path), []);
    await assertConverts(path, [ON_BORDERS]);
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 9k 1k', '-c', 'write -z 1M 64k', path]);
    await assertClean(path);
    assert.deepEqual(await qemuMap(path), [
      { offset: 8192, length: 4096, kind: 'data' },
      { offset: 2 ** 20, length: 65_536, kind: 'zero' },
    ]);
    await nodeFiles.remove(path);
  }
});

test('QEMU opens the largest layer that the writer makes', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'large.qcow2');
  const sizeBytes = 64 * 2 ** 40;
  const writer = await LayerWriter.create(nodeFiles, path, { sizeBytes, backing: null });
  await writer.write(0, contentOf(1, 0, 4096));
  await writer.write(sizeBytes - 4096, contentOf(1, sizeBytes - 4096, 4096));
  await writer.finish();
  await assertClean(path);
  const file = await open(path);
  const { blocks } = await file.stat();
  await file.close();
  assert.ok(blocks * 512 < 2 ** 20, `${blocks * 512} bytes on disk`);
  assert.deepEqual(await qemuMap(path), [
    { offset: 0, length: 4096, kind: 'data' },
    { offset: sizeBytes - 4096, length: 4096, kind: 'data' },
  ]);
});

async function storageDaemon(t: TestContext, directory: string): Promise<QmpClient> {
  const path = join(directory, 'qmp');
  await startedProcess(t, 'qemu-storage-daemon', [
    ...['--chardev', `socket,id=qmp,path=${path},server=on,wait=off`, '--monitor', 'chardev=qmp'],
  ]);
  await socketListens(path);
  return QmpClient.connect({ path, clock });
}

test('an empty layer takes the place of the tip by blockdev-snapshot and receives the writes', async (t) => {
  const directory = await temporaryDirectory(t);
  const file = (name: string) => ({ driver: 'file', filename: join(directory, name) });
  const nbd = join(directory, 'nbd');
  await writeLayer(join(directory, 'base.qcow2'), ON_BORDERS, null);
  const shape = {
    sizeBytes: ON_BORDERS.sizeBytes,
    backing: { name: 'base.qcow2', format: 'qcow2' as const },
  };
  await createEmptyLayer(nodeFiles, join(directory, 'tip.qcow2'), shape, { sync: true });
  {
    await using qmp = await storageDaemon(t, directory);
    await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'base', file: file('base.qcow2') });
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: nbd } } });
    await qmp.execute('block-export-add', {
      ...{ type: 'nbd', id: 'disk', 'node-name': 'base', name: 'disk', writable: true },
    });
    await qmp.execute('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': 'tip', file: file('tip.qcow2'), backing: null },
    });
    await qmp.execute('transaction', {
      actions: [{ type: 'blockdev-snapshot', data: { node: 'base', overlay: 'tip' } }],
    });
    const url = `nbd+unix:///disk?socket=${nbd}`;
    await runCommand('qemu-io', ['-f', 'raw', '-c', 'write -P 7 10k 4k', '-c', 'flush', url]);
    const exited = qmp.closed;
    await qmp.execute('quit');
    await exited;
  }
  await assertClean(join(directory, 'base.qcow2'));
  await assertClean(join(directory, 'tip.qcow2'));
  assert.deepEqual(await qemuMap(join(directory, 'base.qcow2')), mapOf(ON_BORDERS.operations));
  assert.deepEqual(await qemuMap(join(directory, 'tip.qcow2')), [
    { offset: 8192, length: 8192, kind: 'data' },
  ]);
  // The reader of the tests agrees with QEMU about a layer that QEMU wrote.
  await using chain = await openChain(nodeFiles, join(directory, 'tip.qcow2'));
  const expected = expectedContent([ON_BORDERS], 0, 65_536);
  expected.fill(7, 10 * 1024, 14 * 1024);
  assert.ok((await chain.read(0, 65_536)).equals(expected));
});

test('headers that qemu-img makes are understood, and its odd images refused', async (t) => {
  const directory = await temporaryDirectory(t);
  const make = async (options: string, ...more: string[]) => {
    const path = join(directory, 'image.qcow2');
    await nodeFiles.remove(path);
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, ...more, path, '5G']);
    return path;
  };
  for (const clusterBytes of [512, 4096, 65_536, 2 ** 21]) {
    const header = await readHeader(nodeFiles, await make(`cluster_size=${clusterBytes}`));
    assert.equal(header.clusterBytes, clusterBytes);
    assert.equal(header.sizeBytes, 5 * 2 ** 30);
  }
  const rich = await make(
    'compression_type=zstd,extended_l2=on,lazy_refcounts=on,refcount_bits=64,cluster_size=64k',
    ...['-u', '-b', 'dir/ä b.raw', '-F', 'raw'],
  );
  await runCommand('qemu-img', ['bitmap', '--add', '-f', 'qcow2', rich, 'marks']);
  const header = await readHeader(nodeFiles, rich);
  assert.equal(header.compression, 'zstd');
  assert.equal(header.granularityBytes, 2048);
  assert.equal(header.lazyRefcounts, true);
  assert.equal(header.refcountBits, 64);
  assert.equal(header.bitmaps, 'consistent');
  assert.deepEqual(header.backing, { name: 'dir/ä b.raw', format: 'raw' });

  const old = await make('compat=0.10');
  await assert.rejects(readHeader(nodeFiles, old), { code: 'QCOW2_VERSION_OLD' });
  assert.equal((await readHeader(nodeFiles, old, { allowVersion2: true })).version, 2);
  const split = await make(`data_file=${join(directory, 'data.raw')}`);
  await assert.rejects(readHeader(nodeFiles, split), { code: 'QCOW2_DATA_FILE' });
  const anywhere = await make('compat=1.1', '-u', '-b', 'json:{"driver":"null-co"}', '-F', 'raw');
  await assert.rejects(readHeader(nodeFiles, anywhere), { code: 'QCOW2_BACKING_REFUSED' });
});
