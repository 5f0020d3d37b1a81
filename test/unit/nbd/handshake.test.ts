import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { NbdClient, type NbdConnectOptions } from '../../../src/nbd/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { bytes, connected, type FakePeer, fakeServer, greeting, optionReply, shake } from './fake-server.ts';

/** Connecting to this server fails with this code, and leaves no connection open. */
async function refused(
  t: TestContext,
  expected: string,
  script: (peer: FakePeer) => Promise<void>,
  o: Partial<NbdConnectOptions> = {},
): Promise<void> {
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  const address = await fakeServer(t, async (peer) => {
    peer.socket.on('close', () => resolve());
    await script(peer);
  });
  const attempt = NbdClient.connect({
    address,
    exportName: 'e',
    contexts: ['a:b'],
    clock: systemClock,
    ...o,
  });
  await assert.rejects(attempt, (error: unknown) => {
    assert.ok(isFailure(error, expected), `expected ${expected}, got ${String(error)}`);
    return true;
  });
  await gone;
}

/** Greets, then answers each option with what the table has for it. */
function haggle(replies: Readonly<Record<number, Buffer>>): (peer: FakePeer) => Promise<void> {
  return async (peer) => {
    peer.socket.write(greeting());
    await peer.take(4);
    for (;;) peer.socket.write(replies[(await peer.nextOption()).option] ?? optionReply(0, 1));
  };
}

const ACK_8 = optionReply(8, 1);
const ACK_10 = optionReply(10, 1);
const EXPORT = optionReply(7, 3, bytes([16, 0], [64, 1 << 20], [16, 1]));
const go = (...parts: Buffer[]) => ({ 8: ACK_8, 10: ACK_10, 7: bytes(...parts) });
const send = (data: Buffer) => async (peer: FakePeer) => void peer.socket.write(data);

test('a server that is not NBD is refused', (t) =>
  refused(t, 'NBD_PROTOCOL', send(bytes('SSH-2.0-OpenSSH_9.2p1 Debian\r\n'))));
test('the oldstyle protocol is refused', (t) =>
  refused(t, 'NBD_UNSUPPORTED', send(bytes('NBDMAGIC', [64, 0x00420281861253n], Buffer.alloc(200)))));
test('newstyle that is not fixed is refused', (t) => refused(t, 'NBD_UNSUPPORTED', send(greeting(2))));
test('a server that closes in the greeting is a lost connection', (t) =>
  refused(t, 'NBD_DISCONNECTED', async (peer) => void peer.socket.end(greeting().subarray(0, 9))));
test('a server that floods the handshake is refused', (t) =>
  refused(t, 'NBD_PROTOCOL', send(bytes(greeting(), Buffer.alloc(1 << 20)))));
test('option replies with the wrong magic are refused', (t) =>
  refused(t, 'NBD_PROTOCOL', haggle({ 8: Buffer.alloc(20, 1) })));
test('a reply to another option is refused', (t) => refused(t, 'NBD_PROTOCOL', haggle({ 8: ACK_10 })));
test('an oversize option reply is refused before it is read', (t) =>
  refused(t, 'NBD_PROTOCOL', haggle({ 8: optionReply(8, 1).fill(0xff, 16, 20) })));
test('endless option replies are refused', (t) =>
  refused(t, 'NBD_PROTOCOL', haggle(go(...Array.from({ length: 1000 }, () => EXPORT)))));
test('an acknowledgement with data is refused', (t) =>
  refused(t, 'NBD_PROTOCOL', haggle({ 8: optionReply(8, 1, 'x') })));
test('an agreement without a size is refused', (t) =>
  refused(t, 'NBD_PROTOCOL', haggle(go(optionReply(7, 1)))));
test('an export info of the wrong length is refused', (t) =>
  refused(t, 'NBD_PROTOCOL', haggle(go(optionReply(7, 3, bytes([16, 0], [64, 1])), optionReply(7, 1)))));
test('an export larger than numbers can count is refused', (t) =>
  refused(
    t,
    'NBD_UNSUPPORTED',
    haggle(go(optionReply(7, 3, bytes([16, 0], [64, 2n ** 63n], [16, 1])), optionReply(7, 1))),
  ));
test('an unknown export is named', (t) =>
  refused(t, 'NBD_EXPORT_UNKNOWN', haggle(go(optionReply(7, 0x80000006, 'no such disk')))));
test('a policy refusal is told', (t) =>
  refused(t, 'NBD_NEGOTIATION_REFUSED', haggle(go(optionReply(7, 0x80000002)))));
