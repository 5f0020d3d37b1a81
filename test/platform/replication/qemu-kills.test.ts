/** QEMU killed at any instant, alone or with the sites' process, or gone by itself; then everything goes on where it was. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { messageOf } from '../../../src/lib/errors.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import {
  assertLedger,
  assertSound,
  assertWholeReplica,
  copyAndSend,
  FEW_POINTS,
  labHistory,
  labSites,
  listedIn,
  sendAll,
} from '../../support/lab-sites.ts';
import type { PointHistory } from '../../support/point-history.ts';
import { SiteLife } from '../../support/site-life.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { openTwoSites, reopenMachine, type TwoSites } from '../../support/two-sites.ts';

const DROP_CACHES = '/proc/sys/vm/drop_caches';
const LIFE_MS_MAX = 1000;
const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

/** Both sites and their machine as they are in the process of this test. */
interface Served {
  readonly sites: TwoSites;
  readonly machine: ProtectedMachine;
}

/**
 * Every other kill takes QEMU and the process of both sites in one instant, as the death of a host does, and drops what the page
 * cache holds clean. What that proves: nothing that is needed to go on is held in the memory of a process, and what has been synced
 * is read back from the disk. What it does not: pages that were written and not synced survive a SIGKILL, so a missing sync is not
 * found here. That is for the simulation, whose power cuts lose, reorder and tear them.
 */
test(
  'S0.11 after SIGKILL of QEMU at any instant, with its site or alone, the next copy is incremental and nothing reported is lost',
  LIMIT,
  async (t) => {
    const lab = await labSites(t);
    let served: Served = lab;
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    const history = labHistory(FEW_POINTS.types.crash);
    const first = await copyAndSend(lab.machine, lab.sites.target, 'crash', history);
    ledger.close();
    const kills = sized({
      what: 'S0.11: kills of QEMU, every other one with its site',
      ...{ normal: 3, full: 200 },
    });
    let held = 0;
    for (let i = 0; i < kills; i++) {
      const port = await lab.ledger();
      if (i % 4 < 2) await port.next(60_000);
      if (i % 2 === 0) {
        await killWhileItCopies(served, history);
      } else {
        await killWithSite(t, served, history);
        // Its end of the port is closed when QEMU has gone.
        await assert.rejects(port.reached(Number.POSITIVE_INFINITY), { code: 'LAB_PORT_CLOSED' });
        t.diagnostic(`clean pages: ${await cachesDropped()}`);
        const sites = await openTwoSites(t, lab.sites.identity);
        served = { sites, machine: await reopenMachine(sites) };
      }
      const promised = Math.max(held, port.last?.seq ?? 0);
      port.close();
      const { machine, sites } = served;
      assert.equal((await machine.attach()).state, 'stopped');
      await assertSound(sites, machine, held, history);
      await machine.start();
      assert.equal(machine.presence.state, 'running');
      await sendAll(machine, sites.target, history);
      const { pointId } = await copyAndSend(machine, sites.target, 'crash', history);
      const [replica] = sites.replicas.list();
      const { images } = sites.protectedTools;
      held = await assertLedger(images, (disk) => replica!.chain(pointId, disk), promised);
      history.lists(listedIn(replica!));
      await replica!.retire(FEW_POINTS, () => false);
    }
    const { machine, sites } = served;
    t.after(() => machine.release());
    const port = await lab.ledger();
    await port.next(60_000);
    t.diagnostic(`${kills} kills, ${history}; the first copy had ${first.wireBytes}`);
    await assertWholeReplica(sites, held, history);
  },
);

test('S0.11 a machine that is off is copied, merged and started again on its chain', LIMIT, async (t) => {
  const lab = await labSites(t);
  const { machine, sites } = lab;
  const ledger = await lab.ledger();
  await ledger.reached(20, 60_000);
  const history = labHistory();
  await copyAndSend(machine, sites.target, 'crash', history);
  await ledger.next();
  const gone = machine.running!.gone;
  await machine.running!.pressPowerButton();
  await gone;
  const promised = ledger.last!.seq;
  assert.equal((await machine.attach()).state, 'stopped');
  assert.equal(await machine.hasUncutChanges(), true);
  const { pointId } = await copyAndSend(machine, sites.target, 'crash', history);
  assert.equal(await machine.hasUncutChanges(), false);
  const { images } = sites.protectedTools;
  await assertLedger(images, (disk) => lab.replica().chain(pointId, disk), promised);
  await copyAndSend(machine, sites.target, 'crash', history);
  for (const { diskId } of machine.record.disks) assert.ok(machine.chain(diskId).length <= 3);
  await machine.start();
  ledger.close();
  const port = await lab.ledger();
  const { seq } = await port.next(60_000);
  assert.ok(seq > promised);
  const last = await copyAndSend(machine, sites.target, 'crash', history);
  await assertLedger(images, (disk) => lab.replica().chain(last.pointId, disk), seq);
  await assertWholeReplica(sites, seq, history);
});

/** Copies as fast as it goes and kills QEMU in the middle of that. */
async function killWhileItCopies({ machine, sites }: Served, history: PointHistory): Promise<void> {
  const { gone, processId } = machine.running!;
  let isGone = false;
  void gone.then(() => {
    isGone = true;
  });
  const copying = (async () => {
    while (!isGone) {
      await copyAndSend(machine, sites.target, 'crash', history).catch((error: unknown) => {
        // What a copy fails with while its machine dies is of no interest here; what the history finds is.
        if (error instanceof assert.AssertionError) throw error;
      });
    }
  })();
  await sleep(systemClock, randomBelow(systemRandom, LIFE_MS_MAX));
  process.kill(processId!, 'SIGKILL');
  await gone;
  await copying;
}

/** The same with the sites as a process of their own, which is killed as well. */
async function killWithSite(
  t: Parameters<typeof openTwoSites>[0],
  { machine, sites }: Served,
  history: PointHistory,
): Promise<void> {
  const { processId } = machine.running!;
  await machine.release();
  const life = await SiteLife.begin(t, sites, history);
  await sleep(systemClock, randomBelow(systemRandom, LIFE_MS_MAX));
  const killed = life.kill();
  process.kill(processId!, 'SIGKILL');
  await killed;
}

/** Drops clean pages of the whole host, where the tests may do so. */
async function cachesDropped(): Promise<string> {
  try {
    await writeFile(DROP_CACHES, '1');
    return 'dropped';
  } catch (error) {
    return `not dropped: ${messageOf(error)}`;
  }
}
