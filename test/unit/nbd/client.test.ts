import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../../src/lib/clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { NbdClient } from '../../../src/nbd/index.ts';
import {
  bytes,
  chunk,
  connected,
  dataChunk,
  FLAGS_ALL,
  fakeServer,
  type SeenRequest,
  shake,
  simpleReply,
} from './fake-server.ts';

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isFailure(error, expected), `expected ${expected}, got ${String(error)}`);
    return true;
  };
}

/** A server that confirms everything and remembers it. */
function confirming(seen: SeenRequest[]) {
  return async (peer: { nextRequest(): Promise<SeenRequest>; socket: { write(data: Buffer): unknown } }) => {
    for (;;) {
      const r = await peer.nextRequest();
      seen.push(r);
      peer.socket.write(
        r.command === 0 ? dataChunk(r, r.offset, Buffer.alloc(r.length), true) : simpleReply(r),
      );
    }
  };
}

const shape = (seen: readonly SeenRequest[]) => seen.map((r) => [r.command, r.flags, r.offset, r.length]);

test('writes carry their bytes, split at the maximum payload', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen), { blocks: [1, 4096, 8192] });
  const data = Buffer.from(Array.from({ length: 20000 }, (_, i) => i % 253));
  await client.write(100, data);
  assert.deepEqual(shape(seen), [
    [1, 0, 100, 8192],
    [1, 0, 8292, 8192],
    [1, 0, 16484, 3616],
  ]);
  assert.deepEqual(Buffer.concat(seen.map((r) => r.payload)), data);
});

test('fua, zeroes, trim and flush are said in the words of the protocol', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen));
  await client.write(0, Buffer.alloc(512), { fua: true });
  await client.writeZeroes(512, 512);
  await client.writeZeroes(512, 512, { mayTrim: true, fua: true, fast: true });
  await client.trim(0, 1024);
  await client.flush();
  assert.deepEqual(shape(seen), [
    [1, 1, 0, 512],
    [6, 2, 512, 512],
    [6, 1 | 16, 512, 512],
    [4, 0, 0, 1024],
    [3, 0, 0, 0],
  ]);
});

test('without FUA a flush makes a write durable; without either the write is refused', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen), { flags: 0b101 });
  await client.write(0, Buffer.alloc(512), { fua: true });
  assert.deepEqual(shape(seen), [
    [1, 0, 0, 512],
    [3, 0, 0, 0],
  ]);
  const bare = await connected(t, confirming(seen), { flags: 1 });
  await assert.rejects(bare.write(0, Buffer.alloc(512), { fua: true }), code('NBD_UNSUPPORTED'));
  await assert.rejects(bare.flush(), code('NBD_UNSUPPORTED'));
  await assert.rejects(bare.trim(0, 512), code('NBD_UNSUPPORTED'));
  await assert.rejects(bare.writeZeroes(0, 512, { fast: true }), code('NBD_UNSUPPORTED'));
  assert.equal(seen.length, 2);
});

test('a server that cannot write zeroes gets them as data', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen), { flags: 1, sizeBytes: 4 << 20 });
  await client.writeZeroes(0, (2 << 20) + 512);
  assert.deepEqual(shape(seen), [
    [1, 0, 0, 1 << 20],
    [1, 0, 1 << 20, 1 << 20],
    [1, 0, 2 << 20, 512],
  ]);
  assert.ok(seen.every((r) => r.payload.every((byte) => byte === 0)));
});

test('requests outside the export, or not in whole blocks, never leave', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen), { blocks: [512, 4096, 1 << 20], sizeBytes: 8192 });
  for (const [offset, length] of [
    [-512, 512],
    [8192, 512],
    [0, 8704],
    [1, 512],
    [0, 511],
    [0.5, 512],
    [Number.NaN, 512],
    [2 ** 53, 512],
  ] as const) {
    await assert.rejects(client.read(offset, length), code('NBD_REQUEST_INVALID'));
    await assert.rejects(client.writeZeroes(offset, length), code('NBD_REQUEST_INVALID'));
  }
  assert.equal((await client.read(8192, 0)).length, 0);
  assert.equal(seen.length, 0);
});

test('a read-only export is not written', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen), { flags: FLAGS_ALL | 2 });
  await assert.rejects(client.write(0, Buffer.alloc(512)), code('NBD_READ_ONLY'));
  await assert.rejects(client.writeZeroes(0, 512), code('NBD_READ_ONLY'));
  await assert.rejects(client.trim(0, 512), code('NBD_READ_ONLY'));
  assert.equal(seen.length, 0);
});

test('more requests than the window wait and are all answered', async (t) => {
  const seen: SeenRequest[] = [];
  const client = await connected(t, confirming(seen));
  await Promise.all(Array.from({ length: 1000 }, (_, i) => client.read(i * 512, 512)));
  assert.equal(seen.length, 1000);
});

test('an aborted read ends at once; its late reply harms nobody', async (t) => {
  const { promise: go, resolve: release } = Promise.withResolvers<void>();
  const client = await connected(t, async (peer) => {
    const [a, b] = [await peer.nextRequest(), await peer.nextRequest()];
    await go;
    peer.socket.write(
      bytes(
        dataChunk(a, 0, Buffer.alloc(65536, 1), true),
        dataChunk(b, b.offset, Buffer.alloc(512, 2), true),
      ),
    );
  });
  const controller = new AbortController();
  const aborted = client.read(0, 65536, { signal: controller.signal });
  const other = client.read(65536, 512);
  controller.abort();
  await assert.rejects(aborted, code('CANCELLED'));
  await assert.rejects(client.read(0, 512, { signal: controller.signal }), code('CANCELLED'));
  release();
  assert.deepEqual(await other, Buffer.alloc(512, 2));
});

