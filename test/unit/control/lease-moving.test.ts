/** A machine that moves to another pair of sites runs by leases there, whatever its former sites and their witness know of older ones. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { controlFailure } from '../../../src/control/errors.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import { LEASED_MACHINE, type LeasedSites, leasedSites } from '../../support/lease-sites.ts';

/** Where it was replicated to it has come up by votes while its home was gone, and is at home there by now, replicated to the fourth site. */
async function takeOver({ clock, down, home, recovery, later }: LeasedSites): Promise<Claim> {
  down.add(home.siteId);
  const voted = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
  await clock.turn(30_000);
  const claim = await voted;
  recovery.replica = { tenure: { state: 'holds', claim }, sourceSiteId: home.siteId };
  await recovery.votes.held(LEASED_MACHINE);
  await clock.turn(0);
  await recovery.makeHome(claim.epoch, [later.siteId]);
  later.replica = { tenure: { state: 'follows', claim }, sourceSiteId: recovery.siteId };
  return claim;
}

/** The fourth site gets copies of it as well, and may be its recovery site. */
function replicateToLater({ home, later, claim }: LeasedSites): void {
  home.machine!.targets.push({ siteId: later.siteId });
  later.replica = { tenure: { state: 'follows', claim }, sourceSiteId: home.siteId };
}

/** It was handed over, and is at home at the fourth site, which replicates it to where it was. */
async function move({ home, recovery, later }: LeasedSites, other: 'home' | 'recovery') {
  const target = { home, recovery }[other];
  await later.makeHome(7, [target.siteId]);
  const claim = { epoch: 7, siteId: later.siteId };
  home.machine = undefined;
  await home.leases.close();
  target.replica = { tenure: { state: 'follows', claim }, sourceSiteId: later.siteId };
  return target;
}

/** It runs there by leases of both. */
async function isLentThere(s: LeasedSites, other: 'home' | 'recovery') {
  const { clock, later, witness } = s;
  const target = await move(s, other);
  await later.lease({ recoverySiteId: target.siteId, witnessSiteId: witness.siteId });
  await clock.turn(20_000);
  const { lentMs, guest } = later.leases.standing(LEASED_MACHINE)!;
  const lenders = Object.entries(lentMs).filter(([, ms]) => ms > 0);
  assert.deepEqual(lenders.map(([siteId]) => siteId).sort(), [target.siteId, witness.siteId].sort());
  assert.equal(guest, 'runs');
  assert.deepEqual(witness.record()?.siteIds, [later.siteId, target.siteId].sort());
  assert.deepEqual([...s.home.alerts.keys()], []);
}

for (const other of ['home', 'recovery'] as const) {
  test(`S0.17 after leases that ended on somebody’s word it is lent elsewhere, with its former ${other}`, async (t) => {
    const s = await leasedSites(t);
    await s.home.endLeases(true);
    await s.clock.turn(0);
    assert.equal(s.witness.record()?.vote.term, 'for-good');
    // What was lent before may run for so long.
    await s.clock.turn(15_000);
    await isLentThere(s, other);
  });
}

test('S0.17 of the end of leases their witness hears when it is back, and until then who told of it says so', async (t) => {
  const s = await leasedSites(t);
  s.down.add(s.witness.siteId);
  await s.home.endLeases();
  await s.clock.turn(20_000);
  assert.deepEqual([...s.home.alerts.keys()], [`lease-end:${LEASED_MACHINE}`]);
  assert.ok(s.witness.record());
  s.down.delete(s.witness.siteId);
  await s.clock.turn(5_000);
  assert.deepEqual(
    [s.witness.record()?.ended, s.home.record(), s.recovery.record()],
    [true, undefined, undefined],
  );
  await isLentThere(s, 'home');
});

test('S0.17 an end of which nobody has to hear any more, because leases with that witness stand again, is no alert', async (t) => {
  const s = await leasedSites(t);
  s.down.add(s.witness.siteId);
  await s.home.endLeases();
  await s.clock.turn(20_000);
  assert.deepEqual([...s.home.alerts.keys()], [`lease-end:${LEASED_MACHINE}`]);
  await s.home.lease({ recoverySiteId: s.recovery.siteId, witnessSiteId: s.witness.siteId });
  s.down.delete(s.witness.siteId);
  await s.clock.turn(20_000);
  assert.deepEqual([...s.home.alerts.keys()], []);
});

