import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Failure } from '../../../src/lib/errors.ts';
import { bytes, chunk, connected, dataChunk, holeChunk, statusChunk } from './fake-server.ts';

const CONTEXTS = { 'base:allocation': 1 };

test('whatever bytes come instead of a reply, a request ends with its data or with a failure', async (t) => {
  const change = fc.record({ at: fc.nat(200), value: fc.nat(255) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { maxLength: 4 }),
      fc.nat(200),
      fc.boolean(),
      async (changes, cut, cutting) => {
        const client = await connected(
          t,
          async (peer) => {
            const [read, status] = [await peer.nextRequest(), await peer.nextRequest()];
            const answer = bytes(
              dataChunk(read, 0, Buffer.alloc(64, 7)),
              holeChunk(read, 64, 64),
              chunk(read, 0, '', true),
              statusChunk(
                status,
                1,
                [
                  [64, 0],
                  [64, 3],
                ],
                true,
              ),
            );
            for (const { at, value } of changes) if (at < answer.length) answer[at] = value;
            peer.socket.end(cutting ? answer.subarray(0, cut) : answer);
          },
          { contexts: CONTEXTS },
        );
        const target = Buffer.alloc(256, 0xee);
        const [read, status] = await Promise.allSettled([
          client.readInto(target.subarray(64, 192), 0),
          client.blockStatus('base:allocation', 0, 128),
        ]);
        assert.ok(
          target.subarray(0, 64).every((byte) => byte === 0xee),
          'bytes before the target changed',
        );
        assert.ok(
          target.subarray(192).every((byte) => byte === 0xee),
          'bytes behind the target changed',
        );
        for (const outcome of [read, status]) {
          if (outcome.status === 'rejected')
            assert.ok(outcome.reason instanceof Failure, String(outcome.reason));
        }
        if (status.status === 'fulfilled') {
          assert.equal(
            status.value.reduce((sum, extent) => sum + extent.length, 0),
            128,
          );
        }
        await client.close();
      },
    ),
    { numRuns: 150 },
  );
});
