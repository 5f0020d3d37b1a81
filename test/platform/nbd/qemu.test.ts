import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import {
  ALLOCATION_DEPTH,
  BASE_ALLOCATION,
  contentExtents,
  depthExtents,
  dirtyBitmapContext,
  dirtyExtents,
} from '../../../src/nbd/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { clientOf, qemuNbd, storageDaemon } from './servers.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const CONTEXTS = [BASE_ALLOCATION, ALLOCATION_DEPTH];

/** base: 0x11 at 0–1 MiB; top: 0x22 at 512–640 KiB, zeroes at 128–256 KiB, 0x33 at 3 MiB + 64 KiB; 4 MiB in all. */
async function chain(t: TestContext): Promise<{ base: string; top: string }> {
  const directory = await temporaryDirectory(t);
  const base = join(directory, 'base.qcow2');
  const top = join(directory, 'top.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', base, '4M']);
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x11 0 1M', base]);
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, top]);
  const writes = ['write -q -P 0x22 512k 128k', 'write -q -z 128k 128k', 'write -q -P 0x33 3136k 64k'];
  await runCommand('qemu-io', ['-f', 'qcow2', ...writes.flatMap((write) => ['-c', write]), top]);
  return { base, top };
}

const OWN = {
  data: [
    { offset: 512 * KiB, length: 128 * KiB },
    { offset: 3136 * KiB, length: 64 * KiB },
  ],
  zero: [{ offset: 128 * KiB, length: 128 * KiB }],
};

test('qemu-nbd -A: the own extents of a layer are what was written to it, zeroes apart', async (t) => {
  const { top } = await chain(t);
  const server = await qemuNbd(t, '-r', '-A', '-f', 'qcow2', top);
  const client = await clientOf(t, server, { contexts: CONTEXTS });
  assert.deepEqual([...client.info.contexts].sort(), [...CONTEXTS].sort());
  assert.equal(client.info.readOnly, true);
  assert.deepEqual(await depthExtents(client, { maximumDepth: 1 }), OWN);
  assert.deepEqual(await depthExtents(client, { maximumDepth: 2 }), {
    data: [
      { offset: 0, length: 128 * KiB },
      { offset: 256 * KiB, length: 768 * KiB },
      { offset: 3136 * KiB, length: 64 * KiB },
    ],
    zero: OWN.zero,
  });
  assert.deepEqual((await contentExtents(client)).zero, [
    { offset: 128 * KiB, length: 128 * KiB },
    { offset: MiB, length: 2112 * KiB },
    { offset: 3200 * KiB, length: 896 * KiB },
  ]);
});

test('qemu-nbd: what is read through a chain equals what qemu-img converts', async (t) => {
  const { top } = await chain(t);
  const raw = `${top}.raw`;
  await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', top, raw]);
  const client = await clientOf(t, await qemuNbd(t, '-r', '-f', 'qcow2', top), { connections: 4 });
  assert.equal(client.connectionCount, 4);
  const content = await readFile(raw);
  assert.ok((await client.read(0, 4 * MiB)).equals(content));
  const pieces = await Promise.all(Array.from({ length: 1024 }, (_, i) => client.read(i * 4 * KiB, 4 * KiB)));
  assert.ok(Buffer.concat(pieces).equals(content));
});

test('qemu-nbd without -A: a layer cannot be told from its chain, and nothing is guessed', async (t) => {
  const { top } = await chain(t);
  const client = await clientOf(t, await qemuNbd(t, '-r', '-f', 'qcow2', top), { contexts: CONTEXTS });
  assert.deepEqual(client.info.contexts, [BASE_ALLOCATION]);
  await assert.rejects(depthExtents(client, { maximumDepth: 1 }), (error: unknown) =>
    isFailure(error, 'NBD_CONTEXT_MISSING'),
  );
});

test('qemu-storage-daemon: allocation depth and a dirty bitmap of one export', async (t) => {
  const { base, top } = await chain(t);
  await runCommand('qemu-img', ['bitmap', '-f', 'qcow2', '--add', '--enable', '-g', '64k', top, 'b0']);
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0x44 1000k 100k', top]);
  const node = (name: string, file: string, backing: string) =>
    `driver=qcow2,node-name=${name},read-only=on,file.driver=file,file.filename=${file},file.read-only=on${backing}`;
  const server = await storageDaemon(
    t,
    '--blockdev',
    node('base', base, ''),
    '--blockdev',
    node('top', top, ',backing=base'),
    '--export',
    'type=nbd,id=e0,node-name=top,name=disk,allocation-depth=on,bitmaps.0=b0',
  );
  const bitmap = dirtyBitmapContext('b0');
  const client = await clientOf(t, server, { exportName: 'disk', contexts: [...CONTEXTS, bitmap] });
  assert.equal(client.info.contexts.length, 3);
  assert.deepEqual(await dirtyExtents(client, { bitmap: 'b0' }), [{ offset: 960 * KiB, length: 192 * KiB }]);
  assert.deepEqual((await depthExtents(client, { maximumDepth: 1 })).data, [
    OWN.data[0],
    { offset: 960 * KiB, length: 192 * KiB },
    OWN.data[1],
  ]);
  await assert.rejects(clientOf(t, server, { exportName: 'other' }), (error: unknown) =>
    isFailure(error, 'NBD_EXPORT_UNKNOWN'),
  );
});

