import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import type { NbdClient } from '../../../src/nbd/index.ts';
import {
  bytes,
  chunk,
  connected,
  dataChunk,
  errorChunk,
  type FakePeer,
  holeChunk,
  type SeenRequest,
  simpleReply,
  statusChunk,
} from './fake-server.ts';

const DATA = Buffer.from(Array.from({ length: 4096 }, (_, i) => i % 251));

/** A client whose first request gets the given bytes as its answer. */
function answering(t: TestContext, answer: (request: SeenRequest) => Buffer, o = {}): Promise<NbdClient> {
  return connected(t, async (peer) => void peer.socket.write(answer(await peer.nextRequest())), o);
}

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isFailure(error, expected), `expected ${expected}, got ${String(error)}`);
    return true;
  };
}

/** The wrong answer ends the connection, and with it every request, past and future. */
async function breaks(t: TestContext, answer: (request: SeenRequest) => Buffer): Promise<void> {
  const client = await answering(t, answer);
  const first = client.read(512, 4096);
  const second = client.read(0, 512);
  await assert.rejects(first, code('NBD_PROTOCOL'));
  await assert.rejects(second, code('NBD_PROTOCOL'));
  assert.equal((await client.closed)?.code, 'NBD_PROTOCOL');
  await assert.rejects(client.read(0, 512), code('NBD_PROTOCOL'));
}

test('chunks in any order, with holes, make up a read', async (t) => {
  const client = await answering(t, (r) =>
    bytes(
      dataChunk(r, 512 + 3072, DATA.subarray(3072)),
      holeChunk(r, 512 + 1024, 2048),
      dataChunk(r, 512, DATA.subarray(0, 1024)),
      chunk(r, 0, '', true),
    ),
  );
  const expected = Buffer.from(DATA).fill(0, 1024, 3072);
  assert.deepEqual(await client.read(512, 4096), expected);
});

test('a reply is understood wherever the stream is cut', async (t) => {
  const client = await connected(t, async (peer) => {
    peer.socket.setNoDelay(true);
    for (;;) {
      const r = await peer.nextRequest();
      const answer = bytes(
        dataChunk(r, r.offset, DATA.subarray(0, 40)),
        holeChunk(r, r.offset + 40, 24, true),
      );
      for (const byte of answer) {
        await new Promise<void>((resolve) => peer.socket.write(Buffer.of(byte), () => resolve()));
      }
    }
  });
  const expected = bytes(DATA.subarray(0, 40), Buffer.alloc(24));
  assert.deepEqual(await Promise.all([client.read(0, 64), client.read(64, 64)]), [expected, expected]);
});

test('a large read that spans many socket reads arrives in its place', async (t) => {
  const size = 3 * 1024 * 1024;
  const content = Buffer.alloc(size, DATA);
  const client = await connected(
    t,
    async (peer) => {
      for (;;) {
        const r = await peer.nextRequest();
        peer.socket.write(dataChunk(r, r.offset, content.subarray(r.offset, r.offset + r.length), true));
      }
    },
    { sizeBytes: size, blocks: [1, 4096, 1024 * 1024] },
  );
  assert.equal(client.info.maximumPayloadBytes, 1024 * 1024);
  assert.ok((await client.read(0, size)).equals(content));
  const target = Buffer.alloc(size - 12345);
  await client.readInto(target, 12345);
  assert.ok(target.equals(content.subarray(12345)));
});

test('replies find their requests by cookie, in any order', async (t) => {
  const client = await connected(t, async (peer) => {
    const requests = [await peer.nextRequest(), await peer.nextRequest(), await peer.nextRequest()];
    for (const r of requests.reverse())
      peer.socket.write(dataChunk(r, r.offset, Buffer.alloc(512, r.offset / 512), true));
  });
  const got = await Promise.all([client.read(0, 512), client.read(512, 512), client.read(1024, 512)]);
  assert.deepEqual(
    got.map((one) => one[0]),
    [0, 1, 2],
  );
});

test('bad reply magic ends the connection', (t) => breaks(t, () => Buffer.alloc(64, 0x41)));

test('an unknown cookie ends the connection', (t) =>
  breaks(t, (r) => chunk({ cookie: r.cookie + 77n }, 0, '', true)));

test('a second reply to a request that was answered already ends the connection', async (t) => {
  const client = await answering(t, (r) => bytes(errorChunk(r, 5, '', true), chunk(r, 0, '', true)));
  await assert.rejects(client.read(512, 4096), code('NBD_REQUEST_FAILED'));
  assert.equal((await client.closed)?.code, 'NBD_PROTOCOL');
});

test('content before the request ends the connection', (t) => breaks(t, (r) => dataChunk(r, 0, DATA, true)));

test('content beyond the request ends the connection', (t) =>
  breaks(t, (r) => dataChunk(r, 513, DATA, true)));

test('an offset that is huge ends the connection', (t) =>
  breaks(t, (r) => chunk(r, 1, bytes([64, 2n ** 64n - 512n], DATA), true)));