test('an aborted read that was not sent yet is never sent', async (t) => {
  const seen: SeenRequest[] = [];
  const { promise: go, resolve: release } = Promise.withResolvers<void>();
  const client = await connected(t, async (peer) => {
    await go;
    await confirming(seen)(peer);
  });
  const controller = new AbortController();
  const first = Array.from({ length: 64 }, () => client.read(0, 512));
  const waiting = client.read(512, 512, { signal: controller.signal });
  controller.abort();
  await assert.rejects(waiting, code('CANCELLED'));
  release();
  await Promise.all(first);
  assert.ok(seen.every((r) => r.offset === 0));
});

test('close waits for what is under way, says good-bye and refuses the rest', async (t) => {
  const { promise: goodbye, resolve } = Promise.withResolvers<SeenRequest>();
  const { promise: go, resolve: release } = Promise.withResolvers<void>();
  const client = await connected(t, async (peer) => {
    const r = await peer.nextRequest();
    await go;
    peer.socket.write(dataChunk(r, 0, Buffer.alloc(512, 9), true));
    resolve(await peer.nextRequest());
  });
  const read = client.read(0, 512);
  const closing = client.close();
  await assert.rejects(client.flush(), code('NBD_CLOSED'));
  release();
  assert.deepEqual(await read, Buffer.alloc(512, 9));
  await closing;
  await client.close();
  assert.equal((await goodbye).command, 2);
  assert.equal(await client.closed, undefined);
  await assert.rejects(client.flush(), code('NBD_CLOSED'));
});

/** A clock that a test turns by hand; timers fire in order of their time. */
function handClock(): Clock & { advance(ms: number): void } {
  let now = 0;
  let timers: { at: number; fn: () => void }[] = [];
  return {
    wallMs: () => now,
    monotonicMs: () => now,
    after(delayMs, fn) {
      const timer = { at: now + delayMs, fn };
      timers.push(timer);
      return () => {
        timers = timers.filter((one) => one !== timer);
      };
    },
    advance(ms) {
      now += ms;
      for (;;) {
        const due = timers.filter((one) => one.at <= now).sort((a, b) => a.at - b.at)[0];
        if (due === undefined) return;
        timers = timers.filter((one) => one !== due);
        due.fn();
      }
    },
  };
}

test('a server that is silent with requests under way is given up; an idle one is not', async (t) => {
  const clock = handClock();
  const client = await connected(
    t,
    async (peer) => {
      const r = await peer.nextRequest();
      peer.socket.write(dataChunk(r, 0, Buffer.alloc(512), true));
    },
    { client: { clock, timeoutMs: 1000 } },
  );
  clock.advance(10_000);
  await client.read(0, 512);
  clock.advance(10_000);
  const hanging = client.read(0, 512);
  clock.advance(999);
  assert.equal(await Promise.race([client.closed, Promise.resolve('alive')]), 'alive');
  clock.advance(1);
  await assert.rejects(hanging, code('NBD_TIMEOUT'));
  assert.equal((await client.closed)?.code, 'NBD_TIMEOUT');
});

test('several connections are used only where the server allows it', async (t) => {
  for (const [flags, expected] of [
    [FLAGS_ALL, 3],
    [FLAGS_ALL & ~0x100, 1],
    [0b11, 3],
  ] as const) {
    let count = 0;
    const address = await fakeServer(t, async (peer) => {
      count++;
      await shake(peer, { flags });
      await confirming([])(peer);
    });
    await using client = await NbdClient.connect({
      address,
      exportName: '',
      connections: 3,
      clock: systemClock,
    });
    await Promise.all(Array.from({ length: 100 }, (_, i) => client.read(i * 512, 512)));
    assert.equal(client.connectionCount, expected);
    assert.equal(count, expected);
  }
});

test('connections that are promised different exports are refused', async (t) => {
  let count = 0;
  const address = await fakeServer(t, (peer) => shake(peer, { sizeBytes: 4096 * ++count }));
  await assert.rejects(
    NbdClient.connect({ address, exportName: '', connections: 2, clock: systemClock }),
    code('NBD_EXPORT_CHANGED'),
  );
});

test('the loss of one connection of several ends the client', async (t) => {
  let count = 0;
  const address = await fakeServer(t, async (peer) => {
    const mine = ++count;
    await shake(peer);
    if (mine === 2) {
      await peer.nextRequest();
      peer.socket.destroy();
    } else {
      const r = await peer.nextRequest();
      peer.socket.write(chunk(r, 1, bytes([64, r.offset], Buffer.alloc(512)), true));
    }
  });
  const client = await NbdClient.connect({ address, exportName: '', connections: 2, clock: systemClock });
  const outcomes = await Promise.allSettled([client.read(0, 512), client.read(512, 512)]);
  assert.deepEqual(outcomes.map((one) => one.status).sort(), ['fulfilled', 'rejected']);
  assert.equal((await client.closed)?.code, 'NBD_DISCONNECTED');
  await assert.rejects(client.read(0, 512), code('NBD_DISCONNECTED'));
});
