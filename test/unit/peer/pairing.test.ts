import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { Pairing, PeerDirectory, redeemToken } from '../../../src/peer/index.ts';
import { decodeToken, encodeToken } from '../../../src/peer/pairing-token.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FaultProxy } from '../../support/fault-proxy.ts';
import { clientOf, code, pair, redeem, type Site, startSite } from './sites.ts';

const MINUTE_MS = 60_000;

function tokenOf(site: Site, lifetimeMs = MINUTE_MS): Promise<string> {
  return site.pairing.issueToken({ lifetimeMs, address: site.address });
}

test('a token pins each site at the other, durably', async (t) => {
  const a = await startSite(t, 'Amsterdam');
  const b = await startSite(t, 'Bergen');
  const peer = await pair(a, b);
  assert.equal(peer.siteId, b.identity.siteId);
  assert.equal(peer.name, 'Bergen');
  assert.equal(peer.signingKey, b.identity.signingKey);
  for (const [site, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const reloaded = await PeerDirectory.load(nodeFiles, site.dataDirectory);
    assert.deepEqual(reloaded.list(), site.peers.list());
    const pinned = reloaded.get(other.identity.siteId);
    assert.equal(pinned?.caCertificate, other.identity.caCertificate);
    assert.deepEqual(pinned?.address, other.address);
  }
});

test('the secret of a token is stored nowhere', async (t) => {
  const b = await startSite(t, 'Bergen');
  const { secret } = decodeToken(await tokenOf(b));
  const directory = join(b.dataDirectory, 'pairing');
  const [file] = await readdir(directory);
  const text = await readFile(join(directory, file!), 'utf8');
  for (const form of ['hex', 'base64', 'base64url'] as const)
    assert.ok(!text.includes(secret.toString(form)));
});

test('a token works once; the second use is refused and reported', async (t) => {
  const [a, b, c] = [await startSite(t, 'A'), await startSite(t, 'B'), await startSite(t, 'C')];
  const token = await tokenOf(b);
  await redeem(a, token);
  await assert.rejects(redeem(c, token), code('PEER_TOKEN_USED'));
  assert.equal(c.peers.list().length, 0);
  assert.equal(b.peers.list().length, 1);
  assert.equal(b.reuses.length, 1);
  assert.equal(b.reuses[0]?.usedBySiteId, a.identity.siteId);
  assert.equal(b.reuses[0]?.triedBySiteId, c.identity.siteId);
});

test('a used token stays used after a restart', async (t) => {
  const [a, b] = [await startSite(t, 'A'), await startSite(t, 'B')];
  const token = await tokenOf(b);
  await redeem(a, token);
  const { tokenId, secret } = decodeToken(token);
  const restarted = new Pairing({
    ...b,
    files: nodeFiles,
    random: systemRandom,
    onTokenReuse: (r) => b.reuses.push(r),
  });
  const body = { tokenId, secret: secret.toString('base64url') };
  await assert.rejects(restarted.accept(body, undefined as never), code('PEER_TOKEN_USED'));
  assert.equal(b.reuses.length, 1);
});

test('of two uses at the same time one wins', async (t) => {
  const [a, b, c] = [await startSite(t, 'A'), await startSite(t, 'B'), await startSite(t, 'C')];
  const token = await tokenOf(b);
  const outcomes = await Promise.allSettled([redeem(a, token), redeem(c, token)]);
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  assert.equal(b.peers.list().length, 1);
  assert.equal(b.reuses.length, 1);
});

test('a token is worth nothing after its lifetime', async (t) => {
  const clock = new FakeClock(systemClock.wallMs());
  const a = await startSite(t, 'A');
  const b = await startSite(t, 'B', { clock });
  const token = await tokenOf(b, 5 * MINUTE_MS);
  clock.advance(5 * MINUTE_MS);
  await assert.rejects(redeem(a, token), code('PEER_TOKEN_EXPIRED'));
  assert.equal(b.peers.list().length, 0);
});

test('a wall clock set back does not lengthen the life of a token', async (t) => {
  const clock = new FakeClock(systemClock.wallMs());
  const a = await startSite(t, 'A');
  const b = await startSite(t, 'B', { clock });
  const token = await tokenOf(b, 5 * MINUTE_MS);
  clock.advance(6 * MINUTE_MS);
  clock.jumpWall(-4 * MINUTE_MS);
  await assert.rejects(redeem(a, token), code('PEER_TOKEN_EXPIRED'));
});

test('no token lives for more than 15 minutes', async (t) => {
  const b = await startSite(t, 'B');
  for (const lifetimeMs of [15 * MINUTE_MS + 1, 0, -1, Number.NaN]) {
    await assert.rejects(tokenOf(b, lifetimeMs), code('PEER_TOKEN_LIFETIME'));
  }
});

test('an unknown token and a wrong secret get the same answer', async (t) => {
  const [a, b] = [await startSite(t, 'A'), await startSite(t, 'B')];
  const token = decodeToken(await tokenOf(b));
  const wrongs = [
    { ...token, secret: Buffer.alloc(32, 1) },
    { ...token, tokenId: token.tokenId.replace(/.$/, (last) => (last === '0' ? '1' : '0')) },
  ];
  const said: string[] = [];
  for (const wrong of wrongs) {
    await assert.rejects(redeem(a, encodeToken(wrong)), (error) => {
      assert.ok(isFailure(error, 'PEER_TOKEN_WRONG'));
      said.push(error.message);
      return true;
    });
  }
  assert.equal(said[0], said[1]);
  assert.equal(b.reuses.length, 0);
  await redeem(a, encodeToken(token));
});

test('a token that lost or changed a character is told from a wrong one', async (t) => {
  const b = await startSite(t, 'B');
  const token = await tokenOf(b);
  assert.equal(decodeToken(`  ${token}\n`).siteId, b.identity.siteId);
  for (let i = 0; i < token.length; i++) {
    const lost = token.slice(0, i) + token.slice(i + 1);
    const changed = token.slice(0, i) + (token[i] === 'a' ? 'b' : 'a') + token.slice(i + 1);
    for (const wrong of [lost, changed, token.slice(0, i)]) {
      assert.throws(() => decodeToken(wrong), code('PEER_TOKEN_MALFORMED'), wrong);
    }
  }
});

test('another site at the address of the token gets nothing of it', async (t) => {
  const [a, b, thief] = [await startSite(t, 'A'), await startSite(t, 'B'), await startSite(t, 'Thief')];
  const token = decodeToken(await tokenOf(b));
  const proxy = await FaultProxy.start(t, thief.address);
  await assert.rejects(
    redeem(a, encodeToken({ ...token, address: proxy.address })),
    code('PEER_AUTHORITY_WRONG'),
  );
  assert.equal(proxy.connections, 1, 'the connection with data was never opened');
});

test('a site does not pair with itself', async (t) => {
  const b = await startSite(t, 'B');
  await assert.rejects(redeem(b, await tokenOf(b)), code('PEER_SELF'));
});

test('a known site under other keys is refused until the old pinning is revoked', async (t) => {
  const [a, b, other] = [await startSite(t, 'A'), await startSite(t, 'B'), await startSite(t, 'Other')];
  await pair(a, b);
  // `b` knows a site of A's id under another authority.
  await b.peers.revoke(a.identity.siteId, 1);
  await b.peers.add({
    ...b.peers.get(a.identity.siteId)!,
    revokedAtMs: undefined,
    caCertificate: other.identity.caCertificate,
  });
  await assert.rejects(redeem(a, await tokenOf(b)), code('PEER_KEY_CHANGED'));
  await b.peers.revoke(a.identity.siteId, 2);
  const peer = await redeem(a, await tokenOf(b));
  assert.equal(await clientOf(t, a, peer).call('echo', 1), 1);
});

test('pairing again under the same keys renews name and address', async (t) => {
  const [a, b] = [await startSite(t, 'A'), await startSite(t, 'B')];
  await pair(a, b);
  await a.peers.setAddress(b.identity.siteId, { host: 'elsewhere.example', port: 1 });
  await pair(a, b);
  assert.deepEqual(a.peers.get(b.identity.siteId)?.address, b.address);
});

test('an introduction signed for another occasion, or with borrowed keys, is refused', async (t) => {
  const { introduce, peerFromIntroduction } = await import('../../../src/peer/introduction.ts');
  const [a, b] = [await startSite(t, 'A'), await startSite(t, 'B')];
  const occasion = { audience: b.identity.siteId, tokenId: a.identity.siteId };
  const fine = introduce(a.identity, a.address, occasion);
  assert.equal(peerFromIntroduction(fine, occasion, 1).siteId, a.identity.siteId);
  const wrongs: unknown[] = [
    null,
    'text',
    [],
    { ...fine, signature: undefined },
    { ...fine, name: 'Bergen' },
    { ...fine, address: { ...fine.address, port: 1 } },
    { ...fine, caCertificate: b.identity.caCertificate },
    { ...fine, signingKey: b.identity.signingKey },
    { ...fine, siteId: '../../../../etc/passwd' },
    { ...fine, caCertificate: 'no certificate' },
  ];
  for (const wrong of wrongs) {
    assert.throws(() => peerFromIntroduction(wrong, occasion, 1), code('PEER_INTRODUCTION_INVALID'));
  }
  for (const other of [
    { ...occasion, audience: a.identity.siteId },
    { ...occasion, tokenId: b.identity.siteId },
  ]) {
    assert.throws(() => peerFromIntroduction(fine, other, 1), code('PEER_INTRODUCTION_INVALID'));
  }
});

test('a token is spent only by one who holds the keys that he introduces', async (t) => {
  const [a, b, thief] = [await startSite(t, 'A'), await startSite(t, 'B'), await startSite(t, 'Thief')];
  const token = await tokenOf(b);
  const stolen = { ...a.identity, caKey: thief.identity.caKey };
  await assert.rejects(
    redeemToken({
      token,
      identity: stolen,
      peers: thief.peers,
      ownAddress: a.address,
      clock: a.clock,
      random: systemRandom,
    }),
    code('PEER_AUTHORITY_WRONG'),
  );
  await redeem(a, token);
});

test('pairing with a site that is away or silent ends in time', async (t) => {
  const [a, b] = [await startSite(t, 'A'), await startSite(t, 'B')];
  const token = decodeToken(await tokenOf(b));
  const proxy = await FaultProxy.start(t, b.address);
  proxy.stall();
  const through = encodeToken({ ...token, address: proxy.address });
  const silent = redeemToken({
    token: through,
    identity: a.identity,
    peers: a.peers,
    ownAddress: a.address,
    clock: a.clock,
    random: systemRandom,
    timeoutMs: 100,
  });
  await assert.rejects(silent, code('PEER_TIMEOUT'));
  await proxy.close();
  await assert.rejects(redeem(a, through), code('PEER_UNREACHABLE'));
});
