/** How a site comes by the right to run a machine by votes: what it holds it keeps, and a vote is for what it was given over. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Voting } from '../../../src/failover/options.ts';
import { votedRight } from '../../../src/failover/right.ts';
import type { Claim, Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica, ReplicaRecord } from '../../../src/replica/index.ts';

/** A replica at site R whose right is `tenure`, and the votes that it gets by asking. */
function site(tenure: Tenure, voted: Claim) {
  const replica = {
    record: { machineName: 'db', epoch: tenure.claim.epoch, sourceSiteId: 'P', tenure } as ReplicaRecord,
    settle: async () => undefined,
    update: async (change: Parameters<Replica['update']>[0]) => {
      const record = replica.record;
      replica.record = { ...record, ...(typeof change === 'function' ? change(record) : change) };
    },
  };
  const done: string[] = [];
  const voting: Voting = {
    seek: async () => {
      done.push('seek');
      return voted;
    },
    confirm: async () => void done.push('confirm'),
    letGo: () => void done.push('let go'),
  };
  return { replica: replica as unknown as Replica, done, voting };
}

test('F4 S0.17 a failover that is begun again by votes goes by the claim that its site holds, once the witness knows of no higher one', async () => {
  const held: Tenure = { state: 'holds', claim: { epoch: 2, siteId: 'R' } };
  const { replica, done, voting } = site(held, { epoch: 9, siteId: 'R' });
  await votedRight(voting)(replica, 'R');
  assert.deepEqual([replica.record.tenure, done], [held, ['confirm']]);
});

test('F4 S0.17 a vote is let go of if its site has heard of another claim while it asked, be it of the same epoch', async () => {
  const follows: Tenure = { state: 'follows', claim: { epoch: 1, siteId: 'P' } };
  const voted = { epoch: 3, siteId: 'R' };
  const used = site(follows, voted);
  await votedRight(used.voting)(used.replica, 'R');
  assert.deepEqual([used.replica.record.tenure, used.done], [{ state: 'holds', claim: voted }, ['seek']]);

  const promised: Tenure = { state: 'follows', claim: { epoch: 3, siteId: 'P' } };
  const { replica, done, voting } = site(follows, voted);
  const asking: Voting = {
    ...voting,
    seek: async () => {
      await replica.update({ tenure: promised });
      return voting.seek();
    },
  };
  await assert.rejects(votedRight(asking)(replica, 'R'), { code: 'FAILOVER_FENCED' });
  assert.deepEqual([replica.record.tenure, done], [promised, ['seek', 'let go']]);
});
