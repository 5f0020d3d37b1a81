import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:https';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { faultOfLeaf } from '../../../src/peer/certificate-check.ts';
import { createIdentity, PeerClient } from '../../../src/peer/index.ts';
import { LeafKeeper } from '../../../src/peer/leaf-keeper.ts';
import { HEADER, PATH, PROTOCOL } from '../../../src/peer/protocol.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { clientOf, code, pair, startSite, twoSites } from './sites.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

test('a client without a certificate is refused', async (t) => {
  const { b } = await twoSites(t);
  for (const [method, path] of [
    ['GET', '/warmsite/hello'],
    ['POST', '/warmsite/pair'],
    ['POST', '/warmsite/upload/x'],
  ] as const) {
    const answer = await anonymousRequest(b.address, b.identity.caCertificate, method, path);
    assert.equal(answer.failure.code, 'PEER_CERTIFICATE_MISSING');
  }
});

test('a site that is not paired is refused', async (t) => {
  const { peer } = await twoSites(t);
  const stranger = await startSite(t, 'Stranger');
  await assert.rejects(clientOf(t, stranger, peer).call('echo', 1), code('PEER_UNKNOWN'));
});

test('a certificate that another authority issued for a known site is refused', async (t) => {
  const { a, peer } = await twoSites(t);
  const forger = await createIdentity({ name: 'Amsterdam', clock: a.clock, random: systemRandom });
  const posing = { ...forger, siteId: a.identity.siteId };
  const client = new PeerClient({ identity: posing, peer, clock: a.clock, random: systemRandom });
  t.after(() => client.close());
  await assert.rejects(client.call('echo', 1), (error) => {
    assert.ok(isFailure(error, 'PEER_AUTHORITY_WRONG'));
    assert.equal(error.context.remote, 'Bergen');
    return true;
  });
});

test('a server under another authority, or of another site, is not talked to', async (t) => {
  const { a, b, peer } = await twoSites(t);
  const c = await startSite(t, 'C', { calls: { echo: async () => assert.fail('was reached') } });
  await assert.rejects(clientOf(t, a, peer, c.address).call('echo', 1), code('PEER_AUTHORITY_WRONG'));
  const renamed = { ...peer, siteId: c.identity.siteId };
  await assert.rejects(clientOf(t, a, renamed, b.address).call('echo', 1), code('PEER_AUTHORITY_WRONG'));
});

test('a revoked peer is refused on the connection that it already has', async (t) => {
  const { a, b, client } = await twoSites(t);
  assert.equal(await client.call('echo', 1), 1);
  await b.peers.revoke(a.identity.siteId, 5);
  await assert.rejects(client.call('echo', 2), code('PEER_REVOKED'));
});

test('a revocation closes the connections that are idle, and each later one behind its refusal', async (t) => {
  const { a, b } = await twoSites(t);
  const leaf = new LeafKeeper({ ...a, random: systemRandom }).current();
  const connected = async () => {
    const socket = connect({
      ...{ ...b.address, ...leaf, ca: b.identity.caCertificate },
      checkServerIdentity: () => undefined,
    });
    t.after(() => socket.destroy());
    await once(socket, 'secureConnect');
    return socket;
  };
  const hello = `GET ${PATH.hello} HTTP/1.1\r\nhost: b\r\n${HEADER.protocol}: ${PROTOCOL}\r\n\r\n`;
  const idle = await connected();
  idle.write(hello);
  await once(idle, 'data');
  const closed = once(idle, 'close');
  idle.resume();
  await b.peers.revoke(a.identity.siteId, 5);
  await closed;
  const later = await connected();
  later.write(hello);
  const answer: Buffer[] = [];
  for await (const chunk of later) answer.push(chunk as Buffer);
  assert.match(Buffer.concat(answer).toString(), /"PEER_REVOKED"/);
});

test('a revocation ends an upload that is under way', async (t) => {
  const { a, b, client } = await twoSites(t, {
    upload: async (peer, _session, source) => {
      for await (const _ of source) await b.peers.revoke(peer.siteId, 5);
      return null;
    },
  });
  async function* stuck(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(1000);
    await new Promise(() => undefined);
  }
  await assert.rejects(client.upload('s', stuck()), code('PEER_REVOKED'));
  assert.ok(b.peers.get(a.identity.siteId)?.revokedAtMs);
});

test('a peer revoked here is not called', async (t) => {
  const { a, b } = await twoSites(t);
  await a.peers.revoke(b.identity.siteId, 5);
  const client = clientOf(t, a, a.peers.get(b.identity.siteId)!);
  assert.throws(() => client.call('echo', 1), code('PEER_REVOKED'));
});

test('TLS 1.2 is refused', async (t) => {
  const { a, b } = await twoSites(t);
  const leaf = new LeafKeeper({ ...a, random: systemRandom }).current();
  const outcome = await new Promise<unknown>((resolve) => {
    const socket = connect({
      ...b.address,
      ...leaf,
      ca: b.identity.caCertificate,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.2',
    });
    socket.once('error', resolve);
    socket.once('secureConnect', () => resolve('connected'));
    t.after(() => socket.destroy());
  });
  assert.match(String((outcome as { code?: string }).code), /PROTOCOL_VERSION/);
});