test('a chunk longer than the request ends the connection', (t) =>
  breaks(t, (r) => bytes([32, 0x668e33ef], [16, 1], [16, 1], [64, r.cookie], [32, 0xffffffff])));

test('overlapping chunks end the connection', (t) =>
  breaks(t, (r) =>
    bytes(dataChunk(r, 512, DATA.subarray(0, 2048)), dataChunk(r, 512 + 2047, DATA.subarray(0, 1024), true)),
  ));

test('a hole over data ends the connection', (t) =>
  breaks(t, (r) => bytes(dataChunk(r, 512, DATA.subarray(0, 2048)), holeChunk(r, 512, 4096, true))));

test('an empty hole ends the connection', (t) => breaks(t, (r) => holeChunk(r, 512, 0, true)));

test('an empty data chunk ends the connection', (t) => breaks(t, (r) => chunk(r, 1, bytes([64, 512]), true)));

test('a hole chunk of the wrong length ends the connection', (t) =>
  breaks(t, (r) => chunk(r, 2, bytes([64, 512], [32, 512], [8, 0]), true)));

test('a reply that leaves bytes out ends the connection', (t) =>
  breaks(t, (r) => bytes(dataChunk(r, 512, DATA.subarray(0, 4095)), chunk(r, 0, '', true))));

test('a reply without content to a read ends the connection', (t) => breaks(t, (r) => chunk(r, 0, '', true)));

test('a closing chunk that does not close ends the connection', (t) =>
  breaks(t, (r) => chunk(r, 0, '', false)));

test('a chunk of an unknown type ends the connection', (t) => breaks(t, (r) => chunk(r, 99, '', true)));

test('block status in answer to a read ends the connection', (t) =>
  breaks(t, (r) => statusChunk(r, 1, [[4096, 0]], true)));

test('a simple reply to a read, when structured ones were agreed, ends the connection', (t) =>
  breaks(t, (r) => simpleReply(r, 0, DATA)));

test('an error chunk without error ends the connection', (t) =>
  breaks(t, (r) => errorChunk(r, 0, 'fine', true)));

test('an error text longer than its chunk ends the connection', (t) =>
  breaks(t, (r) => chunk(r, 0x8001, bytes([32, 5], [16, 100], 'short'), true)));

test('an error text without end ends the connection', (t) =>
  breaks(t, (r) => bytes([32, 0x668e33ef], [16, 1], [16, 0x8001], [64, r.cookie], [32, 1 << 30])));

test('an error offset outside the request ends the connection', (t) =>
  breaks(t, (r) => chunk(r, 0x8002, bytes([32, 5], [16, 0], [64, 0]), true)));

test('a reply scattered into thousands of pieces ends the connection', (t) =>
  breaks(t, (r) => bytes(...Array.from({ length: 2000 }, (_, i) => holeChunk(r, 512 + 2 * i, 1)))));

