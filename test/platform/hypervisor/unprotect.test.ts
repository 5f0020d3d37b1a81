/** The end of a protection: the owner's files alone hold everything again, whatever interrupts it. */
import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { assertLedger, type LabSites, labSites } from '../../support/lab-sites.ts';
import { reopenMachine } from '../../support/two-sites.ts';

/** Two cuts that no target has acknowledged, so that there is something to give back. */
async function withTwoCuts(t: TestContext) {
  const lab = await labSites(t);
  const ledger = await lab.ledger();
  await ledger.reached(20, 60_000);
  await lab.machine.cut('crash');
  await ledger.next();
  await lab.machine.cut('crash');
  await ledger.next();
  return { ...lab, port: ledger };
}

async function assertGivenBack({ sites }: LabSites, machine: ProtectedMachine, promised: number) {
  const originOf = (disk: 'system' | 'data') =>
    machine.record.disks.find(({ diskId }) => diskId === disk)!.chain;
  for (const { diskId, chain } of machine.record.disks) {
    const { path } = chain.at(-1)!;
    await runCommand('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
    const { stdout } = await runCommand('qemu-img', ['info', '-f', 'qcow2', '--output=json', path]);
    assert.equal(JSON.parse(stdout)['backing-filename'], undefined);
    assert.deepEqual(machine.chain(diskId), chain);
    await assert.rejects(access(machine.layout.disk(diskId)), { code: 'ENOENT' });
  }
  assert.equal(machine.record.protection, null);
  await assertLedger(sites.protectedTools.images, originOf, promised);
}

test('a machine that is off gets everything back into its own files', async (t) => {
  const lab = await withTwoCuts(t);
  const { machine } = lab;
  const promised = lab.port.last!.seq;
  await machine.running!.quit();
  assert.equal((await machine.attach()).state, 'stopped');
  const { protection } = machine.record;
  await machine.unprotect();
  await assertGivenBack(lab, machine, promised);
  await machine.protect(protection!);
  assert.equal((await machine.cut('crash')).state, 'sealed', 'it can be protected again');
});

test('giving back that was interrupted in QEMU is ended by the next process', async (t) => {
  const lab = await withTwoCuts(t);
  const { machine, sites } = lab;
  const { deviceName, chain } = machine.record.disks[0]!;
  await machine.release();
  // As a process does that dies between the beginning of the job and its completion.
  const qmp = await QmpClient.connect({ path: machine.record.sockets.qmpPath, clock: systemClock });
  const nodes = await qmp.execute<{ drv: string; file: string; 'node-name': string }[]>(
    'query-named-block-nodes',
    { flat: true },
  );
  const node = (path: string) =>
    nodes.find(({ drv, file }) => drv === 'qcow2' && file.includes(path))!['node-name'];
  const tip = node(machine.chain('system').at(-1)!.path);
  const ready = qmp.expectEvent(({ event }) => event === 'BLOCK_JOB_READY', { timeoutMs: 20_000 });
  await qmp.execute('block-commit', {
    'job-id': `warmsite-commit-${deviceName.replace(/[^A-Za-z0-9]+/g, '-')}`,
    device: tip,
    'top-node': tip,
    'base-node': node(chain.at(-1)!.path),
  });
  await ready;
  await qmp.close();

  const again = await reopenMachine(sites);
  t.after(() => again.release());
  assert.equal((await again.attach()).state, 'running');
  await again.unprotect();
  const { seq } = await lab.port.next();
  const disks = await again.running!.disks();
  assert.deepEqual(
    disks.map((disk) => disk.chain.length),
    [1, 1],
  );
  assert.equal(await again.running!.state(), 'running');
  await again.running!.quit();
  await assertGivenBack(lab, again, seq);
});

test('no node of ours is left in QEMU after a protection', async (t) => {
  const { machine, port } = await withTwoCuts(t);
  await machine.unprotect();
  await port.next();
  const { qmpPath } = machine.record.sockets;
  await machine.release();
  await using qmp = await QmpClient.connect({ path: qmpPath, clock: systemClock });
  const nodes = await qmp.execute<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true });
  assert.deepEqual(
    nodes.filter((node) => node['node-name'].startsWith('warmsite-')),
    [],
  );
});
