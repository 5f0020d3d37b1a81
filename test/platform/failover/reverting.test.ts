/** A volume of the guest that is taken back to the snapshot that the copy's hook has made of it, by a site alone. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import {
  buildBtrfsDisks,
  buildLabGuest,
  copyLabGuest,
  type LabDisk,
  startLabMachine,
} from '../../../lab/index.ts';
import type { ArrivalRule } from '../../../src/api/index.ts';
import { siteFiles } from '../../../src/control/base/site-files.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { type ImageFile, QemuImages, runPaths } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { piecesOf, totalLength } from '../../../src/lib/extents.ts';
import { ReplicaLayout } from '../../../src/replica/index.ts';
import { inGuest } from '../../support/lab-sites.ts';
import { BOX, pairedSites, resultOf } from '../../support/paired-sites.ts';

/** In mixed mode a node of a tree is as large as a sector. */
const NODE_BYTES = 4096;
const SUPERBLOCK = 64 * 1024;
/** Superblocks and nodes of trees have the id of their file system at this place. */
const FSID = 32;
const MOUNT =
  'mkdir -p /tools /vol; mount -t ext4 -o ro /dev/vdc /tools && /tools/load && mount -t btrfs /dev/vdd /vol';
const BTRFS = '/tools/bin/btrfs';
/** What the volume held at T0, in a word. */
const CONTENT = 'cd /vol/live && find . -type f | sort | xargs sha256sum | sha256sum';

function shell(script: string) {
  return { command: '/bin/sh', arguments: ['-c', script], limitMs: 120_000 };
}

/** The snapshot is T0; what follows it is written before the cut, T1. */
const SNAPSHOT = shell(
  `${BTRFS} subvolume snapshot -r /vol/live /vol/at-t0 && (${CONTENT}) > /run/t0 && ` +
    'echo stray > /vol/live/rows && dd if=/dev/urandom of=/vol/live/stray bs=1M count=4 2>/dev/null && sync && cat /run/t0',
);
const REVERT = {
  name: 'revert',
  ...shell(
    `${MOUNT} && ${BTRFS} subvolume delete -C /vol/live && ${BTRFS} subvolume snapshot /vol/at-t0 /vol/live && sync && umount /vol`,
  ),
};
const RULE: ArrivalRule = { copyTypes: ['snapshots'], work: { kind: 'prepare', programs: [REVERT] } };

/** SHA-256 of every file of a replica's disks. */
async function digestsIn(directory: string): Promise<Record<string, string>> {
  const digests: Record<string, string> = {};
  for (const name of await readdir(directory, { recursive: true })) {
    if (!name.endsWith('.qcow2')) continue;
    digests[name] = createHash('sha256')
      .update(await readFile(join(directory, name)))
      .digest('hex');
  }
  return digests;
}

/** Fails the test unless all that the youngest file of the chain holds is book-keeping of the file system: not a byte of any file. */
async function assertNodesAlone(images: QemuImages, chain: readonly ImageFile[]): Promise<number> {
  await using reader = await images.open(chain);
  const block = Buffer.alloc(NODE_BYTES);
  await reader.readInto(block, SUPERBLOCK);
  assert.equal(block.toString('latin1', 64, 72), '_BHRfS_M');
  const fsid = block.toString('hex', FSID, FSID + 16);
  const { data } = await reader.ownExtents(1);
  for (const { offset } of piecesOf(data, NODE_BYTES)) {
    await reader.readInto(block, offset);
    const found = block.toString('hex', FSID, FSID + 16);
    assert.equal(
      found,
      fsid,
      `what the branch holds at ${offset} is no node of a tree: ${block.toString('latin1', 0, 40)}`,
    );
  }
  return totalLength(data);
}

