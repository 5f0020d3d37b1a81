/** One machine, two recovery sites, three site processes on one host; over the API. */
import assert from 'node:assert/strict';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { FaultProxy } from '../../support/fault-proxy.ts';
import { BOX, copy, machineThatIsOff, pair, pairedSites, resultOf } from '../../support/paired-sites.ts';
import { TestSite } from '../../support/served-sites.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const BASE_BYTES = 16 * MIB;

/** Copies before a site goes down, and while it is: more than it may be behind before it is outrun. */
const [BEFORE, MISSED] = [4, 12];
/** Of the missed ones, so many while the site seems to be there and says nothing. */
const SILENT = 4;
/** Well below every time after which somebody gives up who waits for an answer. */
const COPY_LIMIT_MS = 10_000;

it('S0.29 one of two sites is silent, then down, for many copies: those to the other take as long as ever, the chain stays short, and the first catches up by what changed', {
  timeout: 300_000,
}, async (context) => {
  const { t, directory, home, homeApi, awayApi } = await pairedSites(context);
  const east = await TestSite.init(t, directory, 'east');
  await pair(homeApi, await east.serve());
  const link = await FaultProxy.start(t, east.served.peerAddress);
  await homeApi.call('peer.address', { params: { peer: 'east' }, body: link.address });
  const path = join(directory, 'disk.raw');
  await writeFile(path, systemRandom.bytes(BASE_BYTES));
  await truncate(path, DISK_BYTES);
  await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: DISK_BYTES, format: 'raw' }) });
  const retention = { types: { crash: 100, app: 0 } };
  const ofTarget = { machine: 'box', target: 'east' };
  const stateOf = async (site: string) => {
    const { protected: machine } = await homeApi.call('vm.show', BOX);
    return machine!.replication!.targets.find(({ name }) => name === site)!;
  };
  /** Until the site has the newest copy. */
  const caughtUp = (site: string) =>
    home.until(async () => {
      const state = await stateOf(site);
      return state.acknowledged && state.unsentCuts === 0 ? state : undefined;
    });

  /** A copy that `away` has verified on return; how long it took. */
  const timed = async (round: number) => {
    const beganMs = systemClock.monotonicMs();
    await copy(homeApi, round);
    return Math.round(systemClock.monotonicMs() - beganMs);
  };

  await homeApi.call('vm.protect', {
    ...BOX,
    body: { target: 'away', every: {}, retention, compression: false },
  });
  await assert.rejects(homeApi.call('target.add', { ...BOX, body: { target: 'nowhere' } }), {
    code: 'SITE_PEER_UNKNOWN',
  });
  await copy(homeApi, 1);
  const added = await homeApi.call('target.add', {
    ...BOX,
    body: { target: 'east', retention: { types: { crash: 3, app: 0 } }, bytesPerSecond: 100 * MIB },
  });
  assert.deepEqual(
    added.protected!.protection!.targets.map(({ name, retention: { types } }) => [name, types.crash]),
    [
      ['away', 100],
      ['east', 3],
    ],
  );
  await caughtUp('east');
  const tookMs: number[] = [];
  for (let round = 2; round <= BEFORE; round++) tookMs.push(await timed(round));
  await caughtUp('east');

  // Connections are taken, and nothing ever comes back.
  link.stall();
  let files = 0;
  for (let round = BEFORE + 1; round <= BEFORE + MISSED; round++) {
    if (round === BEFORE + SILENT + 1) {
      link.cutAll();
      await east.close();
    }
    const ms = await timed(round);
    tookMs.push(ms);
    assert.ok(ms < COPY_LIMIT_MS, `copy ${round} took ${ms} ms`);
    const { protected: machine } = await homeApi.call('vm.show', BOX);
    files = Math.max(files, machine!.disks[0]!.chain.length);
  }
  assert.ok(files <= 12, `${files} files in the chain`);
  context.diagnostic(
    `copies took ${tookMs.slice(0, BEFORE - 1)} ms with both sites, ${tookMs.slice(BEFORE - 1, BEFORE - 1 + SILENT)} ms with one silent, ${tookMs.slice(BEFORE - 1 + SILENT)} ms with one down`,
  );
  const behind = await homeApi.call('vm.show', BOX);
  const [worst, best] = behind.protected!.replication!.targets;
  assert.deepEqual([worst!.name, worst!.outrun, best!.name, best!.unsentCuts], ['east', true, 'away', 0]);
  assert.equal(worst!.unsentCuts, MISSED);
  const alerts = async () =>
    (await homeApi.call('alert.list', { query: {} })).filter(({ code }) => code === 'TARGET_OUTRUN');
  assert.equal((await alerts()).length, 1);

  const eastApi = await east.serve();
  const { peerAddress } = await eastApi.call('site.show');
  await homeApi.call('peer.address', {
    params: { peer: 'east' },
    body: { host: '127.0.0.1', port: peerAddress.port },
  });
  await caughtUp('east');
  assert.equal((await alerts()).length, 0);
  const [there, here] = [await eastApi.call('point.list', BOX), await awayApi.call('point.list', BOX)];
  const bytes = there.slice(-3).reduce((sum, { receivedBytes = 0 }) => sum + receivedBytes, 0);
  context.diagnostic(
    `at most ${files} files in the chain; ${bytes} bytes to catch up with ${MISSED} copies, of a disk of ${DISK_BYTES}`,
  );
  assert.ok(bytes < 2 * MIB, `${bytes} bytes`);
  assert.deepEqual([here.length, there.length], [BEFORE + MISSED, 3], 'each keeps what its own policy says');
  assert.equal(there.at(-1)!.pointId, here.at(-1)!.pointId);
  assert.equal(there.at(-1)!.disks![0]!.root, here.at(-1)!.disks![0]!.root);
  for (const api of [eastApi, awayApi]) {
    await resultOf(api, await api.call('point.verify', { params: { machine: 'box', point: 'latest' } }));
  }

  await homeApi.call('target.change', {
    params: ofTarget,
    body: { spacingMs: 3_600_000, bytesPerSecond: null },
  });
  const left = await homeApi.call('target.remove', { params: ofTarget });
  assert.deepEqual(
    left.protected!.replication!.targets.map(({ name }) => name),
    ['away'],
  );
  await copy(homeApi, BEFORE + MISSED + 1);
  assert.equal((await awayApi.call('point.list', BOX)).length, BEFORE + MISSED + 1);
  assert.equal((await eastApi.call('point.list', BOX)).length, 3, 'its points stay');
});
