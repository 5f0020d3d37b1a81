/** Both sites' processes killed at any instant; then everything goes on where it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import {
  assertSound,
  assertWholeReplica,
  copyAndSend,
  FEW_POINTS,
  labHistory,
  labSites,
  listedIn,
  sendAll,
} from '../../support/lab-sites.ts';
import { SiteLife } from '../../support/site-life.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { openTwoSites, reopenMachine } from '../../support/two-sites.ts';

const LIFE_MS_MAX = 2500;
const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

test(
  'S0.10 S0.11 both sites go on where they were when their processes are killed at any instant',
  LIMIT,
  async (t) => {
    const lab = await labSites(t);
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    const history = labHistory(FEW_POINTS.types.crash);
    const first = await copyAndSend(lab.machine, lab.sites.target, 'crash', history);
    history.lists(listedIn(lab.replica()));
    await lab.machine.release();

    const kills = sized({ what: 'S0.10: kills of both site processes', normal: 6, full: 200 });
    let promised = 0;
    for (let i = 0; i < kills; i++) {
      const before = ledger.last!.seq;
      const life = await SiteLife.begin(t, lab.sites, history);
      assert.ok(life.held >= promised, `the newest point holds ${life.held}, ${promised} were promised`);
      await sleep(systemClock, randomBelow(systemRandom, LIFE_MS_MAX));
      const { hasNewCopy } = await life.kill();
      promised = hasNewCopy ? before : promised;
      // The guest was never asked to wait for any of this.
      await ledger.next();
    }

    const sites = await openTwoSites(t, lab.sites.identity);
    const machine = await reopenMachine(sites);
    t.after(() => machine.release());
    assert.equal((await machine.attach()).state, 'running');
    await assertSound(sites, machine, promised, history);
    await sendAll(machine, sites.target, history);
    promised = ledger.last!.seq;
    await copyAndSend(machine, sites.target, 'crash', history);
    t.diagnostic(`${kills} kills, ${history}; the first copy had ${first.wireBytes}`);
    await assertWholeReplica(sites, promised, history);
    for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
    for (const { diskId } of machine.record.disks) {
      const layers = (await sites.protectedTools.files.list(machine.layout.disk(diskId)))!;
      assert.ok(layers.length <= 2, `left over: ${layers.join(' ')}`);
    }
  },
);
