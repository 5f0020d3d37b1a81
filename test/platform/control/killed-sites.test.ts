/** Two sites as processes of their own, paired over the wire; one of them at a time is killed at any instant. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LedgerPort, type LedgerReport } from '../../../lab/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import { Replicas, verifyPoint } from '../../../src/replica/index.ts';
import { ReplicaLayout } from '../../../src/replica/layout.ts';
import { loadPoints } from '../../../src/replica/loading.ts';
import { ProtectedLayout } from '../../../src/replication/index.ts';
import type { TestApi } from '../../support/api.ts';
import { killablePair } from '../../support/killable-site.ts';
import { assertLedger, labHistory, ledgerOf, listedIn } from '../../support/lab-sites.ts';
import { BOX, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import type { PointHistory } from '../../support/point-history.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { assertSoundLayers, chainInHeaders, layersIn } from '../../support/sound-layers.ts';

const LIFE_MS_MAX = 2500;
const POINT_LIMIT_MS = 60_000;
/** More than are made from one look at the points to the next. */
const KEEPS = 12;
const READS_MAX = 50;
const READ_AGAIN_MS = 100;

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

/** The newest point that a site lists, as soon as it is younger than `sequence`. */
async function pointAfter(api: TestApi, sequence: number): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + POINT_LIMIT_MS;
  for (;;) {
    const machines = await api.call('vm.list');
    const points = machines.length > 0 ? await api.call('point.list', BOX) : [];
    const newest = Math.max(0, ...points.map((point) => point.sequence ?? 0));
    if (newest > sequence) return newest;
    assert.ok(systemClock.monotonicMs() < deadlineMs, `no point after ${sequence} came`);
    await sleep(systemClock, 100);
  }
}

/** What the protected site has been told is safe, and what the recovery site has. */
async function look(history: PointHistory, homeApi: TestApi, awayApi: TestApi): Promise<void> {
  const { protected: shown } = await homeApi.call('vm.show', BOX);
  const acknowledged = shown!.replication?.acknowledged;
  if (acknowledged) history.acknowledged(acknowledged);
  const points = await awayApi.call('point.list', BOX);
  history.lists(
    points.map(({ pointId, sequence, changedBytes, receivedBytes }) => ({
      ...{ pointId, sequence: sequence!, changedBytes: changedBytes!, receivedBytes: receivedBytes! },
    })),
  );
}

/**
 * The newest point in the directory of a recovery site, whether that is dead or alive: its ledger has no gap, and holds what the
 * guest had reported when it was cut. Both sites and this test have one clock.
 */
async function assertNewest(
  images: QemuImages,
  layout: ReplicaLayout,
  promisedAt: (wallMs: number) => number,
): Promise<void> {
  const { statement, ledger } = await readNewest(images, layout);
  assert.ok(ledger.contiguous, `the ledger is torn: ${JSON.stringify(ledger)}`);
  assert.ok(ledger.last >= promisedAt(statement.cutAtMs), `point ${statement.sequence}: ${ledger.last}`);
}

/** Again while retention is at work there, which renames layers and locks them for writing. */
async function readNewest(images: QemuImages, layout: ReplicaLayout) {
  for (let tries = 1; ; tries++) {
    try {
      const { statement } = (await loadPoints(nodeFiles, layout)).at(-1)!;
      const [system, data] = await Promise.all(
        ['disk0', 'disk1'].map((disk) => chainInHeaders(layout.layer(disk, statement.pointId))),
      );
      const chains = { system: system!, data: data! };
      return { statement, ledger: await ledgerOf(images, (disk) => chains[disk]) };
    } catch (error) {
      if (!isFailure(error) || tries === READS_MAX) throw error;
      await sleep(systemClock, READ_AGAIN_MS);
    }
  }
}

test(
  'S0.10 either site goes on where it was when its process alone is killed at any instant',
  LIMIT,
  async (context) => {
    const { t, directory, home, away, ...apis } = await killablePair(context);
    let { homeApi, awayApi } = apis;

    const { lab, attach } = await someonesMachine(t, directory);
    const ledger = await LedgerPort.connect({ path: lab.ledgerPath, clock: systemClock });
    t.after(() => ledger.close());
    const reports: LedgerReport[] = [];
    ledger.subscribe((report) => reports.push(report));
    const promisedAt = (wallMs: number) =>
      reports.findLast(({ hostWallMs }) => hostWallMs < wallMs)?.seq ?? 0;
    const { machineId } = await homeApi.call('vm.add', { body: { attach } });
    const retention = { types: { crash: KEEPS, app: 2 } };
    await homeApi.call('vm.protect', { ...BOX, body: { every: { crash: 500 }, retention } });
    await pointAfter(awayApi, 0);

    const images = new QemuImages({ clock: systemClock });
    const replicated = new ReplicaLayout(away.dataDirectory, machineId);
    const origins = lab.disks.map(({ path }) => path);
    const history = labHistory(KEEPS);
    const kills = sized({ what: 'S0.10: kills of one site process', normal: 4, full: 200 });
    for (let i = 0; i < kills; i++) {
      const victim = i % 2 === 0 ? away : home;
      // Every other time of each it has gone on with something when it is killed.
      if (i % 4 < 2) await pointAfter(awayApi, history.newest);
      await sleep(systemClock, randomBelow(systemRandom, LIFE_MS_MAX));
      await look(history, homeApi, awayApi);
      await victim.end('SIGKILL');
      // The guest was never asked to wait for any of this.
      await ledger.next();
      const own =
        victim === away
          ? await layersIn(replicated.directory)
          : [...(await layersIn(new ProtectedLayout(home.dataDirectory, machineId).directory)), ...origins];
      await assertSoundLayers(own);
      await assertNewest(images, replicated, promisedAt);
      const api = await victim.serve();
      if (victim === away) awayApi = api;
      else homeApi = api;
      await look(history, homeApi, awayApi);
    }
    const promised = ledger.last!.seq;
    const copied = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in copied && copied.job);
    await resultOf(homeApi, copied.job);
    await look(history, homeApi, awayApi);

    const { protected: shown } = await homeApi.call('vm.show', BOX);
    for (const { chain } of shown!.disks) assert.ok(chain.length <= 10, 'the protected chain stays short');

    await home.end('SIGTERM');
    await away.end('SIGTERM');
    const tools = {
      ...{ files: nodeFiles, images, clock: systemClock, log: silentLog },
      zones: new Zones(),
      isSignedBySource: () => true,
    };
    const replicas = await Replicas.open(tools, away.dataDirectory);
    assert.deepEqual(replicas.broken, []);
    const [replica] = replicas.list();
    history.lists(listedIn(replica!));
    history.assertWithoutGap();
    context.diagnostic(`${kills} kills, ${history}`);
    let held = 0;
    for (const { statement } of replica!.points) {
      await verifyPoint(tools, replica!, statement.pointId);
      const chainOf = (disk: string) =>
        replica!.chain(statement.pointId, disk === 'system' ? 'disk0' : 'disk1');
      held = await assertLedger(images, chainOf, Math.max(held, promisedAt(statement.cutAtMs)));
    }
    assert.ok(held >= promised, `the newest point ends with ${held}, ${promised} were promised`);
  },
);
