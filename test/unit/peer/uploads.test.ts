import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { Failure, isFailure } from '../../../src/lib/errors.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import type { UploadHandler } from '../../../src/peer/index.ts';
import { FaultProxy } from '../../support/fault-proxy.ts';
import { clientOf, code, pieces, twoSites } from './sites.ts';

const MIB = 1024 * 1024;

test('an upload arrives byte for byte, whatever its pieces', async (t) => {
  const { client } = await twoSites(t, {
    upload: async (peer, session, source) => {
      const hash = createHash('sha256');
      for await (const chunk of source) hash.update(chunk);
      return { session, from: peer.name, digest: hash.digest('hex') };
    },
  });
  const bytes = systemRandom.bytes(3 * MIB);
  const cuts = [
    [0, 1],
    [1, 1],
    [1, 70_000],
    [70_000, 2 * MIB],
    [2 * MIB, bytes.length],
  ] as const;
  const single = cuts.map(([from, to]) => bytes.subarray(from, to));
  const grouped = [single.slice(0, 3), [], single.slice(3)];
  for (const chunks of [single, grouped]) {
    assert.deepEqual(await client.upload('s-1', asyncOf<Uint8Array | readonly Uint8Array[]>(chunks)), {
      session: 's-1',
      from: 'Amsterdam',
      digest: createHash('sha256').update(bytes).digest('hex'),
    });
  }
});

test('a source may use the memory of a chunk again when the next one is asked for', async (t) => {
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      const hash = createHash('sha256');
      let bytes = 0;
      for await (const chunk of source) {
        hash.update(chunk);
        // A handler that is slow now and then, so that the sender's buffers fill.
        if (bytes % (8 * MIB) < chunk.length) await sleep(systemClock, 5);
        bytes += chunk.length;
      }
      return hash.digest('hex');
    },
  });
  const sent = createHash('sha256');
  async function* source(): AsyncGenerator<readonly Uint8Array[]> {
    const memory = Buffer.alloc(MIB + 28);
    for (let i = 1; i <= 60; i++) {
      const chunk = memory.subarray(0, i % 3 === 0 ? 1000 : memory.length).fill(i);
      sent.update(chunk);
      yield [chunk.subarray(0, 28), chunk.subarray(28)];
      memory.fill(0xee);
    }
  }
  assert.equal(await client.upload('s', source()), sent.digest('hex'));
});

test('an empty upload is an upload', async (t) => {
  const { client } = await twoSites(t);
  assert.deepEqual(await client.upload('s', asyncOf<Buffer>([])), { session: 's', bytes: 0 });
});

test('200 MiB into a slow handler keep the memory flat', async (t) => {
  const chunk = Buffer.alloc(MIB);
  let produced = 0;
  let consumed = 0;
  let aheadMax = 0;
  let memoryMax = 0;
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      for await (const piece of source) {
        consumed += piece.length;
        aheadMax = Math.max(aheadMax, produced - consumed);
        memoryMax = Math.max(memoryMax, process.memoryUsage().arrayBuffers);
        // A handler that gives way at each MiB, as one that writes to a disk does.
        if (consumed % (16 * MIB) < piece.length) await sleep(systemClock, 5);
      }
      return consumed;
    },
  });
  const before = process.memoryUsage().arrayBuffers;
  async function* source(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 200; i++) {
      produced += MIB;
      yield chunk;
    }
  }
  assert.equal(await client.upload('s', source()), 200 * MIB);
  assert.ok(aheadMax < 24 * MIB, `${aheadMax} bytes were under way at once`);
  assert.ok(memoryMax - before < 96 * MIB, `buffers grew by ${memoryMax - before} bytes`);
});

test('a handler that does not read stops the source', async (t) => {
  let produced = 0;
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      await released;
      let bytes = 0;
      for await (const chunk of source) bytes += chunk.length;
      return bytes;
    },
  });
  async function* source(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 100; i++) {
      produced += MIB;
      yield Buffer.alloc(MIB);
    }
  }
  const upload = client.upload('s', source());
  let last = -1;
  while (last !== produced || produced === 0) {
    last = produced;
    await sleep(systemClock, 150);
  }
  assert.ok(produced < 32 * MIB, `${produced} bytes were read from the source`);
  release();
  assert.equal(await upload, 100 * MIB);
});

test('a refusal before the end reaches the sender at once and ends the source', async (t) => {
  const refusals: [string, UploadHandler][] = [
    ['at the start', async () => refuse()],
    [
      'in the middle',
      async (_peer, _session, source) => {
        for await (const _ of source) refuse();
        return null;
      },
    ],
  ];
  for (const [when, upload] of refusals) {
    const { client } = await twoSites(t, { upload });
    let ended = false;
    async function* endless(): AsyncGenerator<Buffer> {
      try {
        for (;;) yield Buffer.alloc(MIB);
      } finally {
        ended = true;
      }
    }
    await assert.rejects(client.upload('s', endless()), (error) => {
      assert.ok(isFailure(error, 'REPLICA_EPOCH_OLD'), `${when}: ${String(error)}`);
      assert.equal(error.context.remote, 'Bergen');
      return true;
    });
    assert.ok(ended, when);
  }
});

test('an answer before the end is an answer, also when the source is stuck', async (t) => {
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      for await (const chunk of source) return { had: chunk.length > 0 };
      return null;
    },
  });
  async function* stuck(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(10);
    await new Promise(() => undefined);
  }
  assert.deepEqual(await client.upload('s', stuck()), { had: true });
});