it('S0.20 S0.21 a volume is back at its own snapshot before anybody fails over, by a job of the site, and the point is untouched', {
  timeout: 600_000,
}, async (context) => {
  const { t, directory, away, homeApi, awayApi } = await pairedSites(context);
  const { tools, volume } = await buildBtrfsDisks(directory);
  const { systemDisk, dataDisk } = await copyLabGuest(await buildLabGuest(), directory);
  const paths = { system: systemDisk, data: dataDisk, tools: tools.path, volume: volume.path };
  const disks = Object.entries(paths).map(([name, path]): LabDisk => ({ name, path, format: 'qcow2' }));
  const lab = await startLabMachine({ directory, disks });
  t.after(() => lab.stop());
  await lab.agentReady(120_000);
  await inGuest(
    lab.agentPath,
    `(${MOUNT}) 2>&1 && ${BTRFS} subvolume create /vol/live && echo T0 > /vol/live/rows && dd if=/dev/urandom of=/vol/live/big bs=1M count=24 && sync`,
  );
  const attach = { name: 'box', qmpPath: lab.qmpPath, agentPath: lab.agentPath };
  await homeApi.call('vm.add', { body: { attach } });
  const snapshots = { name: 'snapshots', aim: 'crash', hooks: { before: SNAPSHOT } } as const;
  await homeApi.call('vm.protect', { ...BOX, body: { schedules: [], copyTypes: [snapshots] } });
  const copy = async (type: string) => {
    const made = await homeApi.call('point.create', { ...BOX, body: { type, wait: true } });
    assert.ok('job' in made && made.job);
    await resultOf(homeApi, made.job);
    return (await awayApi.call('point.list', BOX)).find((point) => point.copyType === type)!;
  };
  await copy('crash');
  await awayApi.call('arrival.set', { ...BOX, body: RULE });
  const { pointId, machineId } = await copy('snapshots');
  const params = { machine: 'box', point: pointId };
  const hook = (await homeApi.call('point.show', { params })).hooks?.[0];
  assert.equal(hook?.exitCode, 0, JSON.stringify(hook));
  const atT0 = hook!.output!.trim().split('\n').at(-1)!;
  assert.match(atT0, /^[0-9a-f]{64}/);
  const layout = new ReplicaLayout(away.dataDirectory, machineId);
  const before = await digestsIn(layout.disks);
  await lab.stop();

  const job = await away.until(async () =>
    (await awayApi.call('job.list', {})).find(({ kind }) => kind === 'failover.prepare'),
  );
  assert.equal(job.actor, 'site');
  const prepared = (await resultOf(awayApi, job)) as FailoverReport;
  assert.deepEqual(
    [prepared.verdict, prepared.point.pointId],
    ['passed', pointId],
    JSON.stringify(prepared.attempts),
  );
  const [branch] = await awayApi.call('failover.list', BOX);
  assert.deepEqual([branch?.purpose, branch?.state, branch?.running], ['prepared', 'prepared', false]);
  assert.deepEqual(await digestsIn(layout.disks), before);
  const points = (await awayApi.call('point.list', BOX)).sort((one, other) => one.cutAtMs - other.cutAtMs);
  const chain = (diskId: string): ImageFile[] =>
    [
      ...points.map((point) => layout.layer(diskId, point.pointId)),
      join(layout.branch(branch!.branchId), `${diskId}.qcow2`),
    ].map((path) => ({ path, format: 'qcow2' }));
  const images = new QemuImages({ clock: systemClock });
  const ownBytes = await assertNodesAlone(images, chain('disk3'));
  context.diagnostic(`the prepared branch holds ${ownBytes} bytes of the volume`);
  await using toolsReader = await images.open(chain('disk2'));
  assert.deepEqual((await toolsReader.ownExtents(1)).data, [], 'the tools are read alone');

  const begun = await awayApi.call('failover.start', {
    ...BOX,
    body: { confirmOtherSideDown: true, point: pointId },
  });
  const report = (await resultOf(awayApi, begun)) as FailoverReport;
  assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
  assert.equal(report.attempts[0]?.preparedBranchId, branch!.branchId);
  const names = report.steps.map(({ name }) => name);
  assert.ok(!names.includes('assertions') && !names.includes('shut-down'), `nothing is left to do: ${names}`);
  const { agentPath } = runPaths(join(siteFiles(away.dataDirectory).run, report.branchId!));
  const found = await inGuest(
    agentPath,
    `(${MOUNT}) >/dev/null 2>&1; ${CONTENT}; cat /vol/live/rows; ls /vol/live`,
  );
  assert.equal(found, `${atT0}\nT0\nbig\nrows`);
});