test('qemu-nbd: an export of odd size is covered to its last byte', async (t) => {
  const path = join(await temporaryDirectory(t), 'odd.raw');
  await writeFile(path, Buffer.alloc(100_001, 5));
  const client = await clientOf(t, await qemuNbd(t, '-r', '-f', 'raw', path), { contexts: CONTEXTS });
  const { data, zero } = await contentExtents(client);
  const covered = [...data, ...zero].reduce((sum, extent) => sum + extent.length, 0);
  assert.equal(covered, client.info.sizeBytes);
  const content = await client.read(0, client.info.sizeBytes);
  assert.ok(content.subarray(0, 100_001).every((byte) => byte === 5));
});

test('qemu-nbd: requests above the maximum payload are split, both ways', async (t) => {
  const path = join(await temporaryDirectory(t), 'large.raw');
  await writeFile(path, '');
  await truncate(path, 80 * MiB);
  const client = await clientOf(t, await qemuNbd(t, '-f', 'raw', path));
  const data = Buffer.alloc(80 * MiB, 'warm');
  data.writeUInt32BE(0xdeadbeef, 70 * MiB);
  await client.write(0, data, { fua: true });
  assert.ok((await client.read(0, data.length)).equals(data));
  assert.ok((await readFile(path)).equals(data));
});

test('qemu-nbd killed: everything under way fails with NBD_DISCONNECTED', async (t) => {
  const path = join(await temporaryDirectory(t), 'd.raw');
  await writeFile(path, Buffer.alloc(64 * MiB, 1));
  const server = await qemuNbd(t, '-f', 'raw', path);
  const client = await clientOf(t, server, { connections: 2 });
  const reads = Promise.allSettled(Array.from({ length: 60 }, () => client.read(0, 4 * MiB)));
  await server.kill();
  for (const outcome of await reads) {
    if (outcome.status === 'rejected')
      assert.ok(isFailure(outcome.reason, 'NBD_DISCONNECTED'), String(outcome.reason));
  }
  assert.equal((await client.closed)?.code, 'NBD_DISCONNECTED');
  await assert.rejects(client.flush(), (error: unknown) => isFailure(error, 'NBD_DISCONNECTED'));
});

test('qemu-nbd: any sequence of writes, zeroes and reads gives what a plain array gives', async (t) => {
  const size = 2 * MiB;
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'p.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(size)]);
  const server = await qemuNbd(t, '-f', 'qcow2', '--discard=unmap', '--detect-zeroes=unmap', path);
  const client = await clientOf(t, server, { connections: 3, contexts: [BASE_ALLOCATION] });
  const model = Buffer.alloc(size);
  const range = fc
    .tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 200_000 }))
    .map(([offset, length]) => ({ offset, length: Math.min(length, size - offset) }));
  const operation = fc.oneof(
    fc.record({
      kind: fc.constant('write' as const),
      range,
      fill: fc.integer({ min: 0, max: 255 }),
      fua: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('zero' as const), range, mayTrim: fc.boolean() }),
    fc.record({ kind: fc.constant('read' as const), range }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
      for (const op of operations) {
        const { offset, length } = op.range;
        if (op.kind === 'write') {
          const data = Buffer.alloc(length, op.fill);
          await client.write(offset, data, { fua: op.fua });
          data.copy(model, offset);
        } else if (op.kind === 'zero') {
          await client.writeZeroes(offset, length, { mayTrim: op.mayTrim });
          model.fill(0, offset, offset + length);
        } else {
          assert.ok((await client.read(offset, length)).equals(model.subarray(offset, offset + length)));
        }
      }
      for (const { offset, length } of (await contentExtents(client)).zero) {
        assert.ok(model.subarray(offset, offset + length).every((byte) => byte === 0));
      }
    }),
    { numRuns: 40 },
  );
  await client.flush();
  await client.close();
  await server.kill();
  await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, `${path}.raw`]);
  assert.ok((await readFile(`${path}.raw`)).equals(model));
});
