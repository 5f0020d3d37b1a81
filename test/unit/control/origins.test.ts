import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Origins } from '../../../src/control/replicas/origins.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import type { Peer } from '../../../src/peer/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const id = () => newId(systemClock, systemRandom);
const key = () => generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString();

test('S0.29 a damaged record of those keys says what can be done about it', async (t) => {
  const dataDirectory = await temporaryDirectory(t);
  await writeFile(join(dataDirectory, 'origins.json'), '{');
  const about = { files: nodeFiles, clock: new FakeClock(), dataDirectory, ownSiteId: id() };
  const alerts = { raise: () => undefined, clear: () => undefined };
  const hint = /Put the file back .* `warmsite origin confirm`/;
  await assert.rejects(Origins.open({ ...about, alerts, peer: () => undefined }), {
    code: 'RECORD_CORRUPT',
    hint,
  });
});

test('S0.29 points of a site that is not paired are taken once a person has confirmed its key, and by no other key', async (t) => {
  const dataDirectory = await temporaryDirectory(t);
  const [own, b, d, siteId, pairedId, revokedId] = [id(), id(), id(), id(), id(), id()];
  const [itsKey, pairedKey, wrong] = [key(), key(), key()];
  const peers = [
    { siteId: pairedId, name: 'paired', signingKey: pairedKey },
    { siteId: revokedId, name: 'revoked', signingKey: pairedKey, revokedAtMs: 1 },
  ] as Peer[];
  const alerts = new Map<string, string>();
  const open = () =>
    Origins.open({
      ...{ files: nodeFiles, clock: new FakeClock(), dataDirectory, ownSiteId: own },
      peer: (one) => peers.find((peer) => peer.siteId === one),
      alerts: {
        raise: (about, _severity, { code }) => void alerts.set(about, code),
        clear: (about) => void alerts.delete(about),
      },
    });
  const home = { siteId, name: 'home', signingKey: itsKey };
  const first = await open();
  await assert.rejects(first.accept(home, b), { code: 'ORIGIN_UNCONFIRMED' });
  assert.deepEqual([...alerts.values()], ['ORIGIN_UNCONFIRMED']);
  assert.equal(first.confirmed(siteId), undefined);
  const [told] = (await open()).list();
  assert.deepEqual([told!.siteId, told!.viaSiteId, told!.confirmedAtMs], [siteId, b, undefined]);

  // Somebody else tells of another key: that is what would be confirmed then, and a person sees it.
  await assert.rejects(first.accept({ ...home, signingKey: wrong }, d), { code: 'ORIGIN_UNCONFIRMED' });
  await assert.rejects(first.confirm(siteId, told!.keyId), { code: 'ORIGIN_KEY_WRONG' });
  await assert.rejects(first.accept(home, b), { code: 'ORIGIN_UNCONFIRMED' });
  await first.confirm(siteId, told!.keyId);
  assert.equal(alerts.size, 0);

  const origins = await open();
  await origins.accept(home, b);
  await origins.accept({ ...home, name: 'by any name' }, d);
  assert.equal(origins.confirmed(siteId)!.signingKey, itsKey);
  await assert.rejects(origins.accept({ ...home, signingKey: wrong }, d), { code: 'ORIGIN_KEY_WRONG' });
  assert.deepEqual([...alerts.values()], ['ORIGIN_KEY_WRONG']);

  await origins.accept({ siteId: pairedId, name: 'paired', signingKey: pairedKey }, b);
  const refusals = [
    [{ siteId: pairedId, name: 'paired', signingKey: wrong }, 'ORIGIN_KEY_WRONG'],
    [{ siteId: revokedId, name: 'revoked', signingKey: pairedKey }, 'ORIGIN_REFUSED'],
    [{ siteId: own, name: 'itself', signingKey: itsKey }, 'ORIGIN_REFUSED'],
    [{ siteId: b, name: 'who brings it', signingKey: itsKey }, 'ORIGIN_REFUSED'],
    [{ siteId: id(), name: 'without a key', signingKey: 'no key' }, 'ORIGIN_REFUSED'],
  ] as const;
  for (const [origin, code] of refusals) await assert.rejects(origins.accept(origin, b), { code });
  for (let count = 0; count < 64; count++) {
    const one = { siteId: id(), name: 'one of many', signingKey: wrong };
    await assert.rejects(origins.accept(one, b), { code: 'ORIGIN_UNCONFIRMED' });
  }
  const more = { siteId: id(), name: 'one too many', signingKey: wrong };
  await assert.rejects(origins.accept(more, b), { code: 'ORIGIN_REFUSED' });
  await origins.forget(siteId);
  assert.equal(origins.confirmed(siteId), undefined);
  await assert.rejects(origins.forget(siteId), { code: 'ORIGIN_UNKNOWN' });
});
