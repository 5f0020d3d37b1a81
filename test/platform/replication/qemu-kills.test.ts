/** QEMU killed at any instant, or gone by itself; then everything goes on where it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import {
  assertLedger,
  assertWholeReplica,
  copyAndSend,
  FEW_POINTS,
  INCREMENT_BYTES_MAX,
  labSites,
  sendAll,
} from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import type { TwoSites } from '../../support/two-sites.ts';

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

test(
  'S0.11 after SIGKILL of QEMU at any instant the next copy is incremental and nothing reported is lost',
  LIMIT,
  async (t) => {
    const lab = await labSites(t);
    const { machine, sites } = lab;
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    await copyAndSend(machine, sites.target);
    ledger.close();
    const kills = sized({ what: 'S0.11: kills of QEMU', normal: 3, full: 200 });
    let promised = 0;
    for (let i = 0; i < kills; i++) {
      const port = await lab.ledger();
      const gone = machine.running!.gone;
      const cutting = cutsUntilGone(lab.machine, sites.target);
      if (i % 2 === 0) await port.next(60_000);
      await sleep(systemClock, randomBelow(systemRandom, 1000));
      process.kill(machine.running!.processId!, 'SIGKILL');
      await gone;
      await cutting;
      promised = Math.max(promised, port.last?.seq ?? 0);
      port.close();
      assert.equal((await machine.attach()).state, 'stopped');
      await machine.start();
      assert.equal(machine.presence.state, 'running');
      await sendAll(machine, sites.target);
      const { pointId, wireBytes } = await copyAndSend(machine, sites.target);
      assert.ok(wireBytes < INCREMENT_BYTES_MAX, `${wireBytes} bytes after a crash`);
      await assertLedger(sites.protectedTools.images, (disk) => lab.replica().chain(pointId, disk), promised);
      await lab.replica().retire(FEW_POINTS, () => false);
    }
    const port = await lab.ledger();
    await port.next(60_000);
    await assertWholeReplica(sites, promised);
  },
);

test('S0.11 a machine that is off is copied, merged and started again on its chain', LIMIT, async (t) => {
  const lab = await labSites(t);
  const { machine, sites } = lab;
  const ledger = await lab.ledger();
  await ledger.reached(20, 60_000);
  await copyAndSend(machine, sites.target);
  await ledger.next();
  const gone = machine.running!.gone;
  await machine.running!.pressPowerButton();
  await gone;
  const promised = ledger.last!.seq;
  assert.equal((await machine.attach()).state, 'stopped');
  assert.equal(await machine.hasUncutChanges(), true);
  const { pointId } = await copyAndSend(machine, sites.target);
  assert.equal(await machine.hasUncutChanges(), false);
  const { images } = sites.protectedTools;
  await assertLedger(images, (disk) => lab.replica().chain(pointId, disk), promised);
  await copyAndSend(machine, sites.target);
  for (const { diskId } of machine.record.disks) assert.ok(machine.chain(diskId).length <= 3);
  await machine.start();
  ledger.close();
  const port = await lab.ledger();
  const { seq } = await port.next(60_000);
  assert.ok(seq > promised);
  const last = await copyAndSend(machine, sites.target);
  await assertLedger(images, (disk) => lab.replica().chain(last.pointId, disk), seq);
  await assertWholeReplica(sites, seq);
});

/** Copies as fast as it goes. A machine that dies ends it; what that fails with is of no interest here. */
async function cutsUntilGone(
  machine: Parameters<typeof copyAndSend>[0],
  target: TwoSites['target'],
): Promise<void> {
  let isGone = false;
  void machine.running!.gone.then(() => {
    isGone = true;
  });
  while (!isGone) {
    await copyAndSend(machine, target).catch(() => {
      // What a copy fails with while its machine dies is of no interest here.
    });
  }
}
