import assert from 'node:assert/strict';
import { test } from 'node:test';
import { verifyPoint } from '../../../src/replica/index.ts';
import { assertLedger, copyAndSend, FEW_POINTS, labSites, sendAll } from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

test('S0.14 SIGKILL of QEMU in the middle of a merge costs nothing', LIMIT, async (t) => {
  const lab = await labSites(t);
  const { machine, sites } = lab;
  const ledger = await lab.ledger();
  await ledger.reached(20, 60_000);
  await copyAndSend(machine, sites.target);
  ledger.close();
  const kills = sized({ what: 'S0.14: kills of QEMU in a merge', normal: 2, full: 100 });
  for (let i = 0; i < kills; i++) {
    const port = await lab.ledger();
    const { seq } = await port.next(60_000);
    await machine.cut('crash');
    const pid = machine.running!.processId!;
    const gone = machine.running!.gone;
    const merging = new Promise<void>((resolve) => {
      const end = machine.onEvent(({ name }) => {
        if (name !== 'JOB_STATUS_CHANGE') return;
        end();
        resolve();
      });
    });
    const sending = sendAll(machine, sites.target).catch(() => {
      // It may end with whatever the death of QEMU makes of it; what is left is looked at below.
    });
    await merging;
    process.kill(pid, 'SIGKILL');
    await gone;
    await sending;
    port.close();
    assert.equal((await machine.attach()).state, 'stopped');
    await machine.start();
    const { pointId } = await copyAndSend(machine, sites.target);
    await assertLedger(sites.protectedTools.images, (disk) => lab.replica().chain(pointId, disk), seq);
    await verifyPoint(sites.replicaTools, lab.replica(), pointId);
    await lab.replica().retire(FEW_POINTS, () => false);
    for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
  }
});
