import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import type { ImageFile } from '../../../src/hypervisor/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { MISSED_MAX } from '../../../src/replication/missed.ts';
import { bytesOf } from '../../support/image-bytes.ts';
import { assertLedger, BY_HAND, copyAndSend, labSites, sendAll } from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { twoSites } from '../../support/two-sites.ts';

it('S0.11 S0.14 while nobody acknowledges, the chain stays short, points are missed on record, and nothing is lost', {
  timeout: sizedLimitMs({ normal: 300_000, full: 3_600_000 }),
}, async (t) => {
  const { machine, sites, ledger, replica } = await labSites(t);
  const port = await ledger();
  await port.reached(20, 60_000);
  const first = await copyAndSend(machine, sites.target);
  const cuts = sized({ what: 'S0.11: cuts while the link is down', normal: 25, full: 2000 });
  const made: string[] = [];
  for (let i = 0; i < cuts; i++) {
    made.push((await machine.cut('crash')).cutId);
    if (i % 10 === 0) await port.next();
    for (const disk of await machine.running!.disks())
      assert.ok(disk.chain.length <= 10, `${disk.chain.length} files after ${i + 1} cuts`);
  }
  for (const { diskId } of machine.record.disks) {
    const layers = (await sites.protectedTools.files.list(machine.layout.disk(diskId)))!;
    assert.ok(layers.length <= 9, `${layers.length} layers on disk`);
  }
  const promised = port.last!.seq;
  made.push((await machine.cut('crash')).cutId);
  const wireBytes = await sendAll(machine, sites.target);
  t.diagnostic(`${wireBytes} bytes for ${made.length} cuts`);
  assert.ok(wireBytes < 48 * 1024 * 1024, `${wireBytes} bytes`);

  const sent = replica().points.map(({ statement }) => statement);
  assert.equal(sent[0]!.pointId, first.pointId);
  // Each cut is a point or is named as missed by the one that carries its changes, in order; beyond a thousand the oldest are counted.
  let told = 0;
  for (const { pointId, missed } of sent.slice(1)) {
    const counted = Number(/\(as (\d+) before it\)$/.exec(missed[0]?.reason ?? '')?.[1] ?? 0);
    assert.ok(counted === 0 || missed.length === MISSED_MAX, 'none is only counted that could be named');
    told += counted;
    const named = [...missed.map((point) => point.pointId), pointId];
    assert.deepEqual(named, made.slice(told, told + named.length));
    told += named.length;
  }
  assert.equal(told, made.length);
  for (const { pointId } of sent) await verifyPoint(sites.replicaTools, replica(), pointId);
  const newest = sent.at(-1)!.pointId;
  await assertLedger(sites.protectedTools.images, (disk) => replica().chain(newest, disk), promised);
  for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
  assert.equal(await machine.running!.state(), 'running');
});

it('S0.11 S0.14 layers that are joined while the machine is off keep what lies below them', async (t) => {
  const sizeBytes = 4 * 1024 * 1024;
  const sites = await twoSites(t);
  const { images } = sites.protectedTools;
  const path = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(sizeBytes)]);
  const machine = await sites.addMachine([{ diskId: 'disk', path, sizeBytes }]);
  const expected = Buffer.alloc(sizeBytes);
  const write = async (offset: number, length: number, pattern: number) => {
    const tip = machine.chain('disk').at(-1)!;
    const command = pattern === 0 ? 'write -z' : `write -P ${pattern}`;
    await runCommand('qemu-io', ['-f', tip.format, '-c', `${command} ${offset} ${length}`, tip.path]);
    expected.fill(pattern, offset, offset + length);
  };
  const assertReads = async (chain: readonly ImageFile[]) => {
    const isSame = (await bytesOf(images, chain)).equals(expected);
    assert.ok(isSame, 'the chain does not read as it was written');
  };
  await write(0, sizeBytes, 1);
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  await copyAndSend(machine, sites.target);
  // Much less each time than the units in which QEMU's tools copy, so that they must be filled up from below.
  for (let i = 0; i < 14; i++) {
    await write(i * 200_704, 4096, i + 2);
    if (i % 3 === 0) await write(2_000_000 + i * 65_536 - ((2_000_000 + i * 65_536) % 4096), 8192, 0);
    await machine.cut('crash');
    await assertReads(machine.chain('disk'));
  }
  assert.ok(machine.chain('disk').length <= 10, `${machine.chain('disk').length} files`);
  await sendAll(machine, sites.target);
  await assertReads(machine.chain('disk'));
  const [replica] = sites.replicas.list();
  const { pointId } = replica!.newest!.statement;
  await verifyPoint(sites.replicaTools, replica!, pointId);
  await assertReads(replica!.chain(pointId, 'disk'));
});
