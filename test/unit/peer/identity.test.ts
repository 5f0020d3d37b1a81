import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { type Random, systemRandom } from '../../../src/lib/random.ts';
import {
  createIdentity,
  exportKit,
  importKit,
  loadIdentity,
  type Peer,
  PeerDirectory,
  saveIdentity,
  verifySignature,
} from '../../../src/peer/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { code } from './sites.ts';

const clock = new FakeClock();

function newIdentity(name = 'Amsterdam', random: Random = systemRandom) {
  return createIdentity({ name, clock, random });
}

async function newPeer(name: string): Promise<Peer> {
  const { siteId, caCertificate, signingKey } = await newIdentity(name);
  return { siteId, name, caCertificate, signingKey, address: { host: '::1', port: 7 }, pairedAtMs: 1 };
}

test('an identity that was saved is the same when loaded, in files that others cannot read', async (t) => {
  const data = await temporaryDirectory(t);
  assert.equal(await loadIdentity(nodeFiles, data), undefined);
  const identity = await newIdentity();
  await saveIdentity(nodeFiles, data, identity);
  const loaded = await loadIdentity(nodeFiles, data);
  assert.equal(exportKit(loaded!, []), exportKit(identity, []));
  assert.equal(loaded?.signer.keyId, identity.signer.keyId);
  assert.equal((await stat(join(data, 'keys'))).mode & 0o777, 0o700);
  assert.equal((await stat(join(data, 'keys', 'identity.json'))).mode & 0o777, 0o600);
});

test('an identity printed by accident shows no private key', async () => {
  const identity = await newIdentity();
  assert.doesNotMatch(JSON.stringify(identity) + inspect(identity, { depth: 9 }), /PRIVATE/);
});

test('keys that do not belong together are damage', async (t) => {
  const data = await temporaryDirectory(t);
  await saveIdentity(nodeFiles, data, await newIdentity());
  const path = join(data, 'keys', 'identity.json');
  const record = JSON.parse(await readFile(path, 'utf8'));
  for (const wrong of [
    { caKey: record.signingKey },
    { caKey: 'none' },
    { caCertificate: 'none' },
    { signingKey: '' },
  ]) {
    await writeFile(path, JSON.stringify({ ...record, ...wrong }));
    await assert.rejects(loadIdentity(nodeFiles, data), code('PEER_IDENTITY_DAMAGED'));
  }
});

test('a name of a site is short and has no control characters', async () => {
  for (const name of ['', 'x'.repeat(65), 'a\nb', 'a\u202eb']) {
    await assert.rejects(newIdentity(name), code('PEER_NAME_INVALID'));
  }
});

test('a signature holds for its bytes and key alone', async () => {
  const [one, other] = [await newIdentity(), await newIdentity()];
  const bytes = Buffer.from('statement');
  const signature = one.signer.sign(bytes);
  assert.equal(verifySignature(one.signingKey, bytes, signature), true);
  assert.equal(verifySignature(other.signingKey, bytes, signature), false);
  assert.equal(verifySignature(one.signingKey, Buffer.from('Statement'), signature), false);
  assert.equal(verifySignature(one.signingKey, bytes, signature.subarray(1)), false);
  assert.equal(verifySignature('no key', bytes, signature), false);
  assert.match(one.signer.keyId, /^ed25519:[0-9a-f]{32}$/);
});

test('the same chance gives the same identity', async () => {
  const seeded = (): Random => {
    let next = 0;
    return { bytes: (count) => Buffer.from(Array.from({ length: count }, () => next++ & 0xff)) };
  };
  const [one, two] = [await newIdentity('A', seeded()), await newIdentity('A', seeded())];
  assert.equal(exportKit(one, []), exportKit(two, []));
});

test('the certificate of an authority says what it is and does not expire', async () => {
  const identity = await newIdentity();
  const certificate = new X509Certificate(identity.caCertificate);
  assert.equal(certificate.ca, true);
  assert.equal(certificate.subject, `CN=Warmsite authority ${identity.siteId}`);
  assert.equal(certificate.validToDate.toISOString(), '9999-12-31T23:59:59.000Z');
  assert.ok(certificate.verify(certificate.publicKey));
});

test('a recovery kit makes the same site again', async () => {
  const identity = await newIdentity();
  const peers = [await newPeer('B'), { ...(await newPeer('C')), revokedAtMs: 9 }];
  const kit = importKit(exportKit(identity, peers));
  assert.deepEqual(kit.peers, peers);
  assert.equal(kit.identity.caCertificate, identity.caCertificate);
  assert.ok(
    verifySignature(identity.signingKey, Buffer.from('x'), kit.identity.signer.sign(Buffer.from('x'))),
  );
});

test('a recovery kit that was changed or cut off is refused', async () => {
  const text = exportKit(await newIdentity(), [await newPeer('Bergen')]);
  for (let at = 0; at < text.length - 2; at += 97) {
    assert.throws(() => importKit(text.slice(0, at)), code('PEER_KIT_INVALID'));
  }
  assert.throws(() => importKit(text.replace('Bergen', 'Burgen')), code('PEER_KIT_INVALID'));
  assert.throws(() => importKit(text.replace('"version": 1', '"version": 2')), code('RECORD_NEWER'));
});

test('a peer directory keeps changes in order and across a restart', async (t) => {
  const data = await temporaryDirectory(t);
  const peers = await PeerDirectory.load(nodeFiles, data);
  const [b, c] = [await newPeer('B'), await newPeer('C')];
  const seen: string[] = [];
  peers.watch((peer) => seen.push(`${peer.name} ${peer.address.port} ${peer.revokedAtMs ?? 'trusted'}`));
  await Promise.all([peers.add(b), peers.add(c)]);
  const moved = peers.setAddress(b.siteId, { host: 'b.example', port: 8 });
  const revoked = peers.revoke(b.siteId, 100);
  assert.equal(peers.get(b.siteId)?.revokedAtMs, 100, 'a revocation acts at once');
  await Promise.all([moved, revoked]);
  assert.deepEqual(peers.get(b.siteId), { ...b, address: { host: 'b.example', port: 8 }, revokedAtMs: 100 });
  assert.deepEqual((await PeerDirectory.load(nodeFiles, data)).list(), peers.list());
  assert.deepEqual(seen, ['B 7 trusted', 'C 7 trusted', 'B 7 100', 'B 8 100', 'B 8 100']);
});

test('a damaged record of a peer is an error, never a forgotten peer', async (t) => {
  const data = await temporaryDirectory(t);
  const peers = await PeerDirectory.load(nodeFiles, data);
  const b = await newPeer('B');
  await peers.add(b);
  await writeFile(join(data, 'peers', `${b.siteId}.json`), '{');
  await assert.rejects(PeerDirectory.load(nodeFiles, data), code('RECORD_CORRUPT'));
});

test('what is not pinned cannot be changed', async (t) => {
  const peers = await PeerDirectory.load(nodeFiles, await temporaryDirectory(t));
  const { siteId } = await newIdentity();
  await assert.rejects(peers.setAddress(siteId, { host: 'x', port: 1 }), code('PEER_UNKNOWN'));
  assert.throws(() => peers.revoke(siteId, 1), code('PEER_UNKNOWN'));
});