test('S0.17 a machine that has moved on before the witness has heard of the end is lent by it when it has', async (t) => {
  const s = await leasedSites(t);
  s.down.add(s.witness.siteId);
  await s.home.endLeases();
  const target = await move(s, 'home');
  await s.later.lease({ recoverySiteId: target.siteId, witnessSiteId: s.witness.siteId });
  s.down.delete(s.witness.siteId);
  await s.clock.turn(20_000);
  assert.ok(s.later.leases.standing(LEASED_MACHINE)!.lentMs[s.witness.siteId]! > 0);
});

test('S0.17 an end is told no more, and no alert, where its witness lends the machine to others, or is paired no more', async (t) => {
  for (const why of ['others', 'revoked']) {
    const s = await leasedSites(t);
    const { clock, down, home, recovery, witness, later } = s;
    down.add(witness.siteId);
    await home.endLeases();
    await clock.turn(20_000);
    assert.deepEqual([...home.alerts.keys()], [`lease-end:${LEASED_MACHINE}`]);
    if (why === 'revoked') s.revoked.add(witness.siteId);
    else {
      down.delete(witness.siteId);
      down.add(home.siteId);
      await recovery.makeHome(7, [later.siteId]);
      const claim = { epoch: 7, siteId: recovery.siteId };
      later.replica = { tenure: { state: 'follows', claim }, sourceSiteId: recovery.siteId };
      await recovery.lease({ recoverySiteId: later.siteId, witnessSiteId: witness.siteId });
      await clock.turn(5_000);
      down.delete(home.siteId);
    }
    await clock.turn(10_000);
    assert.deepEqual([home.record(), [...home.alerts.keys()]], [undefined, []], why);
  }
});

test('S0.17 a vote that was let go of is told no more to a witness that lends the machine to others', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, home, recovery, witness, later } = s;
  down.add(home.siteId);
  const voted = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
  await clock.turn(30_000);
  await voted;
  down.add(recovery.siteId);
  down.delete(home.siteId);
  recovery.votes.letGo(LEASED_MACHINE);
  await home.makeHome(7, [later.siteId]);
  const claim = { epoch: 7, siteId: home.siteId };
  later.replica = { tenure: { state: 'follows', claim }, sourceSiteId: home.siteId };
  await home.lease({ recoverySiteId: later.siteId, witnessSiteId: witness.siteId });
  await clock.turn(5_000);
  down.delete(recovery.siteId);
  await clock.turn(10_000);
  assert.equal(recovery.record()?.seeking, undefined);
});

test('S0.17 a site that is killed when its witness has heard of an end leaves no alert of that', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, home, witness } = s;
  down.add(witness.siteId);
  await home.endLeases();
  await clock.turn(20_000);
  assert.deepEqual([...home.alerts.keys()], [`lease-end:${LEASED_MACHINE}`]);
  const { records } = home;
  const remove = records.remove.bind(records);
  const killed = Promise.withResolvers<void>();
  records.remove = async (machineId) => {
    await remove(machineId);
    await killed.promise;
  };
  down.delete(witness.siteId);
  await clock.turn(5_000);
  const left = [home.record(), [...home.alerts.keys()]];
  killed.resolve();
  assert.deepEqual(left, [undefined, []]);
});

test('S0.17 an end that could not dismiss the guard goes on with the next one', async (t) => {
  const s = await leasedSites(t);
  s.home.guards.dismissalFails = controlFailure('LEASE_NOT_LENT', 'its guard was killed on the way');
  await assert.rejects(s.home.endLeases(), { code: 'LEASE_NOT_LENT' });
  await s.home.endLeases();
  await s.clock.turn(0);
  assert.equal(s.home.guards.untilMs, undefined);
  assert.ok(s.witness.record()?.ended);
  await isLentThere(s, 'recovery');
});

test('S0.17 of leases that end beside a vote that nobody uses the witness knows by which claim they have', async (t) => {
  const s = await leasedSites(t);
  // The home is silent for so long that the witness votes; the recovery site gives up, which the witness does not hear.
  s.down.add(s.home.siteId);
  const voted = s.recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
  await s.clock.turn(30_000);
  await voted;
  s.down.add(s.witness.siteId);
  s.recovery.votes.letGo(LEASED_MACHINE);
  s.down.delete(s.home.siteId);
  await s.clock.turn(5_000);
  await s.home.endLeases();
  s.down.add(s.recovery.siteId);
  s.down.delete(s.witness.siteId);
  await s.clock.turn(5_000);
  assert.deepEqual(s.home.record(), undefined, 'the witness has heard of the end');
  s.down.delete(s.recovery.siteId);
  await s.clock.turn(5_000);
  const { ended, vote } = s.witness.record()!;
  assert.deepEqual([ended, vote.entitled, s.recovery.record()], [true, s.claim, undefined]);
  await isLentThere(s, 'home');
});