test('a leaf is renewed before it ends, at both ends of a connection', async (t) => {
  // Both sites began 45 days ago: the leaves of then have ended by now.
  const clock = new FakeClock(systemClock.wallMs() - 45 * DAY_MS);
  const a = await startSite(t, 'A', { clock });
  const b = await startSite(t, 'B', { clock });
  for (const [site, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const { siteId, name, caCertificate, signingKey } = other.identity;
    await site.peers.add({ siteId, name, caCertificate, signingKey, address: other.address, pairedAtMs: 1 });
  }
  const client = clientOf(t, a, a.peers.get(b.identity.siteId)!);
  await assert.rejects(client.call('echo', 1), code('PEER_CERTIFICATE_EXPIRED'));
  clock.advance(45 * DAY_MS);
  assert.equal(await client.call('echo', 2), 2);
});

test('a leaf that is not valid by the clock of the server is refused', async (t) => {
  const ahead = new FakeClock(systemClock.wallMs() + 20 * DAY_MS);
  const a = await startSite(t, 'A');
  const b = await startSite(t, 'B', { clock: ahead });
  const { siteId, name, caCertificate, signingKey } = a.identity;
  await b.peers.add({ siteId, name, caCertificate, signingKey, address: a.address, pairedAtMs: 1 });
  const leaf = new X509Certificate(new LeafKeeper({ ...a, random: systemRandom }).current().cert);
  const authority = new X509Certificate(a.identity.caCertificate);
  const nowMs = systemClock.wallMs();
  assert.equal(faultOfLeaf(leaf, authority, siteId, nowMs), undefined);
  assert.equal(faultOfLeaf(leaf, authority, siteId, nowMs + 29 * DAY_MS), undefined);
  for (const wrongMs of [nowMs - 2 * DAY_MS, nowMs + 31 * DAY_MS]) {
    assert.equal(faultOfLeaf(leaf, authority, siteId, wrongMs)?.code, 'PEER_CERTIFICATE_EXPIRED');
  }
});

test('a leaf may have the names by which programs that are not ours know its host; no other site takes it for a site', async () => {
  const identity = await createIdentity({ name: 'A', clock: systemClock, random: systemRandom });
  const hosts = ['backup.example', '192.0.2.7', '2001:db8::7', '::1', '2001:db8:1:2:3:4:5:6'];
  const keeper = new LeafKeeper({ identity, clock: systemClock, random: systemRandom, hosts });
  const leaf = new X509Certificate(keeper.current().cert);
  assert.equal(leaf.checkHost('backup.example'), 'backup.example');
  for (const address of hosts.slice(1)) assert.equal(leaf.checkIP(address), address);
  assert.equal(leaf.checkIP('192.0.2.8'), undefined);
  const authority = new X509Certificate(identity.caCertificate);
  const fault = faultOfLeaf(leaf, authority, identity.siteId, systemClock.wallMs());
  assert.equal(fault?.code, 'PEER_AUTHORITY_WRONG');
});

test('clocks 10 minutes apart in either direction do no harm', async (t) => {
  for (const minutes of [-10, 10]) {
    const a = await startSite(t, 'A');
    const b = await startSite(t, 'B', { clock: new FakeClock(systemClock.wallMs() + minutes * 60_000) });
    assert.equal(await clientOf(t, a, await pair(a, b)).call('echo', minutes), minutes);
  }
});

test('the keeper of a leaf renews it when a third of its life is left, or the clock was set back', async () => {
  const clock = new FakeClock();
  const identity = await createIdentity({ name: 'A', clock, random: systemRandom });
  const keeper = new LeafKeeper({ identity, clock, random: systemRandom });
  const first = keeper.current();
  clock.jumpWall(19.9 * DAY_MS);
  assert.equal(keeper.current(), first);
  clock.jumpWall(0.2 * DAY_MS);
  const second = keeper.current();
  assert.notEqual(second, first);
  clock.jumpWall(-400 * DAY_MS);
  assert.ok(keeper.current().notBeforeMs < clock.wallMs());
});

test('an authority cannot show itself as a leaf', async () => {
  const clock = new FakeClock();
  const identity = await createIdentity({ name: 'A', clock, random: systemRandom });
  const authority = new X509Certificate(identity.caCertificate);
  assert.equal(
    faultOfLeaf(authority, authority, identity.siteId, clock.wallMs())?.code,
    'PEER_AUTHORITY_WRONG',
  );
});

function anonymousRequest(
  address: { host: string; port: number },
  ca: string,
  method: string,
  path: string,
): Promise<{ failure: { code: string } }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...address,
        ca,
        method,
        path,
        agent: false,
        checkServerIdentity: () => undefined,
        headers: { 'warmsite-protocol': 1 },
      },
      (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.once('end', () => resolve(JSON.parse(text)));
      },
    );
    sent.once('error', reject);
    sent.end();
  });
}
