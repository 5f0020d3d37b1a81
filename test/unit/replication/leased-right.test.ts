import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import type { LeaseTerms } from '../../../src/recovery-point/index.ts';
import { MachineRight, type RightGround } from '../../../src/replication/machine-right.ts';

const [HOME, RECOVERY, WITNESS, THIRD] = ['home', 'recovery', 'witness', 'third'] as const;

/** A machine that is off and copied to all of its targets. */
function rightOf(lease: LeaseTerms | undefined) {
  const stored: unknown[] = [];
  const acknowledged = { pointId: 'point', sequence: 7, ordinal: 0 };
  const record = {
    name: 'web',
    machineId: 'm',
    disks: [],
    protection: { epoch: 1 },
    ...(lease ? { lease } : {}),
  };
  const ground = {
    chain: { cuts: [] },
    process: { tell: () => undefined },
    deliveries: { need: () => ({ record: { acknowledged } }) },
    kept: {
      now: record,
      isUnsettled: false,
      settle: async () => undefined,
      decide: async (after: object) => {
        stored.push(after);
        Object.assign(record, after);
      },
    },
  };
  const o = {
    ...{ siteId: HOME, ground: () => ground, alone: <T>(work: () => Promise<T>) => work() },
    attach: async () => ({ state: 'stopped' }),
    hasUncutChanges: async () => false,
  } as unknown as RightGround;
  return { right: new MachineRight(o), stored };
}

test('S0.17 a machine that runs by leases is handed over to no site that has no part in them', async () => {
  const terms = { recoverySiteId: RECOVERY, witnessSiteId: WITNESS, leaseMs: 30_000 };
  const leased = rightOf(terms);
  await assert.rejects(leased.right.cede(THIRD), (error) => isFailure(error, 'PROTECTION_LEASED'));
  assert.deepEqual(leased.stored, [], 'and nothing of it is durable');
  assert.equal((await leased.right.cede(RECOVERY)).offer.siteId, RECOVERY);
  assert.equal((await rightOf(undefined).right.cede(THIRD)).offer.siteId, THIRD);
});
