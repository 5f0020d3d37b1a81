import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { systemClock } from '../../../src/lib/clock.ts';
import { Failure, type FailureRecord, isFailure } from '../../../src/lib/errors.ts';
import { isId } from '../../../src/lib/random.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FaultProxy } from '../../support/fault-proxy.ts';
import { again, clientOf, code, keepingLog, pair, startSite, twoSites } from './sites.ts';

test('a call returns what the handler answered, and the handler knows the peer', async (t) => {
  const { a, client } = await twoSites(t, {
    calls: { who: async (peer, body) => ({ name: peer.name, siteId: peer.siteId, body }) },
  });
  const answer = await client.call('who', { list: [1, null, 'ü'] });
  assert.deepEqual(answer, {
    name: 'Amsterdam',
    siteId: a.identity.siteId,
    body: { list: [1, null, 'ü'] },
  });
  assert.equal(await client.call('who', null).then((value) => (value as { body: null }).body), null);
});

test('both sides of a pairing may call', async (t) => {
  const { a, b } = await twoSites(t);
  const back = clientOf(t, b, b.peers.get(a.identity.siteId)!);
  assert.equal(await back.call('echo', 'hello'), 'hello');
});

test('a failure of a handler is thrown at the caller as the same failure', async (t) => {
  const { client } = await twoSites(t, {
    calls: {
      fail: async () => {
        throw new Failure(
          'REPLICA_PARENT_UNKNOWN',
          { kind: 'refused', retry: 'never', remedy: 'Start again.' },
          'no such parent\u001b[2J',
          { context: { point: '01h', count: 3, path: '/x' } },
        );
      },
    },
  });
  await assert.rejects(client.call('fail', {}), (error) => {
    assert.ok(isFailure(error, 'REPLICA_PARENT_UNKNOWN'));
    assert.deepEqual(error.toJSON(), {
      code: 'REPLICA_PARENT_UNKNOWN',
      kind: 'refused',
      retry: 'never',
      message: 'no such parent [2J',
      hint: 'Start again.',
      context: { point: '01h', count: 3, path: '/x', remote: 'Bergen' },
    } satisfies FailureRecord);
    return true;
  });
});

test('an unexpected error of a handler tells the peer nothing and the own log everything', async (t) => {
  const entries: Parameters<typeof keepingLog>[0] = [];
  const { client } = await twoSites(t, {
    log: keepingLog(entries),
    calls: {
      break: async () => {
        throw new TypeError('password is swordfish');
      },
    },
  });
  await assert.rejects(client.call('break', {}), (error) => {
    assert.ok(isFailure(error, 'PEER_INTERNAL'));
    assert.doesNotMatch(JSON.stringify(error), /swordfish/);
    return true;
  });
  assert.ok(
    entries.some(({ event, fields }) => event === 'peer.handler-broke' && fields?.error instanceof TypeError),
  );
});

test('a call that nobody serves is refused, and names of Object.prototype are nobody', async (t) => {
  const { client } = await twoSites(t);
  await assert.rejects(client.call('nothing', {}), code('PEER_CALL_UNKNOWN'));
  await assert.rejects(client.call('constructor', {}), code('PEER_CALL_UNKNOWN'));
});

test('a body above the limit is refused on both sides', async (t) => {
  const { a, b, client } = await twoSites(t);
  await assert.rejects(client.call('echo', 'x'.repeat(16 * 1024 * 1024)), code('PEER_BODY_TOO_LARGE'));
  const answer = await rawRequest(a, b, {
    head: `POST /warmsite/call/echo HTTP/1.1\r\nhost: x\r\nwarmsite-protocol: 1\r\ntransfer-encoding: chunked\r\n\r\n`,
    body: `1100000\r\n${'1'.repeat(0x1100000)}\r\n0\r\n\r\n`,
  });
  assert.match(answer, /^HTTP\/1\.1 400 [\s\S]*PEER_BODY_TOO_LARGE/);
});

test('a request of a newer protocol is refused, one without a protocol too', async (t) => {
  const { a, b } = await twoSites(t);
  const newer = await rawRequest(a, b, {
    head: 'GET /warmsite/hello HTTP/1.1\r\nhost: x\r\nwarmsite-protocol: 2\r\n\r\n',
  });
  assert.match(newer, /^HTTP\/1\.1 409 [\s\S]*PEER_PROTOCOL_NEWER/);
  const none = await rawRequest(a, b, { head: 'GET /warmsite/hello HTTP/1.1\r\nhost: x\r\n\r\n' });
  assert.match(none, /^HTTP\/1\.1 502 [\s\S]*PEER_PROTOCOL_INVALID/);
});

test('a head above the limit ends the connection, not the server', async (t) => {
  const { a, b, client } = await twoSites(t);
  const head = `GET /warmsite/hello HTTP/1.1\r\nhost: x\r\nwarmsite-protocol: 1\r\nx: ${'y'.repeat(9000)}\r\n\r\n`;
  assert.equal(await rawRequest(a, b, { head }), '');
  assert.equal(await client.call('echo', 1), 1);
});

