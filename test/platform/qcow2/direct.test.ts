import assert from 'node:assert/strict';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { alignedBuffer } from '../../../src/lib/aligned-buffer.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { LayerWriter } from '../../../src/qcow2/index.ts';
import { contentOf } from '../../support/layer-operations.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** Layers are written and proven past the page cache, where the file system of the tests has that: docs/adr/0005. */

const SIZE = 6 * 1024 * 1024 + 512;
/** Of /proc/PID/fdinfo: octal, as in fcntl.h of Linux. */
const O_DIRECT = 0o40000;

test('a layer goes past the page cache in whole, and reads as it was written', async (t) => {
  const path = join(await temporaryDirectory(t), 'layer');
  const ways: string[] = [];
  await writeLayer(watching(ways), path);
  assert.deepEqual([...new Set(ways)], ['direct']);
  assert.equal(ways.length, 6);
  await using reader = await new QemuImages({ clock: systemClock }).open([{ path, format: 'qcow2' }]);
  const bytes = Buffer.alloc(SIZE);
  await reader.readInto(bytes, 0);
  assert.ok(bytes.equals(contentOf(1, 0, SIZE)));
});

test('what the system refuses to write past the cache is written through it, and asked for once', async (t) => {
  const handle = await nodeFiles.open(join(await temporaryDirectory(t), 'file'), 'create');
  const aligned = alignedBuffer(8192).fill(1);
  assert.equal(await handle.writeDirect(aligned, 0), 'direct');
  // Whole pages, but not from a page border on: EINVAL.
  const unaligned = alignedBuffer(12_288).subarray(1, 8193).fill(2);
  assert.equal(await handle.writeDirect(unaligned, 8192), 'cached');
  assert.equal(await handle.writeDirect(aligned, 16_384), 'cached');
  await handle.sync();
  const bytes = Buffer.alloc(24_576);
  assert.equal(await handle.read(bytes, 0), 24_576);
  assert.deepEqual(bytes, Buffer.concat([aligned, unaligned, aligned]));
  await handle.close();
});

test('what is read for a proof comes from the device: every file of the chain is open past the cache', async (t) => {
  const directory = await temporaryDirectory(t);
  const chain = ['base', 'top'].map((name) => ({ path: join(directory, name), format: 'qcow2' as const }));
  for (const { path } of chain) await writeLayer(nodeFiles, path);
  const images = new QemuImages({ clock: systemClock });
  for (const fromDevice of [false, true]) {
    await using reader = await images.open(chain, { fromDevice });
    const bytes = Buffer.alloc(SIZE);
    await reader.readInto(bytes, 0);
    assert.ok(bytes.equals(contentOf(1, 0, SIZE)));
    for (const { path } of chain) {
      const flags = await openFlagsOf(path);
      assert.equal(flags.length, 1, path);
      assert.equal((flags[0]! & O_DIRECT) !== 0, fromDevice, path);
    }
  }
});

test('where a file system has no such way, a proof is read through the cache; other failures stay failures', async () => {
  const images = new QemuImages({ clock: systemClock });
  const attribute = { path: '/sys/kernel/uevent_seqnum', format: 'raw' as const };
  await using reader = await images.open([attribute], { fromDevice: true });
  assert.equal(reader.sizeBytes, 4096);
  await assert.rejects(images.open([{ ...attribute, path: '/sys/kernel/nothing' }], { fromDevice: true }), {
    code: 'IMAGE_UNREADABLE',
  });
});

test('S0.14 a commit goes past the page cache: what it leaves there is next to nothing', async (t) => {
  const directory = await temporaryDirectory(t);
  const [base, top] = ['base', 'top'].map((name) => ({
    path: join(directory, name),
    format: 'qcow2' as const,
  }));
  for (const { path } of [base!, top!]) await writeLayer(nodeFiles, path);
  await new QemuImages({ clock: systemClock }).commit([base!, top!]);
  const { stdout } = await runCommand('fincore', ['--bytes', '--noheadings', '--output', 'RES', base!.path]);
  assert.ok(Number(stdout) < SIZE / 8, `${stdout.trim()} of ${SIZE} bytes lie in the cache`);
});

async function writeLayer(files: FileSystem, path: string): Promise<void> {
  await using writer = await LayerWriter.create(files, path, { sizeBytes: SIZE, backing: null });
  for (let offset = 0; offset < SIZE; offset += 256 * 1024) {
    const length = Math.min(256 * 1024, SIZE - offset);
    await writer.write(offset, contentOf(1, offset, length));
  }
  await writer.finish();
}

/** The file system of this machine, with the way of each direct write noted. */
function watching(ways: string[]): FileSystem {
  return {
    ...nodeFiles,
    async open(path, how) {
      const handle = await nodeFiles.open(path, how);
      const writeDirect = handle.writeDirect.bind(handle);
      handle.writeDirect = async (data, position) => {
        const way = await writeDirect(data, position);
        ways.push(way);
        return way;
      };
      return handle;
    },
  };
}

/** With which flags other processes have `path` open. */
async function openFlagsOf(path: string): Promise<number[]> {
  const flags: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name))) {
    // A process may go, or be none of ours.
    const numbers = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const number of numbers) {
      if ((await readlink(`/proc/${pid}/fd/${number}`).catch(() => '')) !== path) continue;
      const info = await readFile(`/proc/${pid}/fdinfo/${number}`, 'utf8');
      flags.push(Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)![1]!, 8));
    }
  }
  return flags;
}
