import assert from 'node:assert/strict';
import { it } from 'node:test';
import { holdBy, type Right, seizeRight, takeRight, votedRight } from '../../../src/failover/right.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { Claim, Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';

const AWAY = { siteId: 'away', log: silentLog };

/** A replica at the site `away`. */
function replicaWith(tenure: Tenure, offer?: { claim: Claim; pointId: string }): Replica {
  const replica = {
    record: {
      machineId: 'm',
      machineName: 'db',
      epoch: tenure.claim.epoch,
      sourceSiteId: 'home',
      tenure,
      offer,
    },
    settle: async () => undefined,
    update: async (change: (record: object) => object | undefined) => {
      replica.record = { ...replica.record, ...change(replica.record) };
    },
  };
  return replica as unknown as Replica;
}

it('F9 S0.17 a site says by what it got the right to run a machine, and claims no votes that nobody gave', async () => {
  const follows: Tenure = { state: 'follows', claim: { epoch: 1, siteId: 'home' } };
  const asked: string[] = [];
  const voted = votedRight({
    seek: async () => {
      asked.push('witness');
      return { epoch: 2, siteId: 'away' };
    },
    confirm: async ({ epoch }) => void asked.push(`whether ${epoch} is the highest`),
    letGo: () => assert.fail('it was let go'),
  });
  const heldBy = (right: Right, replica: Replica) => holdBy(right, AWAY, replica);
  const replica = replicaWith(follows);
  assert.equal(await heldBy(voted, replica), 'votes');
  assert.deepEqual(asked, ['witness']);
  // What came up by that did not pass; the machine is brought up once more.
  assert.equal(await heldBy(voted, replica), 'held-before');
  assert.deepEqual([asked, replica.record.epoch], [['witness', 'whether 2 is the highest'], 2]);
  assert.equal(await heldBy(seizeRight, replicaWith(follows)), 'word');
  const offer = { claim: { epoch: 2, siteId: 'away' }, pointId: 'p' };
  assert.equal(await heldBy(takeRight, replicaWith(follows, offer)), 'offer');
});