test('S0.17 after leases that have ended their witness lends nothing to a former home that comes back', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, home, recovery, witness, later } = s;
  const claim = await takeOver(s);
  await recovery.lease({ recoverySiteId: later.siteId, witnessSiteId: witness.siteId });
  await clock.turn(5_000);
  await recovery.endLeases();
  await clock.turn(5_000);
  assert.equal(recovery.record(), undefined, 'the witness has heard of the end');
  // It comes back, and reaches the witness alone.
  down.delete(home.siteId);
  down.add(recovery.siteId);
  const ask = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim: s.claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: witness.siteId },
  };
  assert.deepEqual(await s.call(home.siteId, witness.siteId, 'lease.would', ask), {
    ...{ granted: false, why: 'superseded', entitled: claim, seen: claim, isHeld: true, waitMs: 0 },
  });
  await clock.turn(20_000);
  const { tenure } = home.machine!.right;
  assert.deepEqual(tenure, { state: 'fenced', claim, lost: s.claim });
  assert.equal(home.leases.standing(LEASED_MACHINE)!.lentMs[witness.siteId], 0);
});

test('S0.17 nor is anything lent to a former home after an end that one of its two sites has told for another', async (t) => {
  const s = await leasedSites(t);
  const { clock, home, recovery, witness } = s;
  await move(s, 'recovery');
  const { claim } = recovery.replica!.tenure;
  const end = { machineId: LEASED_MACHINE, claim };
  assert.deepEqual(await s.call(recovery.siteId, witness.siteId, 'lease.end', end), { ended: true });
  // As from a backup of its data directory, say.
  await home.makeHome(1, [recovery.siteId]);
  await clock.turn(20_000);
  const renewal = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim: s.claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: witness.siteId },
  };
  const answer = (await s.call(home.siteId, witness.siteId, 'lease.ask', renewal)) as { why: string };
  assert.equal(answer.why, 'superseded');
});

/** The recovery site was voted for, and its host failed before it had made use of that; the home is back. */
async function loseVoted({ clock, down, home, recovery }: LeasedSites): Promise<void> {
  down.add(home.siteId);
  const voted = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
  await clock.turn(30_000);
  await voted;
  down.add(recovery.siteId);
  down.delete(home.siteId);
}

/** Whether its former recovery site, which has not heard that the leases have ended, gets the machine by votes. */
async function isVotedFor({ clock, recovery }: LeasedSites): Promise<boolean> {
  const voted = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal).then(
    () => true,
    () => false,
  );
  await clock.turn(40_000);
  return voted;
}

test('S0.17 a witness hears that a machine is held for good also when its home has made leases with another one meanwhile', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, home, recovery, witness, later } = s;
  const second = await s.add('y');
  down.add(recovery.siteId).add(witness.siteId);
  await home.endLeases(true);
  replicateToLater(s);
  const terms = { recoverySiteId: later.siteId, witnessSiteId: second.siteId };
  await home.lease(terms);
  await clock.turn(10_000);
  // Nor does it get lost by what becomes of those.
  await home.endLeases();
  await home.lease(terms);
  await home.endLeases(true);
  await home.lease(terms);
  await clock.turn(10_000);
  down.delete(recovery.siteId);
  down.delete(witness.siteId);
  await clock.turn(10_000);
  const { entitled, term } = witness.record()!.vote;
  assert.deepEqual([entitled, term, home.record()], [s.claim, 'for-good', undefined]);
  assert.equal(await isVotedFor(s), false);
  assert.equal(home.leases.standing(LEASED_MACHINE)?.guest, 'runs');
});

test('S0.17 and when it has made them with the same one and another recovery site', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, home, recovery, witness, later } = s;
  down.add(recovery.siteId).add(witness.siteId);
  await home.endLeases(true);
  replicateToLater(s);
  await home.lease({ recoverySiteId: later.siteId, witnessSiteId: witness.siteId });
  await clock.turn(10_000);
  await home.endLeases(true);
  down.delete(recovery.siteId);
  down.delete(witness.siteId);
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.vote.term, home.record()?.toHold], ['for-good', undefined]);
  assert.equal(home.record(), undefined, 'both others have heard that those have ended as well');
  assert.equal(await isVotedFor(s), false);
});