test('an error after data fails the whole read, and that read alone', async (t) => {
  const client = await connected(t, async (peer) => {
    const [a, b] = [await peer.nextRequest(), await peer.nextRequest()];
    peer.socket.write(
      bytes(dataChunk(a, 0, DATA), errorChunk(a, 5, 'bad\n\u001b[31msector'), chunk(a, 0, '', true)),
    );
    peer.socket.write(dataChunk(b, b.offset, DATA, true));
  });
  const failing = client.read(0, 4096);
  const good = client.read(4096, 4096);
  await assert.rejects(failing, (error: unknown) => {
    assert.ok(isFailure(error, 'NBD_REQUEST_FAILED'));
    assert.equal(error.context.errno, 'EIO');
    assert.match(error.message, /bad \[31msector/);
    return true;
  });
  assert.deepEqual(await good, DATA);
});

test('data after an error does not heal the read', async (t) => {
  const client = await answering(t, (r) =>
    bytes(
      chunk(r, 0x8002, bytes([32, 5], [16, 2], 'xx', [64, 600])),
      dataChunk(r, 512, DATA),
      chunk(r, 0, '', true),
    ),
  );
  await assert.rejects(client.read(512, 4096), code('NBD_REQUEST_FAILED'));
});

test('an error chunk of an unknown type fails the request alone', async (t) => {
  const client = await answering(t, (r) => chunk(r, 0x80ff, bytes([32, 28], [16, 0], 'more fields'), true));
  await assert.rejects(
    client.read(512, 4096),
    (error: unknown) => isFailure(error) && error.context.errno === 'ENOSPC',
  );
});

test('late garbage ends the connection, not the read that was complete', async (t) => {
  const client = await answering(t, (r) =>
    bytes(dataChunk(r, 512, DATA, true), 'garbage of sixteen and more'),
  );
  assert.deepEqual(await client.read(512, 4096), DATA);
  assert.equal((await client.closed)?.code, 'NBD_PROTOCOL');
});

test('a server that closes in the middle of a chunk fails what is under way', async (t) => {
  const client = await connected(t, async (peer) => {
    const r = await peer.nextRequest();
    peer.socket.end(dataChunk(r, 0, DATA, true).subarray(0, 1000));
  });
  const reads = [client.read(0, 4096), client.read(4096, 4096), client.write(0, DATA), client.flush()];
  for (const outcome of await Promise.allSettled(reads)) {
    assert.equal(outcome.status, 'rejected');
    code('NBD_DISCONNECTED')(outcome.reason);
  }
  const reason = await client.closed;
  assert.equal(reason?.retry, 'reconnect');
  await assert.rejects(client.flush(), code('NBD_DISCONNECTED'));
});

test('without structured replies reads work and contexts are missing', async (t) => {
  const client = await connected(
    t,
    async (peer) => {
      peer.socket.write(simpleReply(await peer.nextRequest(), 0, DATA));
      peer.socket.write(simpleReply(await peer.nextRequest(), 5));
      peer.socket.write(simpleReply(await peer.nextRequest()));
    },
    { structured: false, contexts: { 'base:allocation': 1 } },
  );
  assert.deepEqual(await client.read(0, 4096), DATA);
  await assert.rejects(client.read(0, 4096), code('NBD_REQUEST_FAILED'));
  await client.flush();
  assert.deepEqual(client.info.contexts, []);
  await assert.rejects(client.blockStatus('base:allocation', 0, 4096), code('NBD_CONTEXT_MISSING'));
});

const CONTEXTS = { 'base:allocation': 7, 'qemu:allocation-depth': 9 };

function status(t: TestContext, answer: (request: SeenRequest) => Buffer, o = {}): Promise<NbdClient> {
  const script = async (peer: FakePeer) => {
    for (;;) peer.socket.write(answer(await peer.nextRequest()));
  };
  return connected(t, script, { contexts: CONTEXTS, ...o });
}

test('block status is asked for again until the range is covered, and equal neighbours unite', async (t) => {
  const client = await status(t, (r) =>
    bytes(
      statusChunk(r, 7, [[Math.min(4096, r.length), r.offset < 8192 ? 3 : 0]]),
      statusChunk(r, 9, [[512, 1]]),
      chunk(r, 0, '', true),
    ),
  );
  assert.deepEqual(await client.blockStatus('base:allocation', 4096, 6144), [
    { offset: 4096, length: 4096, flags: 3 },
    { offset: 8192, length: 2048, flags: 0 },
  ]);
  const [allocation, depth] = await client.blockStatuses(Object.keys(CONTEXTS), 0, 2048);
  assert.deepEqual(allocation, [{ offset: 0, length: 2048, flags: 3 }]);
  assert.deepEqual(depth, [{ offset: 0, length: 2048, flags: 1 }]);
});

test('a last extent that reaches beyond the request is cut', async (t) => {
  const client = await status(t, (r) =>
    bytes(
      statusChunk(r, 9, [[4096, 1]]),
      statusChunk(
        r,
        7,
        [
          [100, 0],
          [0xffffffff, 2],
        ],
        true,
      ),
    ),
  );
  assert.deepEqual(await client.blockStatus('base:allocation', 0, 4096), [
    { offset: 0, length: 100, flags: 0 },
    { offset: 100, length: 3996, flags: 2 },
  ]);
});

const wrongStatuses: Record<string, (request: SeenRequest) => Buffer> = {
  'an empty extent': (r) =>
    statusChunk(
      r,
      7,
      [
        [512, 0],
        [0, 0],
        [512, 0],
      ],
      true,
    ),
  'an extent that begins beyond the request': (r) =>
    statusChunk(
      r,
      7,
      [
        [4096, 0],
        [512, 0],
      ],
      true,
    ),
  'no extents': (r) => statusChunk(r, 7, [], true),
  'no status at all': (r) => chunk(r, 0, '', true),
  'half a descriptor': (r) => chunk(r, 5, bytes([32, 7], [32, 4096], [32, 0], [32, 1]), true),
  'a context that was not agreed on': (r) => statusChunk(r, 8, [[512, 0]], true),
  'one context twice': (r) => bytes(statusChunk(r, 7, [[512, 0]]), statusChunk(r, 7, [[512, 0]], true)),
  'more descriptors than bytes asked for': (r) =>
    bytes([32, 0x668e33ef], [16, 1], [16, 5], [64, r.cookie], [32, 4 + 8 * 4097]),
  'a simple reply': (r) => simpleReply(r),
};
for (const [what, answer] of Object.entries(wrongStatuses)) {
  test(`${what} in a block status reply ends the connection`, async (t) => {
    const client = await status(t, answer);
    await assert.rejects(client.blockStatus('base:allocation', 0, 4096), code('NBD_PROTOCOL'));
    assert.equal((await client.closed)?.code, 'NBD_PROTOCOL');
  });
}

test('a block status reply that leaves the asked context out is a failure', async (t) => {
  const client = await status(t, (r) => statusChunk(r, 9, [[4096, 1]], true));
  await assert.rejects(client.blockStatus('base:allocation', 0, 4096), code('NBD_PROTOCOL'));
});
