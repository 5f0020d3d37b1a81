/** A failover that is to become the machine, and does not: it is the branch that it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adoptBranch, type NewHome } from '../../../src/failover/adoption.ts';
import { failoverFailure } from '../../../src/failover/errors.ts';
import type { RunningMachine } from '../../../src/hypervisor/index.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { branchSite, PASSES } from '../../support/branch-site.ts';
import type { CleanUp } from '../../support/temporary.ts';

const NOTHING_IS_FULL = /^$/;

/** A failover that is at work, on a disk that takes no record any more as soon as its branch has been marked. */
async function atWork(t: CleanUp, o: { readonly isHeld?: () => boolean } = {}) {
  const site = await branchSite(t, 'failover', NOTHING_IS_FULL);
  await site.boot({ probes: PASSES });
  const { replica, tools } = site;
  const tenure = { state: 'holds', claim: { epoch: 2, siteId: 'here' } };
  let record = { ...replica.record, epoch: 2, tenure };
  let isFull = false;
  Object.assign(replica, {
    update: async (change: (before: object) => object) => {
      if (isFull) throw libFailure('DISK_FULL', 'the disk is full');
      record = { ...record, ...change(record) };
      isFull = true;
    },
    disown: async () => {
      record = { ...record, adopted: undefined } as typeof record;
    },
    holdLayers: async () => {
      if (o.isHeld?.() === false) throw libFailure('DISK_FULL', 'the disk is full');
      return () => undefined;
    },
  });
  Object.defineProperty(replica, 'record', { get: () => record });
  const machine = {
    ...{ gone: new Promise(() => undefined), disconnect: async () => undefined },
    hasBegun: async () => true,
  } as unknown as RunningMachine;
  Object.assign(tools.hypervisor, { attach: async () => machine });
  const adopt = (create: NewHome<never>['create']) =>
    adoptBranch({ tools, live: site.live }, replica, site.branch, { check: () => undefined, create });
  return { ...site, adopt };
}

test('F4 S0.17 what could not be adopted, and the mark of that not be taken away, is a failover that runs, which everything can be done with', async (t) => {
  const { adopt, machines, phase, replica } = await atWork(t);
  const adopting = adopt(async () => {
    assert.ok(replica.record.adopted);
    throw failoverFailure('FAILOVER_NOT_AT_WORK', 'no machine can be made of it');
  });
  await assert.rejects(adopting, { code: 'FAILOVER_NOT_AT_WORK' }, 'why there is no machine is what is told');
  assert.equal(replica.record.adopted, undefined, 'fencing sees it');
  assert.deepEqual([await machines(), await phase()], [[1, 1], 'probed'], 'this site is connected to it');
});

test('F4 so it is if its layers could not be held', async (t) => {
  let isMarked = false;
  const { adopt, machines, replica } = await atWork(t, { isHeld: () => !isMarked });
  isMarked = true;
  await assert.rejects(
    adopt(async () => assert.fail('nothing is to be made of it')),
    { code: 'DISK_FULL' },
  );
  assert.equal(replica.record.adopted, undefined);
  assert.deepEqual(await machines(), [1, 1]);
});

test('F4 a branch that cannot be connected to again hides nothing of why it was not adopted', async (t) => {
  const { adopt, tools, replica } = await atWork(t);
  Object.assign(tools.hypervisor, {
    attach: async () => {
      throw libFailure('DISK_FULL', 'no socket can be opened');
    },
  });
  const adopting = adopt(async () => {
    throw failoverFailure('FAILOVER_NOT_AT_WORK', 'no machine can be made of it');
  });
  await assert.rejects(adopting, { code: 'FAILOVER_NOT_AT_WORK' });
  assert.equal(replica.record.adopted, undefined);
});