for (const order of ['cannot hear that', 'hears that'] as const) {
  test(`S0.17 nor does a vote that nobody used bring it up twice, when it is let go of, if their witness ${order} before others begin`, async (t) => {
    const s = await leasedSites(t);
    const { clock, down, home, recovery, witness, later } = s;
    const second = await s.add('y');
    await loseVoted(s);
    if (order === 'cannot hear that') down.add(witness.siteId);
    await home.endLeases(true);
    await clock.turn(10_000);
    replicateToLater(s);
    await home.lease({ recoverySiteId: later.siteId, witnessSiteId: second.siteId });
    down.delete(witness.siteId);
    await clock.turn(20_000);
    assert.ok(home.record()?.toHold, 'the witness does not count that');
    // It comes back, parted from that home, and lets go of what it has not used.
    down.delete(recovery.siteId);
    recovery.votes.letGo(LEASED_MACHINE);
    await clock.turn(10_000);
    const { entitled, term } = witness.record()!.vote;
    assert.deepEqual([entitled, term, home.record()], [s.claim, 'for-good', undefined]);
    assert.equal(await isVotedFor(s), false);
    assert.equal(home.leases.standing(LEASED_MACHINE)?.guest, 'runs');
  });
}

test('S0.17 a witness of earlier leases that is paired no more is told nothing of who holds the machine', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, revoked, home, recovery, witness, later } = s;
  const second = await s.add('y');
  down.add(recovery.siteId).add(witness.siteId);
  await home.endLeases(true);
  replicateToLater(s);
  await home.lease({ recoverySiteId: later.siteId, witnessSiteId: second.siteId });
  await clock.turn(10_000);
  assert.ok(home.record()?.toHold);
  revoked.add(witness.siteId).add(recovery.siteId);
  await clock.turn(5_000);
  assert.equal(home.record(), undefined);
});

test('S0.17 what is stored while another debt is being paid is not overwritten by that', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, home, recovery, witness } = s;
  const second = await s.add('y');
  down.add(witness.siteId);
  await home.endLeases();
  await home.lease({ recoverySiteId: recovery.siteId, witnessSiteId: second.siteId });
  await clock.turn(5_000);
  const { records } = home;
  const stored = Promise.withResolvers<void>();
  const removed = records.remove.bind(records);
  records.remove = async (machineId) => {
    records.remove = removed;
    await stored.promise;
    return removed(machineId);
  };
  down.delete(witness.siteId);
  down.add(second.siteId).add(recovery.siteId);
  await clock.turn(5_000);
  assert.equal(records.remove, removed, 'the end has been heard, and that is being stored');
  const ended = home.endLeases(true);
  await clock.turn(1_000);
  stored.resolve();
  await ended;
  await clock.turn(0);
  assert.deepEqual(home.record()?.toTell, s.claim);
});

test('S0.17 of an end by a claim above what it knows a witness of ended leases keeps that claim', async (t) => {
  const s = await leasedSites(t);
  const { call, home, recovery, witness, later } = s;
  await home.endLeases();
  await s.clock.turn(0);
  const told = (by: { readonly siteId: string }, claim: Claim) =>
    call(by.siteId, witness.siteId, 'lease.end', { machineId: LEASED_MACHINE, claim: { ...claim } });
  const vote = () => witness.record()?.vote;
  const second = { epoch: 2, siteId: recovery.siteId };
  assert.deepEqual(await told(recovery, second), { ended: true });
  assert.deepEqual(vote(), { entitled: second, seen: second, term: 'for-good' });
  await told(home, s.claim);
  // A stranger says nothing of other sites.
  await told(later, { epoch: 99, siteId: recovery.siteId });
  assert.deepEqual(vote()?.entitled, second);
});

for (const how of ['stands there', 'an older version has forgotten'] as const) {
  test(`S0.17 a witness that is made to forget a vote that ${how}, and that nobody can use any more, lends the machine to who holds it`, async (t) => {
    const s = await leasedSites(t);
    const { clock, home, witness, later } = s;
    await loseVoted(s);
    await home.endLeases(true);
    replicateToLater(s);
    await home.lease({ recoverySiteId: later.siteId, witnessSiteId: witness.siteId });
    await clock.turn(10_000);
    assert.equal(home.leases.standing(LEASED_MACHINE)!.lentMs[witness.siteId], 0);
    const { seen } = witness.record()!.vote;
    if (how !== 'stands there') await witness.records.store({ ...witness.record()!, ended: true });
    await witness.votes.forgetWitnessed(witness.votes.witnessed('web').machineId);
    assert.deepEqual(witness.record()?.vote, { entitled: s.claim, seen, term: 'for-good' });
    await clock.turn(10_000);
    assert.ok(home.leases.standing(LEASED_MACHINE)!.lentMs[witness.siteId]! > 0);
  });
}
