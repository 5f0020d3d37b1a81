/** A volume of the guest that is taken back to the snapshot that the copy's hook has made of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildBtrfsDisks } from '../../../lab/index.ts';
import type { JobView } from '../../../src/api/index.ts';
import { ArrivalRules } from '../../../src/control/arrival-rules.ts';
import { Arrivals } from '../../../src/control/arrivals.ts';
import { type FailoverReport, type Failovers, provenPoints } from '../../../src/failover/index.ts';
import type { PrepareOptions } from '../../../src/failover/prepared.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { CopyType } from '../../../src/recovery-point/index.ts';
import { branchChain, findBranch, type Replica } from '../../../src/replica/index.ts';
import { failoversOf, layerDigests } from '../../support/failover-site.ts';
import { copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const CONFIRMED = { confirmedOtherSideDown: true } as const;
const MIB = 1024 * 1024;
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

/** What a site does with the points that have arrived, its jobs done right here; resolves when that has ended. */
async function doneOnArrival(rules: ArrivalRules, failovers: Failovers, replica: Replica): Promise<void> {
  const jobs: Promise<FailoverReport>[] = [];
  const arrivals = new Arrivals({
    rules,
    replicaOf: () => replica,
    provenPoints: (of) => provenPoints(nodeFiles, of),
    removeBranch: async (of, branchId) => void (await failovers.cleanup(of, branchId)),
    start: ({ kind, args }) => {
      assert.equal(kind, 'failover.prepare');
      const { pointId, ...options } = args as unknown as PrepareOptions & { readonly pointId: string };
      return { jobId: String(jobs.push(failovers.prepare(replica, pointId, options))) } as JobView;
    },
    waitFor: async (jobId) => ({ state: 'done', result: await jobs[Number(jobId) - 1] }) as JobView,
    alerts: { raise: (_key, _severity, failure) => assert.fail(failure), clear: () => undefined },
  });
  await arrivals.begin();
  await arrivals.close();
}

test('S0.20 S0.21 a volume is back at its own snapshot before anybody fails over, and the point is untouched', {
  timeout: 600_000,
}, async (t) => {
  const disks = await buildBtrfsDisks(await temporaryDirectory(t));
  const snapshots: CopyType = { name: 'snapshots', aim: 'crash', hooks: { before: SNAPSHOT } };
  const lab = await labSites(t, {
    extraDisks: [
      { diskId: 'tools', ...disks.tools },
      { diskId: 'volume', ...disks.volume },
    ],
    protection: { copyTypes: [snapshots] },
  });
  const { machine, sites } = lab;
  const agentPath = machine.record.sockets.agentPath!;
  await inGuest(
    agentPath,
    `(${MOUNT}) 2>&1 && ${BTRFS} subvolume create /vol/live && echo T0 > /vol/live/rows && dd if=/dev/urandom of=/vol/live/big bs=1M count=24 && sync`,
  );
  const { pointId } = await copyAndSend(machine, sites.target, 'snapshots');
  const hook = machine.cuts.find(({ cutId }) => cutId === pointId)?.hooks?.[0];
  assert.equal(hook?.exitCode, 0, JSON.stringify(hook));
  const atT0 = hook!.output!.trim().split('\n').at(-1)!;
  assert.match(atT0, /^[0-9a-f]{64}/);
  await machine.running!.quit();

  const replica = lab.replica();
  const before = await layerDigests(replica, pointId);
  const { failovers, tools } = await failoversOf(t, sites);
  const rules = await ArrivalRules.open(nodeFiles, sites.directory);
  const { machineId } = replica.record;
  await rules.change(machineId, { work: { kind: 'prepare', programs: [REVERT] } });
  await doneOnArrival(rules, failovers, replica);
  const branch = findBranch(replica, `arrival-${replica.point(pointId).statement.sequence}`);
  assert.deepEqual(await layerDigests(replica, pointId), before);
  await using reader = await sites.protectedTools.images.open(branchChain(replica, branch, 'volume'));
  const { data } = await reader.ownExtents(1);
  const ownBytes = data.reduce((sum, { length }) => sum + length, 0);
  t.diagnostic(`the prepared branch holds ${ownBytes} bytes of the volume`);
  assert.ok(ownBytes < 4 * MIB, 'metadata of the volume, not the 24 MiB that did not change');

  const report = await failovers.start(replica, { pointId }, CONFIRMED);
  assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
  assert.equal(report.attempts[0]?.preparedBranchId, branch.branchId);
  const failedOver = `${tools.runDirectory}/${report.branchId}/qga`;
  const found = await inGuest(
    failedOver,
    `(${MOUNT}) >/dev/null 2>&1; ${CONTENT}; cat /vol/live/rows; ls /vol/live`,
  );
  assert.equal(found, `${atT0}\nT0\nbig\nrows`);
});
