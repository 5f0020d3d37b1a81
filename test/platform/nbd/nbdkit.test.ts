import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { BASE_ALLOCATION, contentExtents } from '../../../src/nbd/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { clientOf, nbdkit } from './servers.ts';

const MiB = 1024 * 1024;

/** What the pattern plugin holds: every eight bytes their own offset, big-endian. */
function pattern(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 8) bytes.writeBigUInt64BE(BigInt(offset + at), at);
  return bytes;
}

test('nbdkit error: a failed read fails alone, with its errno; the others are right', async (t) => {
  const server = await nbdkit(
    t,
    '--filter=error',
    'pattern',
    '8M',
    'error-pread=EIO',
    'error-pread-rate=30%',
  );
  const client = await clientOf(t, server);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 200 }, (_, i) => client.read(i * 4096, 4096)),
  );
  let failed = 0;
  for (const [i, outcome] of outcomes.entries()) {
    if (outcome.status === 'fulfilled') assert.ok(outcome.value.equals(pattern(i * 4096, 4096)));
    else {
      assert.ok(isFailure(outcome.reason, 'NBD_REQUEST_FAILED'));
      assert.equal(outcome.reason.context.errno, 'EIO');
      failed++;
    }
  }
  assert.ok(failed > 10 && failed < 120, `${failed} of 200 failed`);
});

test('nbdkit error: a full disk is ENOSPC, a failed block status fails the walk', async (t) => {
  const server = await nbdkit(
    t,
    '--filter=error',
    'memory',
    '1M',
    'error-pwrite=ENOSPC',
    'error-pwrite-rate=100%',
    'error-extents=EIO',
    'error-extents-rate=100%',
  );
  const client = await clientOf(t, server, { contexts: [BASE_ALLOCATION] });
  await assert.rejects(
    client.write(0, Buffer.alloc(4096)),
    (error: unknown) => isFailure(error, 'NBD_REQUEST_FAILED') && error.context.errno === 'ENOSPC',
  );
  await assert.rejects(contentExtents(client), (error: unknown) => isFailure(error, 'NBD_REQUEST_FAILED'));
  assert.equal((await client.read(0, 4096)).length, 4096);
});

test('nbdkit delay: a server that is too slow is given up with NBD_TIMEOUT', async (t) => {
  const server = await nbdkit(t, '--filter=delay', 'memory', '1M', 'rdelay=2');
  const client = await clientOf(t, server, { timeoutMs: 200 });
  await assert.rejects(client.read(0, 4096), (error: unknown) => isFailure(error, 'NBD_TIMEOUT'));
  assert.equal((await client.closed)?.code, 'NBD_TIMEOUT');
});

test('nbdkit delay: requests wait side by side, not one after the other', async (t) => {
  const server = await nbdkit(t, '--filter=delay', 'pattern', '1M', 'rdelay=300ms');
  const client = await clientOf(t, server);
  const begin = systemClock.monotonicMs();
  await Promise.all(Array.from({ length: 16 }, (_, i) => client.read(i * 4096, 4096)));
  const tookMs = systemClock.monotonicMs() - begin;
  assert.ok(tookMs < 16 * 300 * 0.5, `16 delayed reads took ${tookMs} ms`);
});

test('nbdkit truncate: what lies beyond the file reads as zeroes', async (t) => {
  const path = join(await temporaryDirectory(t), 'short');
  await writeFile(path, Buffer.alloc(1000, 7));
  const server = await nbdkit(t, '--filter=truncate', 'file', path, 'truncate=8192');
  const client = await clientOf(t, server, { contexts: [BASE_ALLOCATION] });
  assert.equal(client.info.sizeBytes, 8192);
  const content = await client.read(0, 8192);
  assert.ok(content.equals(Buffer.concat([Buffer.alloc(1000, 7), Buffer.alloc(7192)])));
  const { data, zero } = await contentExtents(client);
  assert.equal(
    [...data, ...zero].reduce((sum, one) => sum + one.length, 0),
    8192,
  );
});

test('nbdkit with simple replies only: reads and writes work, contexts are missing', async (t) => {
  const client = await clientOf(t, await nbdkit(t, '--no-sr', 'memory', '4M'), {
    contexts: [BASE_ALLOCATION],
  });
  const data = pattern(0, 2 * MiB);
  await client.write(MiB, data);
  assert.ok((await client.read(MiB, data.length)).equals(data));
  assert.deepEqual(client.info.contexts, []);
});

test('nbdkit blocksize-policy: block sizes are learnt and kept', async (t) => {
  const server = await nbdkit(
    t,
    '--filter=blocksize-policy',
    'pattern',
    '16M',
    'blocksize-minimum=4096',
    'blocksize-preferred=65536',
    'blocksize-maximum=1M',
    'blocksize-error-policy=error',
  );
  const client = await clientOf(t, server);
  assert.equal(client.info.minimumBlockBytes, 4096);
  assert.equal(client.info.maximumPayloadBytes, MiB);
  assert.ok((await client.read(4096, 5 * MiB)).equals(pattern(4096, 5 * MiB)));
  await assert.rejects(client.read(512, 4096), (error: unknown) => isFailure(error, 'NBD_REQUEST_INVALID'));
});

test('nbdkit with a disk of 2⁶² bytes: sizes beyond exact numbers are refused', async (t) => {
  await assert.rejects(clientOf(t, await nbdkit(t, 'pattern', String(2n ** 62n))), (error: unknown) =>
    isFailure(error, 'NBD_UNSUPPORTED'),
  );
});

test('nbdkit with a sparse disk of 1 PiB is walked at once', async (t) => {
  const client = await clientOf(t, await nbdkit(t, 'memory', '1P'), { contexts: [BASE_ALLOCATION] });
  await client.write(2 ** 49, Buffer.alloc(65536, 1));
  const extents = await client.blockStatus(BASE_ALLOCATION, 2 ** 49 - 2 ** 33, 2 ** 34);
  assert.equal(
    extents.reduce((sum, one) => sum + one.length, 0),
    2 ** 34,
  );
  assert.deepEqual(await client.read(2 ** 49, 65536), Buffer.alloc(65536, 1));
});
