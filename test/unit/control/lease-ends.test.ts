/** Leases that have ended do not begin again by what was asked before, and what ends them late ends no others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EndedLeases } from '../../../src/control/leases/ended-leases.ts';
import { LEASED_MACHINE, unleasedSites } from '../../support/lease-sites.ts';

test('S0.17 leases that have ended do not begin by a first question that was late', async (t) => {
  const { clock, lost, call, home, recovery, witness, claim, terms } = await unleasedSites(t);
  // The first questions lie in the buffers of a link that stalls, and their home has given them up.
  lost.add('lease.ask');
  await home.lease(terms);
  await clock.turn(3_000);
  const { begunAtMs } = home.machine!.record.lease!;
  await home.endLeases();
  await clock.turn(1_000);
  lost.delete('lease.ask');
  const late = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: witness.siteId, begunAtMs: begunAtMs! },
  };
  for (const { siteId } of [recovery, witness])
    await assert.rejects(call(home.siteId, siteId, 'lease.ask', late), { code: 'LEASE_UNKNOWN' });
  assert.equal(recovery.votes.isParty(LEASED_MACHINE), false);
  // Others begin.
  await home.lease(terms);
  await clock.turn(5_000);
  assert.equal(recovery.votes.isParty(LEASED_MACHINE), true);
});

test('S0.17 what a site says of the end of leases counts for its own questions alone, and fills nobody’s memory', () => {
  const ended = new EndedLeases();
  ended.note('a', 'first', 7);
  ended.note('b', 'first', 900_000);
  assert.deepEqual([ended.has('a', 'first', 7), ended.has('a', 'first', 8)], [true, false]);
  // One that is late itself.
  ended.note('a', 'first', 5);
  assert.equal(ended.has('a', 'first', 7), true);
  for (let count = 0; count < 10_000; count++) ended.note('b', `machine ${count}`, 7);
  assert.deepEqual([ended.has('b', 'first', 900_000), ended.has('b', 'machine 0', 7)], [false, true]);
  assert.equal(ended.has('a', 'first', 7), true);
});

test('S0.17 a claim that was let go is not voted for in later leases of the machine either', async (t) => {
  const { clock, call, home, recovery, witness, claim: over, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const claim = { epoch: 5, siteId: recovery.siteId };
  await call(recovery.siteId, witness.siteId, 'lease.let-go', { machineId: LEASED_MACHINE, claim });
  await home.endLeases();
  await home.lease(terms);
  await clock.turn(5_000);
  assert.deepEqual(witness.record()?.vote, { entitled: over, seen: claim, term: 'leased' });
  await home.leases.close();
  await clock.turn(20_000);
  const late = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'vote', claim, over, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: witness.siteId },
  };
  const answer = (await call(recovery.siteId, witness.siteId, 'lease.ask', late)) as { why: string };
  assert.equal(answer.why, 'spent');
});

for (const isVoted of [false, true]) {
  test(`S0.17 an end that comes late ends no leases that have begun since, ${isVoted ? 'nor a vote' : 'and the recovery site is voted for'}`, async (t) => {
    const { clock, call, down, home, recovery, witness, claim, terms } = await unleasedSites(t);
    await home.lease(terms);
    await clock.turn(5_000);
    const { begunAtMs } = home.machine!.record.lease!;
    await home.endLeases();
    await home.lease(terms);
    await clock.turn(5_000);
    assert.ok(home.machine!.record.lease!.begunAtMs! > begunAtMs!);
    const late = () => {
      const end = { machineId: LEASED_MACHINE, claim, begunAtMs: begunAtMs! };
      return Promise.all(
        [recovery, witness].map(({ siteId }) => call(home.siteId, siteId, 'lease.end', end)),
      );
    };
    if (!isVoted) assert.deepEqual(await late(), [{ ended: true }, { ended: true }]);
    down.add(home.siteId);
    await clock.turn(20_000);
    const seeking = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
    await clock.turn(30_000);
    const voted = await seeking;
    assert.equal(voted.siteId, recovery.siteId);
    if (!isVoted) return;
    down.delete(home.siteId);
    await late();
    assert.deepEqual(witness.record()?.vote.entitled, voted);
    assert.equal(witness.record()?.ended, undefined);
    assert.equal(recovery.votes.isParty(LEASED_MACHINE), true);
  });
}

test('S0.17 an end that the other site hears late ends no leases by which that one has the machine lent here since', async (t) => {
  const { clock, down, lost, home, recovery, witness, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  down.add(recovery.siteId);
  lost.add('lease.end');
  await home.endLeases(true);
  const claim = { epoch: 2, siteId: recovery.siteId };
  await home.machine!.right.hear(claim);
  home.machine = undefined;
  home.replica = { tenure: { state: 'follows', claim }, sourceSiteId: recovery.siteId };
  down.clear();
  await recovery.makeHome(2, [home.siteId]);
  await recovery.lease({ recoverySiteId: home.siteId, witnessSiteId: witness.siteId });
  await clock.turn(5_000);
  assert.ok(home.record()?.toEnd);
  // None of its questions comes any more.
  lost.add('lease.ask').delete('lease.end');
  await clock.turn(10_000);
  assert.deepEqual([home.record()?.toEnd, home.record()?.ended], [undefined, undefined]);
  assert.equal(home.votes.isParty(LEASED_MACHINE), true);
});

test('S0.17 leases of an older home, which does not say which they are, are ended by any end', async (t) => {
  const { call, home, witness, claim } = await unleasedSites(t);
  const { siteId } = witness;
  const ask = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, `${'0'.repeat(25)}r`], witnessSiteId: siteId },
  };
  await call(home.siteId, siteId, 'lease.ask', { ...ask, begunAtMs: 7 });
  assert.equal(witness.record()?.begunAtMs, 7);
  await call(home.siteId, siteId, 'lease.ask', ask);
  assert.equal(witness.record()?.begunAtMs, undefined);
  await call(home.siteId, siteId, 'lease.end', { machineId: LEASED_MACHINE, claim, begunAtMs: 5 });
  assert.equal(witness.record()?.ended, true);
});

test('S0.17 of leases that have ended by the word of another site a witness says so, where machines of one name are told apart', async (t) => {
  const { clock, call, add, home, recovery, witness, terms } = await unleasedSites(t);
  const { siteId } = await add('x');
  await home.lease(terms);
  await clock.turn(5_000);
  await home.endLeases();
  await clock.turn(0);
  const claim = { epoch: 7, siteId };
  await call(siteId, witness.siteId, 'lease.end', { machineId: LEASED_MACHINE, claim });
  const machineId = `${'0'.repeat(25)}n`;
  await call(siteId, witness.siteId, 'lease.ask', {
    ...{ machineId, machineName: 'web', kind: 'hold', claim, leaseMs: 10_000 },
    ...{ siteIds: [recovery.siteId, siteId], witnessSiteId: witness.siteId },
  });
  const said = [
    `${LEASED_MACHINE}, whose leases have ended, held by ${siteId} in epoch 7, as that says`,
    `${machineId} of the sites ${recovery.siteId} and ${siteId}, held by ${siteId} for good in epoch 7`,
  ];
  assert.throws(() => witness.votes.witnessed('web'), {
    code: 'LEASE_AMBIGUOUS',
    message: `2 machines are called web: ${said.join('; ')}`,
  });
});
