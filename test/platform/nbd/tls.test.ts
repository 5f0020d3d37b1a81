import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { NbdAddress, NbdTls } from '../../../src/nbd/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { clientOf, startServer } from './servers.ts';

const NAME = 'nbd.test';

/** An authority with a certificate for the server and one for a client, where nbdkit looks for them. */
async function certificates(t: TestContext): Promise<{ directory: string; tls: NbdTls }> {
  const directory = await temporaryDirectory(t);
  const at = (name: string) => join(directory, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-x509'];
  const authority = ['-subj', '/CN=authority', '-keyout', at('ca-key.pem'), '-out', at('ca-cert.pem')];
  await runCommand('openssl', ['req', ...key, ...authority]);
  const signed = [
    '-CA',
    at('ca-cert.pem'),
    '-CAkey',
    at('ca-key.pem'),
    '-addext',
    'basicConstraints=critical,CA:FALSE',
  ];
  for (const [name, subject] of [
    ['server', NAME],
    ['client', 'client.test'],
  ] as const) {
    const files = ['-keyout', at(`${name}-key.pem`), '-out', at(`${name}-cert.pem`)];
    const who = ['-subj', `/CN=${subject}`, '-addext', `subjectAltName=DNS:${subject}`];
    await runCommand('openssl', ['req', ...key, ...signed, ...files, ...who]);
  }
  const text = (name: string) => readFile(at(name), 'utf8');
  const identity = { certificate: await text('client-cert.pem'), key: await text('client-key.pem') };
  return { directory, tls: { ca: await text('ca-cert.pem'), serverName: NAME, identity } };
}

/**
 * nbdkit that talks TLS only, behind a TCP port. The port is ours and passes everything on to its unix socket,
 * because the kernel then chooses a free one.
 */
async function tlsServer(
  t: TestContext,
  directory: string,
  ...args: string[]
): Promise<{ host: string; port: number }> {
  const server = await startServer(t, 'nbdkit', (socket, pid) => [
    '-f',
    ...['-U', socket, '-P', pid, '--tls=require', `--tls-certificates=${directory}`],
    ...args,
    ...['pattern', '8M'],
  ]);
  const relay = createServer((socket) => {
    const inner = connect(server.address.path);
    socket.pipe(inner).pipe(socket);
    for (const one of [socket, inner]) {
      one.on('error', () => undefined);
      one.on('close', () => {
        socket.destroy();
        inner.destroy();
      });
    }
  });
  t.after(() => void relay.close());
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  return { host: '127.0.0.1', port: (relay.address() as { port: number }).port };
}

function refusedWith(code: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isFailure(error, code), `expected ${code}, got ${String(error)}`);
    return true;
  };
}

test('over TLS reads are right, with both sides proven', async (t) => {
  const { directory, tls } = await certificates(t);
  const where = await tlsServer(t, directory, '--tls-verify-peer');
  const address: NbdAddress = { kind: 'tcp', ...where, tls };
  const client = await clientOf(t, { address }, { contexts: ['base:allocation'], connections: 2 });
  assert.equal(client.connectionCount, 2);
  const content = await client.read(0, 8 * 1024 * 1024);
  for (let at = 0; at < content.length; at += 65536) assert.equal(content.readBigUInt64BE(at), BigInt(at));
});

test('a certificate for another name is refused', async (t) => {
  const { directory, tls } = await certificates(t);
  const where = await tlsServer(t, directory);
  const address: NbdAddress = { kind: 'tcp', ...where, tls: { ...tls, serverName: 'other.test' } };
  await assert.rejects(clientOf(t, { address }), refusedWith('NBD_TLS_FAILED'));
});

test('a certificate of another authority is refused', async (t) => {
  const [ours, theirs] = [await certificates(t), await certificates(t)];
  const where = await tlsServer(t, theirs.directory);
  await assert.rejects(
    clientOf(t, { address: { kind: 'tcp', ...where, tls: ours.tls } }),
    refusedWith('NBD_TLS_FAILED'),
  );
});

test('a server that wants TLS does not talk in the clear', async (t) => {
  const { directory } = await certificates(t);
  const where = await tlsServer(t, directory);
  await assert.rejects(clientOf(t, { address: { kind: 'tcp', ...where } }), refusedWith('NBD_TLS_REQUIRED'));
});
