/** Machines that somebody else started, in the ways in which people start them. */
import assert from 'node:assert/strict';
import { readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { buildLabGuest, type LabMachine, LedgerPort, startLabMachine } from '../../../lab/index.ts';
import type { ImageFile } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { startBootedLabMachine } from '../../support/booted-guest.ts';
import { bytesOf } from '../../support/image-bytes.ts';
import { assertLedger, BY_HAND, copyAndSend, inGuest, socketsOf } from '../../support/lab-sites.ts';
import { sized } from '../../support/size.ts';
import { type TwoSites, twoSites } from '../../support/two-sites.ts';

type Way = (typeof WAYS)[number];

async function attached(
  t: TestContext,
  way: Way,
): Promise<{ sites: TwoSites; lab: LabMachine; machine: ProtectedMachine }> {
  const sites = await twoSites(t);
  const lab = await startedBySomebody(t, sites.directory, way);
  const machine = await sites.adoptMachine(socketsOf(lab));
  assert.equal((await machine.attach()).state, 'running');
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  return { sites, lab, machine };
}

async function startedBySomebody(t: TestContext, directory: string, way: Way): Promise<LabMachine> {
  const guest = await buildLabGuest();
  const machineOf = async () => {
    if (way === 'blockdev qcow2') return startBootedLabMachine(directory);
    const drives: string[] = [];
    for (const [name, master] of [
      ['system', guest.systemDisk],
      ['data', guest.dataDisk],
    ] as const) {
      const format = way === 'drive raw' ? 'raw' : 'qcow2';
      const path = join(directory, `${name}.${format}`);
      await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', format, master, path]);
      drives.push('-drive', `if=virtio,format=${format},file=${path}`);
    }
    return startLabMachine({ directory, disks: [], extraArgs: drives });
  };
  const lab = await machineOf();
  t.after(() => lab.stop());
  return lab;
}

const DISK_IDS = { system: 'disk0', data: 'disk1' } as const;

const WAYS = ['blockdev qcow2', 'drive raw', 'drive qcow2'] as const;
const ways = sized({ what: 'S0.2: ways in which somebody starts a machine', normal: 2, full: WAYS.length });

for (const way of WAYS.slice(0, ways)) {
  test(`S0.2 a machine with ${way} disks is attached to, cut, replicated, merged and given back`, async (t) => {
    const { sites, lab, machine } = await attached(t, way);
    const origins = machine.record.disks.map(({ chain }) => chain.at(-1)!);
    const format = way === 'drive raw' ? 'raw' : 'qcow2';
    assert.deepEqual(
      origins.map((image) => image.format),
      [format, format],
    );
    const { configuration } = machine.record;
    assert.deepEqual([configuration.chipset, configuration.firmware, configuration.cpus], ['q35', 'bios', 1]);
    assert.deepEqual(
      configuration.disks.map(({ bus }) => bus),
      ['virtio-blk', 'virtio-blk'],
    );
    assert.ok(configuration.guestAgent);
    const ledger = await LedgerPort.connect({ path: lab.ledgerPath, clock: systemClock });
    t.after(() => ledger.close());
    await ledger.reached(20, 60_000);
    for (const type of ['crash', 'app', 'crash', 'crash']) {
      const promised = ledger.last!.seq;
      const { pointId } = await copyAndSend(machine, sites.target, type);
      const replica = sites.replicas.need(machine.record.machineId);
      await verifyPoint(sites.replicaTools, replica, pointId);
      assert.equal(replica.point(pointId).statement.consistency, type === 'app' ? 'application' : 'crash');
      await assertLedger(
        sites.protectedTools.images,
        (disk) => replica.chain(pointId, DISK_IDS[disk]),
        promised,
      );
      await ledger.reached(promised + 20);
    }
    for (const { chain } of await machine.running!.disks()) assert.ok(chain.length <= 3);
    assert.equal(await machine.running!.state(), 'running');

    await machine.unprotect();
    const tips = (await machine.running!.disks()).map(({ chain }) => chain);
    assert.deepEqual(
      tips,
      origins.map((origin) => [origin]),
    );
    await ledger.next();
    await inGuest(lab.agentPath, 'echo kept > /data/kept; sync');
    const promised = ledger.last!.seq;
    await lab.stop();
    await rename(join(sites.directory, 'p'), join(sites.directory, 'gone'));
    for (const { path } of origins) {
      const { stdout } = await runCommand('qemu-img', ['info', '-f', format, '--output=json', path]);
      assert.equal(JSON.parse(stdout)['backing-filename'], undefined);
      if (format === 'qcow2') await runCommand('qemu-img', ['check', '-q', '-f', format, path]);
    }
    await assertLedger(
      sites.protectedTools.images,
      (disk) => [origins[disk === 'system' ? 0 : 1]!],
      promised,
    );
  });
}

test('S0.2 S0.14 a disk upon a base image: while the machine is off, its own file alone is merged into', async (t) => {
  const sizeBytes = 4 * 1024 * 1024;
  const sites = await twoSites(t);
  const { images } = sites.protectedTools;
  const [base, own] = ['base', 'own'].map((name) => join(sites.directory, `${name}.qcow2`)) as [
    string,
    string,
  ];
  const expected = Buffer.alloc(sizeBytes);
  const write = async (path: string, offset: number, length: number, pattern: number) => {
    const command = `write -P ${pattern} ${offset} ${length}`;
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', command, path]);
    expected.fill(pattern, offset, offset + length);
  };
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', base, String(sizeBytes)]);
  await write(base, 0, sizeBytes, 1);
  const baseBytes = await readFile(base);
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, own]);
  await write(own, 1_000_000 - (1_000_000 % 4096), 12_288, 2);

  const extraArgs = ['-drive', `if=virtio,format=qcow2,file=${own}`];
  const lab = await startLabMachine({ directory: sites.directory, disks: [], extraArgs });
  t.after(() => lab.stop());
  const machine = await sites.adoptMachine(socketsOf(lab));
  assert.equal((await machine.attach()).state, 'running');
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  await copyAndSend(machine, sites.target);
  await lab.stop();
  assert.equal((await machine.attach()).state, 'stopped');
  const assertReads = async (chain: readonly ImageFile[]) => {
    const isSame = (await bytesOf(images, chain)).equals(expected);
    assert.ok(isSame, 'the chain does not read as it was written');
  };
  for (let i = 0; i < 4; i++) {
    await write(machine.chain('disk0').at(-1)!.path, i * 401_408, 4096, i + 3);
    const { pointId } = await copyAndSend(machine, sites.target);
    await assertReads(machine.chain('disk0'));
    await assertReads(sites.replicas.need(machine.record.machineId).chain(pointId, 'disk0'));
  }
  assert.deepEqual(
    machine
      .chain('disk0')
      .map(({ path }) => path)
      .slice(0, -1),
    [base, own],
  );
  await machine.unprotect();
  const given = machine.chain('disk0');
  assert.deepEqual(
    given.map(({ path }) => path),
    [base, own],
  );
  await assertReads(given);
  assert.ok((await readFile(base)).equals(baseBytes), 'the base image is not ours to write to');
});

test('a monitor that another client holds is said to be so, after two seconds', async (t) => {
  const sites = await twoSites(t);
  const lab = await startedBySomebody(t, sites.directory, 'blockdev qcow2');
  const machine = await sites.adoptMachine(socketsOf(lab));
  await using other = await QmpClient.connect({ path: lab.qmpPath, clock: systemClock });
  const before = systemClock.monotonicMs();
  const presence = await machine.attach();
  assert.equal(presence.state, 'unreachable');
  assert.match(presence.state === 'unreachable' ? presence.reason : '', /another client holds/);
  const waitedMs = systemClock.monotonicMs() - before;
  assert.ok(waitedMs > 1500 && waitedMs < 4000, `${waitedMs} ms`);
  await other.close();
  assert.equal((await machine.attach()).state, 'running');
});
