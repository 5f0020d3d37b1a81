/** A machine of one site, its replica at a second one, forwarded to a third: three served sites on one host; over the API. */
import assert from 'node:assert/strict';
import { readdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { BOX, copy, machineThatIsOff, pair, pairedSites, resultOf } from '../../support/paired-sites.ts';
import { TestSite } from '../../support/served-sites.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const BASE_BYTES = 16 * MIB;
/** The clock of the first site is behind those of the others. */
const AHEAD_MS = -10 * 60_000;

it('S0.29 a replica is forwarded to a third site, which proves the points by the key of the first; merges and an outage in between cost no resync', {
  timeout: 300_000,
}, async (context) => {
  const beganMs = systemClock.wallMs();
  const { t, directory, home, away, homeApi, awayApi } = await pairedSites(context, { aheadMs: AHEAD_MS });
  const east = await TestSite.init(t, directory, 'east');
  let eastApi = await east.serve();
  await pair(awayApi, eastApi);
  const path = join(directory, 'disk.raw');
  await writeFile(path, systemRandom.bytes(BASE_BYTES));
  await truncate(path, DISK_BYTES);
  await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: DISK_BYTES, format: 'raw' }) });
  const body = { target: 'away', every: {}, retention: { types: { crash: 2, app: 0 } }, compression: false };
  await homeApi.call('vm.protect', { ...BOX, body });
  await copy(homeApi, 1);

  const forward = (to: string, bytesPerSecond: number | null = null) => {
    const request = { to, retention: { types: { crash: 50 } }, bytesPerSecond };
    return awayApi.call('replica.forward', { ...BOX, body: request });
  };
  await assert.rejects(forward('home'), { code: 'FORWARD_TO_ORIGIN' });
  await assert.rejects(forward('nowhere'), { code: 'SITE_PEER_UNKNOWN' });
  const asked = east.next((event) => event.event === 'alert');
  await forward('east');
  await asked;
  const [told] = await eastApi.call('origin.list', {});
  const { keyId, siteId: homeId } = await homeApi.call('site.show');
  assert.deepEqual([told!.siteId, told!.keyId, told!.viaName], [homeId, keyId, 'away']);
  assert.deepEqual(
    await eastApi.call('vm.list', {}),
    [],
    'nothing is taken before somebody has confirmed the key',
  );
  const confirm = (key: string) =>
    eastApi.call('origin.confirm', { params: { origin: homeId }, body: { keyId: key } });
  await assert.rejects(confirm('ed25519:0123'), { code: 'ORIGIN_KEY_WRONG' });
  await confirm(keyId!);

  /** What is known of the third site once it has the newest point of the second. */
  const caughtUp = () =>
    away.until(async () => {
      const { replica } = await awayApi.call('vm.show', BOX);
      const [state] = replica!.forwards!;
      return state!.acknowledged?.pointId === replica!.newest!.pointId ? state : undefined;
    });
  /** The third site is up again, at another port. */
  const serveEast = async () => {
    eastApi = await east.serve();
    const { peerAddress } = await eastApi.call('site.show');
    const address = { host: '127.0.0.1', port: peerAddress.port };
    await awayApi.call('peer.address', { params: { peer: 'east' }, body: address });
  };

  // The first point is broken off on its way, which is long enough for a host that is busy to look at it in time.
  await forward('east', 3 * MIB);
  const arriving = join(east.dataDirectory, 'replicas');
  for (let arrived = 0; arrived < 3 * MIB; ) {
    const names = await readdir(arriving, { recursive: true });
    const layer = names.find((name) => name.endsWith('disk0.layer'));
    // Between the two looks it may have been begun anew.
    arrived = layer ? ((await nodeFiles.sizeOf(join(arriving, layer))) ?? 0) : 0;
    await awayApi.call('vm.show', BOX);
  }
  await east.close();
  await serveEast();
  await forward('east');
  await caughtUp();
  const [first] = await eastApi.call('point.list', BOX);
  context.diagnostic(`${first!.receivedBytes} bytes came after the link was cut, of ${BASE_BYTES}`);
  assert.ok(first!.receivedBytes! < BASE_BYTES - MIB, `${first!.receivedBytes} bytes`);
  const { replica } = await eastApi.call('vm.show', BOX);
  assert.deepEqual([replica!.sourceName, replica!.sourceSiteId], ['home', homeId]);
  assert.equal(replica!.viaName, 'away');
  await assert.rejects(eastApi.call('origin.forget', { params: { origin: homeId } }), {
    code: 'ORIGIN_IN_USE',
  });
  for (let round = 2; round <= 3; round++) await copy(homeApi, round);
  await caughtUp();

  await east.close();
  for (let round = 4; round <= 8; round++) await copy(homeApi, round);
  await resultOf(
    awayApi,
    await awayApi.call('point.verify', { params: { machine: 'box', point: 'latest' } }),
  );
  const kept = await awayApi.call('point.list', BOX);
  await serveEast();
  assert.equal((await caughtUp()).unsentCuts, 0);
  const there = await eastApi.call('point.list', BOX);
  const here = await awayApi.call('point.list', BOX);
  const sequences = there.map(({ sequence }) => sequence);
  assert.equal(sequences.at(-1), 8);
  assert.ok(!sequences.includes(5), `${sequences}: what was merged at the second site never comes`);
  const [newest, itsSource] = [there.at(-1)!, here.at(-1)!];
  assert.equal(newest.statementDigest, itsSource.statementDigest);
  const apartMs = Math.abs(newest.cutAtMs - itsSource.cutAtMs);
  assert.ok(apartMs < 1000, `its age counts from the first site's cut; ${apartMs} ms apart on one host`);
  const { replica: atLast } = await eastApi.call('vm.show', BOX);
  for (const { skewMs } of [newest, itsSource, atLast!.newest!]) {
    assert.ok(Math.abs(skewMs! - AHEAD_MS) < 2000, `${skewMs} ms`);
  }
  assert.ok(newest.cutAtMs <= newest.publishedAtMs! && newest.cutAtMs > beganMs);
  assert.ok(atLast!.rpo.actualMs! < 60_000, `${atLast!.rpo.actualMs} ms`);
  const bytes = there.slice(1).reduce((sum, { receivedBytes = 0 }) => sum + receivedBytes, 0);
  const sent = await homeApi.call('site.peers');
  context.diagnostic(
    `the third site has the points ${sequences} and the second ${kept.map(({ sequence }) => sequence)}; ${bytes} bytes after the first point, of a disk of ${DISK_BYTES}; the first site knows ${sent.map(({ name }) => name)}`,
  );
  assert.ok(bytes < 4 * MIB, `${bytes} bytes`);
  assert.deepEqual(
    sent.map(({ name }) => name),
    ['away'],
  );
  await resultOf(
    eastApi,
    await eastApi.call('point.verify', { params: { machine: 'box', point: 'latest' } }),
  );

  await assert.rejects(awayApi.call('replica.remove', BOX), { code: 'REPLICA_FORWARDED' });
  await pair(homeApi, eastApi);
  const blocked = home.next((event) => event.event === 'alert' && event.alert.code !== 'SITE_CLOCK_SKEW');
  await homeApi.call('target.add', { ...BOX, body: { target: 'east' } });
  await blocked;
  const alerts = await homeApi.call('alert.list', { query: {} });
  assert.deepEqual(
    alerts.map(({ code }) => code).filter((code) => code !== 'SITE_CLOCK_SKEW'),
    ['REPLICATION_COMES_FORWARDED'],
    'the one way or the other, never both',
  );
  const params = { machine: 'box', target: 'east' };
  const { replica: ended } = await awayApi.call('replica.unforward', { params });
  assert.equal(ended!.forwards, undefined);
});