test('hello measures the difference of the clocks with half of the round trip taken off', async (t) => {
  const clockOfB = new FakeClock(systemClock.wallMs() + 10 * 60_000);
  const a = await startSite(t, 'Amsterdam');
  const b = await startSite(t, 'Bergen', { clock: clockOfB });
  const peer = await pair(a, b);
  const hello = await clientOf(t, a, peer).hello();
  assert.equal(hello.siteId, b.identity.siteId);
  assert.equal(hello.protocol, 1);
  assert.ok(hello.roundTripMs > 0);
  assert.ok(Math.abs(hello.skewMs - 10 * 60_000) < 5_000, `skew ${hello.skewMs}`);
});

test('hello tells by an id of each start that a site was started again', async (t) => {
  const { a, b, peer, client } = await twoSites(t);
  const { startId } = await client.hello();
  assert.ok(isId(startId!), startId);
  assert.equal((await client.hello()).startId, startId);
  const later = await again(t, b);
  const met = await clientOf(t, a, { ...peer, address: later.address }).hello();
  assert.notEqual(met.startId, startId);
});

test('a call that is not answered in time fails, and its handler hears that nobody waits', async (t) => {
  let heard: ((reason: unknown) => void) | undefined;
  const gone = new Promise((resolve) => {
    heard = resolve;
  });
  const { client } = await twoSites(t, {
    calls: {
      hang: (_peer, _body, signal) =>
        new Promise((resolve) => {
          signal.addEventListener('abort', () => {
            heard?.(signal.reason);
            resolve(null);
          });
        }),
    },
  });
  await assert.rejects(client.call('hang', {}, { timeoutMs: 100 }), code('PEER_TIMEOUT'));
  assert.ok(isFailure(await gone, 'PEER_CONNECTION_LOST'));
});

test('a call that its caller gives up is cancelled', async (t) => {
  const { client } = await twoSites(t, {
    calls: {
      hang: (_peer, _body, signal) =>
        new Promise((resolve) => signal.addEventListener('abort', () => resolve(null))),
    },
  });
  const controller = new AbortController();
  const call = client.call('hang', {}, { signal: controller.signal });
  controller.abort();
  await assert.rejects(call, code('CANCELLED'));
});

test('a peer that is away, silent or cut off is told apart', async (t) => {
  const { a, b, peer } = await twoSites(t);
  const proxy = await FaultProxy.start(t, b.address);
  const client = clientOf(t, a, peer, proxy.address);
  assert.equal(await client.call('echo', 1), 1);
  proxy.stall();
  await assert.rejects(client.call('echo', 2, { timeoutMs: 100 }), code('PEER_TIMEOUT'));
  proxy.resume();
  assert.equal(await client.call('echo', 3), 3);
  proxy.up.cutAfterBytes = 0;
  await assert.rejects(client.call('echo', 4), code('PEER_CONNECTION_LOST'));
  await proxy.close();
  await assert.rejects(client.call('echo', 5), code('PEER_UNREACHABLE'));
});

test('a byte changed on the way is never taken for an answer', async (t) => {
  const { a, b, peer } = await twoSites(t);
  const proxy = await FaultProxy.start(t, b.address);
  for (const direction of [proxy.up, proxy.down]) {
    for (const at of [3, 60, 200, 700, 1200]) {
      direction.flipByteAt = at;
      const answer = await clientOf(t, a, peer, proxy.address)
        .call('echo', 'x'.repeat(500), { timeoutMs: 2000 })
        .catch((error: unknown) => error);
      direction.flipByteAt = undefined;
      assert.ok(
        isFailure(answer, 'PEER_TLS_FAILED', 'PEER_CONNECTION_LOST', 'PEER_AUTHORITY_WRONG', 'PEER_TIMEOUT'),
        `byte ${at}: ${String(answer)}`,
      );
    }
  }
});

test('a server that closes ends what is under way with a failure that says so', async (t) => {
  const { b, client } = await twoSites(t, {
    calls: {
      wait: (_peer, _body, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
          started();
        }),
    },
  });
  let started: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => {
    started = resolve;
  });
  const call = client.call('wait', {});
  await Promise.all([assert.rejects(call, code('PEER_CLOSED')), begun.then(() => b.server.close())]);
});

/** Sends raw bytes over TLS with the certificate of `a`, and returns all that `b` says until it is whole. */
async function rawRequest(
  a: Awaited<ReturnType<typeof startSite>>,
  b: Awaited<ReturnType<typeof startSite>>,
  o: { head: string; body?: string },
): Promise<string> {
  const { LeafKeeper } = await import('../../../src/peer/leaf-keeper.ts');
  const { systemRandom } = await import('../../../src/lib/random.ts');
  const leaf = new LeafKeeper({ identity: a.identity, clock: a.clock, random: systemRandom }).current();
  return await new Promise((resolve, reject) => {
    const socket = connect({
      ...b.address,
      ca: b.identity.caCertificate,
      ...leaf,
      checkServerIdentity: () => undefined,
    });
    let said = '';
    socket.on('error', (error) => (said ? resolve(said) : reject(error)));
    socket.once('close', () => resolve(said));
    socket.on('data', (chunk) => {
      said += chunk.toString();
      if (said.endsWith('}}')) socket.destroy();
    });
    socket.once('secureConnect', () => {
      socket.write(o.head);
      if (o.body) socket.write(o.body);
    });
  });
}
