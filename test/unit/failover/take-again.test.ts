/** A machine that is taken over once more, because it did not come up as somebody expected: its guest may have served people until then. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { it } from 'node:test';
import { failoverFailure } from '../../../src/failover/errors.ts';
import { Failovers, type FailoverTools } from '../../../src/failover/index.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { listBranches, type Replica, type ReplicaRecord } from '../../../src/replica/index.ts';
import { branchSite, FAILS, PASSES } from '../../support/branch-site.ts';
import type { CleanUp } from '../../support/temporary.ts';

/** A site that was offered a machine, with `Failovers` of its own. */
async function offeredSite(t: CleanUp) {
  const { tools, replica: bare, branch } = await branchSite(t, 'failover', /^$/);
  await rm(bare.layout.branch(branch.branchId), { recursive: true });
  const layout = { branch: bare.layout.branch, branches: bare.layout.branch('') };
  const state = bare.point(branch.pointId);
  const disks = [{ diskId: 'system', sizeBytes: 2 ** 20 }];
  const point = { ...state, statement: { ...state.statement, disks } };
  const replica = Object.assign(bare, {
    record: {
      ...{ ...bare.record, sourceSiteId: 'home', epoch: 1 },
      tenure: { state: 'follows', claim: { epoch: 1, siteId: 'home' } },
      offer: { claim: { epoch: 2, siteId: 'here' }, pointId: branch.pointId },
    } as ReplicaRecord,
    ...{ branches: [] as Replica['branches'], points: [point], point: () => point, chain: () => [] },
    refreshBranches: async (work: () => Promise<void>) => {
      await work();
      Object.assign(replica, { branches: await listBranches(nodeFiles, layout) });
    },
    update: async (change: (before: ReplicaRecord) => object | undefined) => {
      Object.assign(replica, { record: { ...replica.record, ...change(replica.record) } });
    },
  });
  const offer = async () => {
    throw failoverFailure('FAILOVER_NOT_AT_WORK', 'nobody asks this hypervisor');
  };
  const hypervisor = { ...tools.hypervisor, offer };
  const failovers = new Failovers({ ...tools, hypervisor, machinesHere: () => [] } as FailoverTools);
  t.after(async () => {
    for (const { branchId } of replica.branches) await failovers.cleanup(replica, branchId);
  });
  return { replica, failovers };
}

it('F4 F9 who takes a machine over once more is told of the branch in which its guest may have written before', async (t) => {
  const { replica, failovers } = await offeredSite(t);
  const first = await failovers.take(replica, { probes: FAILS });
  assert.deepEqual([first.verdict, first.earlierBranchIds], ['failed', undefined]);
  const { branchId } = first.attempts[0]!;
  const again = await failovers.take(replica, { probes: PASSES });
  assert.deepEqual([again.verdict, again.earlierBranchIds], ['passed', [branchId]]);
  assert.ok(
    again.warnings.some((said) => said.includes(branchId)),
    again.warnings.join('; '),
  );
});

it('F4 F9 that the branch has been removed meanwhile does not make a machine that was taken over before one that was not', async (t) => {
  const { replica, failovers } = await offeredSite(t);
  const first = await failovers.take(replica, { probes: FAILS });
  assert.equal(await failovers.cleanup(replica, first.attempts[0]!.branchId), true);
  assert.equal(replica.branches.length, 0);
  const again = await failovers.take(replica, { probes: PASSES });
  assert.deepEqual([again.verdict, again.earlierBranchIds], ['passed', []]);
  assert.match(again.warnings.join('; '), /taken over before/);
});
