/** A machine that is started on other disks than the recorded ones must cost neither of the two states. */
import assert from 'node:assert/strict';
import { readdir, readFile, rename } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { type LabMachine, LedgerPort, startLabMachine } from '../../../lab/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { REPLICATION_ERRORS } from '../../../src/replication/errors.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { startBootedLabMachine } from '../../support/booted-guest.ts';
import { assertLedger, BY_HAND, copyAndSend, sendAll, socketsOf } from '../../support/lab-sites.ts';
import { type TwoSites, twoSites } from '../../support/two-sites.ts';

/** An attached machine whose guest has run for a while, with one copy sent and another one waiting. */
async function protectedForAWhile(t: TestContext) {
  const sites = await twoSites(t);
  const lab = await startBootedLabMachine(sites.directory);
  t.after(() => lab.stop());
  const machine = await sites.adoptMachine(socketsOf(lab));
  await machine.attach();
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const ledger = await LedgerPort.connect({ path: lab.ledgerPath, clock: systemClock });
  await ledger.reached(20, 60_000);
  await copyAndSend(machine, sites.target);
  await ledger.next();
  await copyAndSend(machine, sites.target);
  await ledger.next();
  await machine.cut('crash');
  await ledger.next();
  ledger.close();
  return { sites, lab, machine };
}

async function stopped(machine: ProtectedMachine, lab: LabMachine): Promise<void> {
  const gone = machine.running!.gone;
  await lab.kill();
  await gone;
  assert.equal((await machine.attach()).state, 'stopped');
}

async function startedOn(
  t: TestContext,
  sites: TwoSites,
  disks: readonly { path: string; format: 'qcow2' | 'raw' }[],
  extraArgs: string[] = [],
): Promise<LabMachine> {
  const lab = await startLabMachine({
    directory: sites.directory,
    disks: disks.map(({ path, format }, index) => ({ name: ['system', 'data'][index]!, path, format })),
    extraArgs,
  });
  t.after(() => lab.stop());
  return lab;
}

test('S0.11 a machine restarted on its recorded tips goes on incrementally', async (t) => {
  const { sites, lab, machine } = await protectedForAWhile(t);
  await stopped(machine, lab);
  const tips = machine.record.disks.map(({ diskId }) => machine.chain(diskId).at(-1)!);
  const again = await startedOn(t, sites, tips);
  assert.equal((await machine.attach()).state, 'running');
  const ledger = await LedgerPort.connect({ path: again.ledgerPath, clock: systemClock });
  t.after(() => ledger.close());
  await ledger.next(60_000);
  await machine.cut('app');
  const wireBytes = await sendAll(machine, sites.target);
  assert.ok(wireBytes < 8 * 1024 * 1024, `${wireBytes} bytes after a restart`);
  const replica = sites.replicas.need(machine.record.machineId);
  assert.equal(replica.points.length, 4);
});

