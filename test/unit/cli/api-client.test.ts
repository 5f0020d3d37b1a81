import assert from 'node:assert/strict';
import { type KeyObject, sign, X509Certificate } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { createServer as createPlainServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { CLIENT_FILES } from '../../../src/api/index.ts';
import { ApiClient, readApiAccess } from '../../../src/cli/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { Failure, isFailure, libFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { createIdentity, LeafKeeper } from '../../../src/peer/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';
import { type Answer, failed, fakeSite, OPERATOR_TOKEN, writeClientFiles } from './fake-site.ts';

const NO_PEERS: Answer = { body: [] };

async function clientOf(t: CleanUp, dataDirectory: string): Promise<ApiClient> {
  const client = new ApiClient({ access: await readApiAccess(nodeFiles, dataDirectory), clock: systemClock });
  t.after(() => client.close());
  return client;
}

/** What the client makes of the site that it finds in the directory. */
async function failureOf(t: CleanUp, dataDirectory: string): Promise<Failure> {
  try {
    const client = await clientOf(t, dataDirectory);
    await client.call('site.peers', {});
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new assert.AssertionError({ message: 'it was believed' });
}

/** Makes a server listen until the test ends, and a data directory whose site would be there. */
async function impostor(t: TestContext, server: Server, authority: string): Promise<string> {
  const sockets: Socket[] = [];
  server.on('connection', (socket: Socket) => sockets.push(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
  const dataDirectory = await temporaryDirectory(t);
  const { port } = server.address() as AddressInfo;
  await writeClientFiles(dataDirectory, { address: { host: '127.0.0.1', port }, authority });
  return dataDirectory;
}

/** The same leaf with the name of another site, signed anew by the authority: ids are equally long, so that nothing moves. */
function renamedLeaf(pem: string, o: { from: string; to: string; authorityKey: KeyObject }): string {
  const { raw } = new X509Certificate(pem);
  const contentOf = (at: number) => at + 2 + (raw[at + 1]! < 0x80 ? 0 : raw[at + 1]! - 0x80);
  const start = contentOf(0);
  const content = contentOf(start);
  const end = content + raw.readUIntBE(start + 2, content - start - 2);
  const body = Buffer.from(raw.subarray(start, end));
  body.write(o.to, body.indexOf(`warmsite:site:${o.from}`) + 'warmsite:site:'.length);
  const signature = sign(null, body, o.authorityKey);
  const der = Buffer.concat([raw.subarray(0, start), body, raw.subarray(end, -signature.length), signature]);
  return `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
}

describe('API client: trust', { timeout: 30_000 }, () => {
  it('sends the token of the data directory to the site of the data directory', async (t) => {
    const site = await fakeSite(t, () => NO_PEERS);
    const client = await clientOf(t, site.dataDirectory);
    assert.deepEqual(await client.call('site.peers', {}), []);
    assert.deepEqual(site.asked, [
      { method: 'GET', path: '/v1/site/peers', authorization: `Bearer ${OPERATOR_TOKEN}`, body: '' },
    ]);
  });

  it('refuses a server of another authority, and sends it nothing', async (t) => {
    const site = await fakeSite(t, () => NO_PEERS);
    const other = await createIdentity({ name: 'other', clock: systemClock, random: systemRandom });
    await writeFile(join(site.dataDirectory, CLIENT_FILES.authority), other.caCertificate);
    const failure = await failureOf(t, site.dataDirectory);
    assert.equal(failure.code, 'CLI_API_UNTRUSTED');
    assert.equal(failure.context.port, site.address.port);
    assert.doesNotMatch(failure.message, /system-ca/, 'no advice to trust others');
    assert.deepEqual(site.asked, []);
  });

  it('refuses a leaf that its own authority has issued for another site, and sends it nothing', async (t) => {
    const clock = systemClock;
    const random = systemRandom;
    const identity = await createIdentity({ name: 'own', clock, random });
    const { siteId } = await createIdentity({ name: 'other', clock, random });
    const { key, cert: own } = new LeafKeeper({ identity, clock, random }).current();
    const cert = renamedLeaf(own, { from: identity.siteId, to: siteId, authorityKey: identity.caKey });
    let requests = 0;
    const server = createTlsServer({ key, cert }, () => requests++);
    const failure = await failureOf(t, await impostor(t, server, identity.caCertificate));
    assert.equal(failure.code, 'CLI_API_UNTRUSTED');
    assert.match(failure.message, /not one of this site/, 'the chain is good, the name is not');
    assert.equal(requests, 0);
  });

  it('refuses what does not speak TLS', async (t) => {
    const { caCertificate } = await createIdentity({ name: 'a', clock: systemClock, random: systemRandom });
    let requests = 0;
    const plain = createPlainServer(() => requests++);
    assert.equal((await failureOf(t, await impostor(t, plain, caCertificate))).code, 'CLI_API_UNTRUSTED');
    const noise = createTcpServer((socket) => socket.end('220 mail.example.com ESMTP\r\n'));
    assert.equal((await failureOf(t, await impostor(t, noise, caCertificate))).code, 'CLI_API_UNTRUSTED');
    assert.equal(requests, 0);
  });

  it('refuses a site that speaks nothing newer than TLS 1.2', async (t) => {
    const identity = await createIdentity({ name: 'a', clock: systemClock, random: systemRandom });
    const leaf = new LeafKeeper({ identity, clock: systemClock, random: systemRandom }).current();
    const server = createTlsServer({ key: leaf.key, cert: leaf.cert, maxVersion: 'TLSv1.2' });
    const failure = await failureOf(t, await impostor(t, server, identity.caCertificate));
    assert.equal(failure.code, 'CLI_API_UNTRUSTED');
  });
});

describe('API client: files of the site', { timeout: 30_000 }, () => {
  it('a directory without a site, a site that stopped, and one that died are told apart', async (t) => {
    const empty = await temporaryDirectory(t);
    assert.equal((await failureOf(t, empty)).code, 'CLI_SITE_MISSING');
    const site = await fakeSite(t, () => NO_PEERS);
    await site.close();
    const died = await failureOf(t, site.dataDirectory);
    assert.equal(died.code, 'CLI_SITE_STOPPED');
    assert.ok(died.message.includes(String(site.address.port)));
    await rm(join(site.dataDirectory, CLIENT_FILES.apiAddress));
    const stopped = await failureOf(t, site.dataDirectory);
    assert.equal(stopped.code, 'CLI_SITE_STOPPED');
    assert.ok(stopped.message.includes(site.dataDirectory));
  });

  it('a file that holds something else is named', async (t) => {
    const { caCertificate: authority } = await createIdentity({
      name: 'a',
      clock: systemClock,
      random: systemRandom,
    });
    const dataDirectory = await temporaryDirectory(t);
    for (const address of [
      '',
      'null',
      '{"host":"127.0.0.1"}',
      '{"host":"","port":1}',
      '{"host":"a","port":0}',
    ]) {
      await writeClientFiles(dataDirectory, { address, authority });
      const failure = await failureOf(t, dataDirectory);
      assert.equal(failure.code, 'CLI_ANSWER_INVALID', address);
      assert.ok(failure.message.includes(CLIENT_FILES.apiAddress));
    }
    await writeClientFiles(dataDirectory, { address: { host: 'a', port: 1 }, authority: 'no certificate' });
    assert.equal((await failureOf(t, dataDirectory)).code, 'CLI_ANSWER_INVALID');
  });

  it('a person without the rights is told so', async (t) => {
    const site = await fakeSite(t, () => NO_PEERS);
    const files: FileSystem = {
      ...nodeFiles,
      open: () =>
        Promise.reject(libFailure('FILE_UNREADABLE', 'not for you', { context: { system: 'EACCES' } })),
    };
    await assert.rejects(readApiAccess(files, site.dataDirectory), { code: 'CLI_NO_RIGHTS' });
  });
});

describe('API client: answers', { timeout: 30_000 }, () => {
  it('a failure of the site arrives as the same failure', async (t) => {
    const record = {
      code: 'MACHINE_UNKNOWN',
      kind: 'missing',
      retry: 'never',
      message: 'there is no machine «web»',
      hint: 'List them.',
      context: { machine: 'web', tries: 3 },
    } as const;
    const site = await fakeSite(t, () => failed(404, record));
    const failure = await failureOf(t, site.dataDirectory);
    assert.deepEqual(failure.toJSON(), record);
  });

  it('what is not in the contract is not believed, and another version is named', async (t) => {
    let answer: Answer = NO_PEERS;
    const site = await fakeSite(t, () => answer);
    const wrong: Answer[] = [
      { body: 'it works!' },
      { body: '' },
      { body: {} },
      { body: [{ name: 'half a peer' }] },
      { status: 201, body: [] },
      { status: 500, body: { error: 'oops' } },
      { status: 404, body: { error: { code: 'X', message: 'no kind' } } },
      { status: 302, body: [] },
    ];
    for (answer of wrong) {
      assert.equal(
        (await failureOf(t, site.dataDirectory)).code,
        'CLI_ANSWER_INVALID',
        JSON.stringify(answer),
      );
    }
    answer = { version: '99.0.0', body: {} };
    assert.match((await failureOf(t, site.dataDirectory)).message, /Warmsite 99\.0\.0/);
  });

  it('parameters are one path segment each, whatever is in them; queries leave out what is absent', async (t) => {
    const site = await fakeSite(t, () => failed(404, {}));
    const client = await clientOf(t, site.dataDirectory);
    await assert.rejects(client.call('vm.show', { params: { machine: '../site?x=1#/ä' } }));
    await assert.rejects(client.call('audit.list', { query: { limit: '5' } }));
    await assert.rejects(client.call('site.token', { body: { lifetimeMs: 1000 } }));
    assert.deepEqual(
      site.asked.map(({ method, path, body }) => [method, path, body]),
      [
        ['GET', '/v1/machines/..%2Fsite%3Fx%3D1%23%2F%C3%A4', ''],
        ['GET', '/v1/audit?limit=5', ''],
        ['POST', '/v1/site/pairing-tokens', '{"lifetimeMs":1000}'],
      ],
    );
  });

  it('a site that ends while it answers, or never answers, is told with its own code', async (t) => {
    const dying = await fakeSite(t, () => Promise.reject(new Error('the power fails')));
    assert.equal((await failureOf(t, dying.dataDirectory)).code, 'CLI_SITE_STOPPED');
    const slow = await fakeSite(t, () => new Promise<Answer>(() => undefined));
    const client = await clientOf(t, slow.dataDirectory);
    await assert.rejects(client.call('site.peers', { limitMs: 50 }), { code: 'CLI_ANSWER_LATE' });
    const giveUp = new AbortController();
    const given = client.call('site.peers', { signal: giveUp.signal });
    await Promise.all([
      assert.rejects(given, (error) => isFailure(error, 'CANCELLED')),
      sleep(systemClock, 20).then(() => giveUp.abort()),
    ]);
  });
});
