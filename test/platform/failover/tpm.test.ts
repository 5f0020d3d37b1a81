/** Machines with a TPM: what it holds belongs to the instant of the cut, and each branch has its own. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildLabGuest, copyLabGuest } from '../../../lab/index.ts';
import { adoptedRecord } from '../../../src/control/machines/new-machine.ts';
import { branchTpmDirectory } from '../../../src/failover/branch-tpm.ts';
import { runPaths } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { ProtectedLayout, ProtectedMachine } from '../../../src/replication/index.ts';
import { failoversOf, inGuest, running } from '../../support/failover-site.ts';
import { BY_HAND, copyAndSend } from '../../support/lab-sites.ts';
import { labDisks, twoSites } from '../../support/two-sites.ts';

/** How many processes emulate the TPM that is talked to at a socket. */
async function emulatorsOf(path: string): Promise<number> {
  const { stdout } = await runCommand('pgrep', ['-fc', `^swtpm socket .*path=${path} `], { allowExit: [1] });
  return Number(stdout);
}

const CONFIRMED = { confirmedOtherSideDown: true } as const;

test('F8 what the guest has written into its TPM before the cut is what the recovered guest reads, and a branch has its own', async (t) => {
  const sites = await twoSites(t);
  const guest = await copyLabGuest(await buildLabGuest(), sites.directory);
  const tpmDirectory = join(sites.directory, 'tpm');
  const machine = await sites.addMachine(labDisks(guest), [], tpmDirectory);
  await machine.start();
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const { sockets } = machine.record;
  await inGuest(sockets, 'tpmtool write 1 before');
  const { pointId } = await copyAndSend(machine, sites.target, 'app');
  await inGuest(sockets, 'tpmtool write 2 after');
  const { pointId: later } = await copyAndSend(machine, sites.target);

  const replica = sites.replicas.list()[0]!;
  const { tpm, consistency, pauseMs, degraded } = replica.point(pointId).statement;
  assert.equal(degraded, undefined);
  assert.equal(consistency, 'application');
  assert.equal(tpm?.captured, 'paused');
  assert.ok(tpm.pauseMs > 0 && tpm.pauseMs <= pauseMs, `${tpm.pauseMs} of ${pauseMs}`);
  const { tpmState } = replica.point(pointId).manifest.signed;
  assert.ok(tpmState);
  const bytes = tpm.sizeBytes;
  t.diagnostic(`${bytes} bytes of TPM, for which the guest stood still for ${tpm.pauseMs.toFixed(1)} ms`);
  const { tpm: ofLater } = replica.point(later).statement;
  assert.notEqual(ofLater?.sha256, tpm.sha256);
  await machine.running!.quit();
  await machine.attach();
  const { cutId } = await machine.cut('crash');
  const off = machine.cuts.find((cut) => cut.cutId === cutId)?.tpm;
  assert.equal(off?.captured, 'stopped');

  const { failovers, tools } = await failoversOf(t, sites);
  const report = await failovers.start(replica, { pointId }, CONFIRMED);
  const branchId = running(report);
  const branchSockets = runPaths(join(tools.runDirectory, branchId));
  assert.equal(await inGuest(branchSockets, 'tpmtool read 1'), 'before');
  await assert.rejects(inGuest(branchSockets, 'tpmtool read 2'), /the TPM answered/);
  await inGuest(branchSockets, 'tpmtool write 3 branch');
  const own = await readFile(join(branchTpmDirectory(replica, branchId), 'tpm2-00.permall'));
  assert.notEqual(own.toString('base64'), tpmState);
  assert.equal(replica.point(pointId).manifest.signed.tpmState, tpmState, 'the point has not changed');

  assert.equal(await emulatorsOf(branchSockets.tpmPath), 1);
  await failovers.stop(replica, branchId, { graceMs: 0 });
  assert.equal(await emulatorsOf(branchSockets.tpmPath), 0, 'its emulator ends with it');
  const again = await failovers.restart(replica, branchId);
  assert.equal(await inGuest(runPaths(join(tools.runDirectory, running(again))), 'tpmtool read 3'), 'branch');

  const home = await failovers.adopt(replica, branchId, {
    check: () => undefined,
    create: async (adopted) => {
      const layout = new ProtectedLayout(join(sites.directory, 'home'), adopted.machineId);
      const record = adoptedRecord(adopted, systemClock.wallMs());
      return ProtectedMachine.create(sites.protectedTools, layout, record);
    },
  });
  t.after(() => home.release());
  await home.attach();
  await home.protect({ ...BY_HAND, targetSiteId: newId(systemClock, systemRandom) });
  const { tpm: atHome } = await home.cut('crash');
  assert.equal(atHome?.captured, 'paused', 'it goes on where it has come up');
  const kept = await readFile(join(branchTpmDirectory(replica, branchId), 'tpm2-00.permall'));
  assert.equal(atHome.state, kept.toString('base64'));
});