test('a server without NBD_OPT_GO is refused', (t) =>
  refused(t, 'NBD_UNSUPPORTED', haggle(go(optionReply(7, 0x80000001)))));
test('a server that wants TLS is told apart', (t) =>
  refused(t, 'NBD_TLS_REQUIRED', haggle({ 8: optionReply(8, 0x80000005) })));
test('a context that was not asked for is refused', (t) =>
  refused(
    t,
    'NBD_PROTOCOL',
    haggle({ 8: ACK_8, 10: bytes(optionReply(10, 4, bytes([32, 1], 'c:d')), ACK_10) }),
  ));
test('a context granted twice is refused', (t) =>
  refused(
    t,
    'NBD_PROTOCOL',
    haggle({
      8: ACK_8,
      10: bytes(optionReply(10, 4, bytes([32, 1], 'a:b')), optionReply(10, 4, bytes([32, 2], 'a:b')), ACK_10),
    }),
  ));
for (const [minimum, preferred, maximum] of [
  [0, 4096, 1 << 25],
  [513, 4096, 1 << 25],
  [1 << 17, 1 << 17, 1 << 25],
  [4096, 512, 1 << 25],
  [4096, 4096, 1024],
] as const) {
  test(`block sizes ${minimum}, ${preferred}, ${maximum} are refused`, (t) =>
    refused(t, 'NBD_PROTOCOL', (peer) => shake(peer, { blocks: [minimum, preferred, maximum] })));
}

test('a silent server is left after the time allowed', (t) =>
  refused(t, 'NBD_TIMEOUT', async () => undefined, { timeoutMs: 50 }));

test('an aborted attempt ends at once', async (t) => {
  const controller = new AbortController();
  await refused(t, 'CANCELLED', async () => controller.abort(), { signal: controller.signal });
});

test('nothing listening is NBD_UNREACHABLE', async (t) => {
  const path = `${await temporaryDirectory(t)}/none`;
  await assert.rejects(
    NbdClient.connect({ address: { kind: 'unix', path }, exportName: '', clock: systemClock }),
    (error: unknown) => isFailure(error, 'NBD_UNREACHABLE') && error.context.systemCode === 'ENOENT',
  );
});

test('names that do not fit the protocol are refused before connecting', async () => {
  const address = { kind: 'unix', path: '/nonexistent' } as const;
  for (const wrong of [
    { exportName: 'x'.repeat(4097) },
    { exportName: 'a\0b' },
    { exportName: '', contexts: ['y'.repeat(4097)] },
    { exportName: '', connections: 0 },
  ]) {
    await assert.rejects(NbdClient.connect({ address, clock: systemClock, ...wrong }), (error: unknown) =>
      isFailure(error, 'NBD_REQUEST_INVALID'),
    );
  }
});

test('what follows the handshake unasked ends the connection', async (t) => {
  const client = await connected(t, async (peer) => void peer.socket.write(Buffer.alloc(16)));
  assert.equal((await client.closed)?.code, 'NBD_PROTOCOL');
});

test('the agreement shows in the info', async (t) => {
  const client = await connected(t, async () => undefined, {
    sizeBytes: 2 ** 40,
    flags: 0b11,
    blocks: [512, 65536, 0xffffffff],
    contexts: { 'base:allocation': 0 },
  });
  assert.deepEqual(client.info, {
    sizeBytes: 2 ** 40,
    readOnly: true,
    canFlush: false,
    canFua: false,
    canTrim: false,
    canZero: false,
    canFastZero: false,
    multiConn: false,
    minimumBlockBytes: 512,
    preferredBlockBytes: 65536,
    maximumPayloadBytes: 32 * 1024 * 1024,
    contexts: ['base:allocation'],
  });
});

test('STARTTLS: bytes in the clear after the agreement are an attack', async (t) => {
  const { createServer } = await import('node:net');
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write(greeting());
    let seen = 0;
    socket.on('data', (data) => {
      seen += data.length;
      // Client flags and the option request: 4 + 16 bytes.
      if (seen === 20) socket.write(bytes(optionReply(5, 1), 'injected'));
    });
  });
  t.after(() => new Promise((resolve) => server.close(resolve)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const address = { kind: 'tcp', host: '127.0.0.1', port, tls: { ca: '', serverName: 'x' } } as const;
  await assert.rejects(NbdClient.connect({ address, exportName: '', clock: systemClock }), (error: unknown) =>
    isFailure(error, 'NBD_TLS_FAILED'),
  );
});