test('S0.11 a machine started from its original files is stale: nothing is cut, sent or merged, both states are kept', async (t) => {
  const { sites, lab, machine } = await protectedForAWhile(t);
  await stopped(machine, lab);
  const origins = machine.record.disks.map(({ chain }) => chain.at(-1)!);
  const tips = machine.record.disks.map(({ diskId }) => machine.chain(diskId).at(-1)!);
  const layers = new Map<string, Buffer>();
  for (const { diskId } of machine.record.disks)
    for (const { path } of machine.chain(diskId).slice(1)) layers.set(path, await readFile(path));

  const outside = await startedOn(t, sites, origins);
  const presence = await machine.attach();
  assert.equal(presence.state, 'stale');
  assert.match(
    presence.state === 'stale' ? presence.reason : '',
    /runs on .*system.qcow2, not on .*\/disks\/disk0\//,
  );
  assert.match(REPLICATION_ERRORS.PROTECTION_STALE_BASE.remedy, /start it from the tip/);
  const ledger = await LedgerPort.connect({ path: outside.ledgerPath, clock: systemClock });
  const { seq: promised } = await ledger.next(60_000);
  ledger.close();
  const refusesAll = async () => {
    const code = 'PROTECTION_STALE_BASE';
    await assert.rejects(machine.cut('crash'), { code });
    await assert.rejects(machine.replicate(sites.target), { code });
    await assert.rejects(machine.unprotect(), { code });
  };
  await refusesAll();
  assert.ok(sites.log.events.some(({ event }) => event === 'machine.stale-base'));

  // It is remembered when the machine has stopped, and by another process, because the files were written.
  const gone = machine.running!.gone;
  await outside.kill();
  await gone;
  await refusesAll();
  assert.equal((await machine.attach()).state, 'stale');
  const inside = await startedOn(t, sites, tips, ['-S']);
  assert.equal((await machine.attach()).state, 'stale');
  await refusesAll();
  await inside.stop();

  for (const [path, bytes] of layers) assert.ok((await readFile(path)).equals(bytes), `${path} was changed`);
  assert.equal(sites.replicas.need(machine.record.machineId).points.length, 2);
  assert.equal(machine.targets[0]!.unsent.length, 1);
  // What the machine wrote outside is whole, too: its ledger goes on without a gap.
  const outsideOf = (disk: 'system' | 'data') => [origins[disk === 'system' ? 0 : 1]!];
  await assertLedger(sites.protectedTools.images, outsideOf, promised);

  // The way out, when a person has decided for what the owner's files hold: the layers are kept, and nothing goes into the files.
  await machine.attach();
  await machine.unprotectKeepingOrigin();
  assert.equal(machine.presence.state, 'stopped');
  assert.equal(machine.record.protection, null);
  await assertLedger(sites.protectedTools.images, outsideOf, promised);
  const kept = await readdir(machine.layout.directory);
  const aside = kept.find((name) => name.startsWith('set-aside-'));
  assert.ok(aside, kept.join(' '));
  for (const [path, bytes] of layers) {
    const moved = path.replace('/disks/', `/${aside}/`);
    assert.ok((await readFile(moved)).equals(bytes), `${moved} is not the layer that was given up`);
  }
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  assert.equal(machine.targets[0]!.unsent.length, 0);
});

test('S0.11 a machine that was only loaded from its original files and wrote nothing is taken back', async (t) => {
  const { sites, lab, machine } = await protectedForAWhile(t);
  await stopped(machine, lab);
  const tips = machine.record.disks.map(({ diskId }) => machine.chain(diskId).at(-1)!);
  const outside = await startLabMachine({
    directory: sites.directory,
    disks: machine.record.disks.map(({ chain }, index) => ({ name: `d${index}`, ...chain.at(-1)! })),
  });
  t.after(() => outside.stop());
  await outside.execute('stop');
  assert.equal((await machine.attach()).state, 'stale');
  await outside.stop();
  await startedOn(t, sites, tips);
  assert.equal((await machine.attach()).state, 'running');
  assert.equal(machine.record.suspect, undefined);
  await copyAndSend(machine, sites.target);
  assert.equal(sites.replicas.need(machine.record.machineId).points.length, 4);
});

test('S0.11 layers are never given up while a process runs on them, reachable or not', async (t) => {
  const { sites, lab, machine } = await protectedForAWhile(t);
  await stopped(machine, lab);
  const origins = machine.record.disks.map(({ chain }) => chain.at(-1)!);
  const tips = machine.record.disks.map(({ diskId }) => machine.chain(diskId).at(-1)!);
  const outside = await startedOn(t, sites, origins);
  assert.equal((await machine.attach()).state, 'stale');
  const ledger = await LedgerPort.connect({ path: outside.ledgerPath, clock: systemClock });
  await ledger.next(60_000);
  ledger.close();
  const gone = machine.running!.gone;
  await outside.kill();
  await gone;
  const inside = await startedOn(t, sites, tips, ['-S']);
  const refuses = async (state: string) => {
    await assert.rejects(machine.unprotectKeepingOrigin(), { code: 'PROTECTION_EXISTS' });
    assert.equal(machine.presence.state, state);
    assert.equal(machine.record.dissolving, undefined);
  };
  await refuses('stale');

  await machine.release();
  {
    await using _other = await QmpClient.connect({ path: inside.qmpPath, clock: systemClock });
    await refuses('unreachable');
  }
  await rename(inside.qmpPath, `${inside.qmpPath}.away`);
  await refuses('unreachable');
  await rename(`${inside.qmpPath}.away`, inside.qmpPath);
  await refuses('stale');

  await inside.stop();
  await machine.unprotectKeepingOrigin();
  assert.equal(machine.record.protection, null);
});