test('a connection cut in the middle is told to both ends, and a new one works', async (t) => {
  let heard: unknown;
  let gone: () => void = () => undefined;
  const over = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const { a, b, peer, client } = await twoSites(t, {
    upload: async (_peer, session, source) => {
      let bytes = 0;
      try {
        for await (const chunk of source) bytes += chunk.length;
      } catch (error) {
        heard = error;
        gone();
        throw error;
      }
      return { session, bytes };
    },
  });
  const proxy = await FaultProxy.start(t, b.address);
  const through = clientOf(t, a, peer, proxy.address);
  proxy.up.cutAfterBytes = 5 * MIB;
  await assert.rejects(through.upload('s', pieces(50, MIB)), (error) => {
    assert.ok(isFailure(error, 'PEER_CONNECTION_LOST'), String(error));
    assert.equal(error.retry, 'reconnect');
    return true;
  });
  await over;
  assert.ok(isFailure(heard, 'PEER_CONNECTION_LOST'), String(heard));
  assert.deepEqual(await client.upload('s', pieces(2, MIB)), { session: 's', bytes: 2 * MIB });
});

test('a body that ends without its last chunk is not complete', async (t) => {
  const outcomes: string[] = [];
  const arrived = Promise.withResolvers<void>();
  const settled = Promise.withResolvers<void>();
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      try {
        for await (const _ of source) {
          outcomes.push('chunk');
          arrived.resolve();
        }
        outcomes.push('complete');
      } catch (error) {
        outcomes.push(isFailure(error) ? error.code : 'other');
      }
      settled.resolve();
      return null;
    },
  });
  async function* failing(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(1000);
    await arrived.promise;
    throw new Failure('NBD_READ_FAILED', { kind: 'corrupt', retry: 'never', remedy: 'x' }, 'bad sector');
  }
  await assert.rejects(client.upload('s', failing()), code('NBD_READ_FAILED'));
  await settled.promise;
  assert.deepEqual(outcomes, ['chunk', 'PEER_CONNECTION_LOST']);
});

test('a peer that stops taking bytes is given up in time', async (t) => {
  const { a, b, peer } = await twoSites(t);
  const proxy = await FaultProxy.start(t, b.address);
  proxy.up.stallAfterBytes = 2 * MIB;
  proxy.down.stallAfterBytes = 16 * 1024;
  const through = clientOf(t, a, peer, proxy.address);
  const upload = (async () => {
    async function* source(): AsyncGenerator<Buffer> {
      for (let i = 0; ; i++) {
        if (i === 3) proxy.stall();
        yield Buffer.alloc(MIB);
      }
    }
    return await through.upload('s', source(), { stallTimeoutMs: 300 });
  })();
  await assert.rejects(upload, (error) => {
    assert.ok(isFailure(error, 'PEER_STALLED'), String(error));
    assert.equal(error.retry, 'reconnect');
    return true;
  });
});

test('a port that accepts and never speaks is given up in time', async (t) => {
  const { a, b, peer } = await twoSites(t);
  const proxy = await FaultProxy.start(t, b.address);
  proxy.stall();
  const through = clientOf(t, a, peer, proxy.address);
  await assert.rejects(through.upload('s', pieces(1, 10), { stallTimeoutMs: 150 }), code('PEER_STALLED'));
});

test('a peer that is busy gives signs and is waited for', async (t) => {
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      for await (const _ of source) await sleep(systemClock, 1_100);
      await sleep(systemClock, 2_200);
      return 'verified';
    },
  });
  assert.equal(await client.upload('s', pieces(1, 10), { stallTimeoutMs: 1_000 }), 'verified');
});

test('a sender that falls silent is given up by the receiver', async (t) => {
  const { client } = await twoSites(t, { stallTimeoutMs: 150 });
  async function* silent(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(10);
    await new Promise(() => undefined);
  }
  await assert.rejects(client.upload('s', silent()), code('PEER_STALLED'));
});

test('an upload that its caller gives up is cancelled, and the handler hears of it', async (t) => {
  let heard: (reason: unknown) => void = () => undefined;
  const gone = new Promise((resolve) => {
    heard = resolve;
  });
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      try {
        for await (const _ of source) controller.abort();
      } catch (error) {
        heard(error);
        throw error;
      }
      return null;
    },
  });
  const controller = new AbortController();
  async function* endless(): AsyncGenerator<Buffer> {
    for (;;) yield Buffer.alloc(64 * 1024);
  }
  await assert.rejects(client.upload('s', endless(), { signal: controller.signal }), code('CANCELLED'));
  assert.ok(isFailure(await gone, 'PEER_CONNECTION_LOST'));
});

test('a client that closes ends its uploads', async (t) => {
  const { client } = await twoSites(t, {
    upload: async (_peer, _session, source) => {
      for await (const _ of source) client.close();
      return null;
    },
  });
  async function* endless(): AsyncGenerator<Buffer> {
    for (;;) yield Buffer.alloc(64 * 1024);
  }
  await assert.rejects(client.upload('s', endless()), code('PEER_CLOSED'));
});

function refuse(): never {
  throw new Failure('REPLICA_EPOCH_OLD', { kind: 'refused', retry: 'never', remedy: 'x' }, 'an older epoch');
}

async function* asyncOf<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
