/** What a site owes to those who lent a machine is told until they have heard it, whatever has become of the machine meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import { LEASED_MACHINE, leaseSites } from '../../support/lease-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

type Sites = Awaited<ReturnType<typeof sites>>;

/** A machine that runs at its home by leases of its recovery site and a witness, and is replicated to a fourth site as well. */
async function sites(t: CleanUp) {
  const world = leaseSites(t);
  const [home, recovery, witness] = [await world.add('p'), await world.add('r'), await world.add('w')];
  const later = await world.add('x');
  await home.makeHome(1, [recovery.siteId, later.siteId]);
  const claim = { epoch: 1, siteId: home.siteId };
  for (const site of [recovery, later])
    site.replica = { tenure: { state: 'follows', claim }, sourceSiteId: home.siteId };
  await home.lease({ recoverySiteId: recovery.siteId, witnessSiteId: witness.siteId });
  await world.clock.turn(5_000);
  return { ...world, home, recovery, witness, later, claim };
}

/** The claim that the recovery site is voted for, or the code of what it is refused. */
async function voted({ clock, recovery }: Sites): Promise<Claim | string> {
  const seeking = Promise.try(() => recovery.votes.seek(LEASED_MACHINE, new AbortController().signal)).catch(
    (error: unknown) => (isFailure(error) ? error.code : String(error)),
  );
  await clock.turn(40_000);
  return seeking;
}

/** The recovery site has asked for the machine more than once, is voted for, and is gone before it can use that or say so. */
async function lose(s: Sites, epoch = 9): Promise<Claim> {
  const { clock, down, call, home, recovery, witness, claim: over } = s;
  down.add(home.siteId);
  await clock.turn(20_000);
  const claim = { epoch, siteId: recovery.siteId };
  const vote = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'vote', claim, over, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: witness.siteId },
  };
  assert.deepEqual(await call(recovery.siteId, witness.siteId, 'lease.ask', vote), { granted: true });
  down.delete(home.siteId);
  down.add(recovery.siteId);
  return claim;
}

/** A person has given their word at the recovery site, while the home was gone and the witness could not be reached. */
async function takeByWord({ clock, down, home, recovery, witness }: Sites): Promise<Claim> {
  down.add(home.siteId).add(witness.siteId);
  await clock.turn(20_000);
  const claim = { epoch: 2, siteId: recovery.siteId };
  recovery.replica = { tenure: { state: 'holds', claim }, sourceSiteId: home.siteId };
  await recovery.votes.held(LEASED_MACHINE);
  await clock.turn(10_000);
  return claim;
}

/** The home is back, and reaches the witness alone. */
async function homeComesBack({ clock, down, home, recovery }: Sites): Promise<void> {
  down.add(recovery.siteId);
  down.delete(home.siteId);
  await clock.turn(20_000);
}

for (const others of ['no others', 'others'] as const) {
  test(`S0.17 a witness hears who holds a machine that was held for good, also when it has moved on before that; ${others} began`, async (t) => {
    const s = await sites(t);
    const { clock, down, home, recovery, witness, later } = s;
    const second = await s.add('y');
    down.add(recovery.siteId).add(witness.siteId);
    await home.endLeases(true);
    if (others === 'others') {
      await home.lease({ recoverySiteId: later.siteId, witnessSiteId: second.siteId });
      await clock.turn(10_000);
    }
    const claim = { epoch: 2, siteId: later.siteId };
    await home.machine!.right.hear(claim);
    await later.makeHome(2, []);
    await clock.turn(10_000);
    down.delete(witness.siteId);
    await clock.turn(6 * 60_000);
    const { vote, ended } = witness.record()!;
    assert.deepEqual([vote.entitled, ended], [claim, true]);
    down.add(home.siteId);
    down.delete(recovery.siteId);
    assert.ok(['LEASE_HELD', 'LEASE_UNKNOWN'].includes((await voted(s)) as string));
  });
}

test('S0.17 a witness hears who holds a machine that was brought up on somebody’s word, also when it has moved on before that', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness, later } = s;
  await takeByWord(s);
  await recovery.makeHome(2, [later.siteId]);
  const claim = { epoch: 3, siteId: later.siteId };
  await recovery.machine!.right.hear(claim);
  await recovery.machine!.right.setApart();
  await later.makeHome(3, []);
  await clock.turn(10_000);
  down.delete(witness.siteId);
  await clock.turn(10_000);
  assert.deepEqual(witness.record()?.vote.entitled, claim);
  assert.equal(recovery.record()?.toTell, undefined);
  await homeComesBack(s);
  assert.deepEqual(home.machine!.right.tenure, { state: 'fenced', claim, lost: s.claim });
  assert.equal(home.leases.standing(LEASED_MACHINE)?.guest, 'stopped');
});

test('S0.17 a machine that was taken back before the witness has heard who held it is lent to its home, and its failover goes on', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness } = s;
  await takeByWord(s);
  const back = { epoch: 3, siteId: home.siteId };
  recovery.replica = { tenure: { state: 'follows', claim: back }, sourceSiteId: home.siteId };
  down.delete(witness.siteId);
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [back, true]);
  // The home has heard of both.
  await home.machine!.right.hear({ epoch: 2, siteId: recovery.siteId });
  await home.machine!.right.hear(back);
  down.delete(home.siteId);
  await clock.turn(20_000);
  assert.deepEqual([witness.record()?.vote.term, witness.record()?.ended], ['leased', undefined]);
  assert.equal(home.leases.standing(LEASED_MACHINE)?.guest, 'runs');
  assert.equal(home.leases.standing(LEASED_MACHINE)?.lentMs[witness.siteId] === 0, false);
  down.add(home.siteId);
  await clock.turn(20_000);
  assert.deepEqual(await voted(s), { epoch: 4, siteId: recovery.siteId });
});

test('S0.17 of a machine that was given up the witness hears nothing, until it is known who has it', async (t) => {
  const s = await sites(t);
  const { clock, down, asked, home, recovery, witness } = s;
  const word = await takeByWord(s);
  recovery.replica = { tenure: { state: 'follows', claim: word }, sourceSiteId: home.siteId };
  down.delete(witness.siteId);
  await clock.turn(10_000);
  const before = asked.length;
  await clock.turn(60_000);
  assert.deepEqual([recovery.record()?.toTell, witness.record()?.vote.entitled], [word, s.claim]);
  assert.equal(
    asked.slice(before).some(({ from, to }) => from === recovery.siteId && to === witness.siteId),
    false,
  );
  const back = { epoch: 3, siteId: home.siteId };
  recovery.replica = { tenure: { state: 'follows', claim: back }, sourceSiteId: home.siteId };
  await clock.turn(6 * 60_000);
  recovery.votes.tell();
  await clock.turn(0);
  assert.deepEqual([recovery.record()?.toTell, witness.record()?.vote.entitled], [undefined, back]);
});

test('S0.17 a witness hears by which claim a machine was held whose protection has ended since', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness } = s;
  down.add(recovery.siteId).add(witness.siteId);
  await home.endLeases(true);
  home.machine = undefined;
  down.delete(witness.siteId);
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [s.claim, true]);
  down.delete(recovery.siteId);
  assert.equal(await voted({ ...s, home }), 'LEASE_UNKNOWN');
});

/** Leases are ended at their home on somebody's word, and the recovery site is brought up on one; neither reaches the witness. */
async function takeBySecondWord({ down, home, recovery, witness }: Sites): Promise<Claim> {
  down.add(recovery.siteId).add(witness.siteId);
  await home.endLeases(true);
  const claim = { epoch: 2, siteId: recovery.siteId };
  recovery.replica = { tenure: { state: 'holds', claim }, sourceSiteId: home.siteId };
  await recovery.votes.held(LEASED_MACHINE);
  await home.machine!.right.hear(claim);
  return claim;
}

test('S0.17 a witness hears who holds a machine from that site, also when its former home has told that one that its leases have ended, and is gone', async (t) => {
  const s = await sites(t);
  const { clock, down, call, home, recovery, witness } = s;
  const claim = await takeBySecondWord(s);
  down.delete(recovery.siteId);
  await clock.turn(10_000);
  assert.deepEqual([recovery.record()?.ended, recovery.record()?.toTell], [true, undefined]);
  // Before it can say so to the witness as well.
  await home.votes.close();
  down.add(home.siteId);
  down.delete(witness.siteId);
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [claim, true]);
  assert.deepEqual([recovery.record(), [...recovery.alerts.keys()]], [undefined, []]);
  // It was restored from a backup.
  down.delete(home.siteId);
  const { begunAtMs } = witness.record()!;
  const answer = await call(home.siteId, witness.siteId, 'lease.ask', {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim: s.claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: witness.siteId, begunAtMs: begunAtMs! },
  });
  assert.equal((answer as { why: string }).why, 'superseded');
});

test('S0.17 a witness that has heard who holds a machine hears from that site that its leases have ended, also when its former home is gone, and lends it anew', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness, later } = s;
  down.add(recovery.siteId).add(witness.siteId);
  await home.endLeases(true);
  const claim = { epoch: 2, siteId: recovery.siteId };
  recovery.replica = { tenure: { state: 'holds', claim }, sourceSiteId: home.siteId };
  down.clear();
  down.add(home.siteId);
  await recovery.votes.held(LEASED_MACHINE);
  await clock.turn(10_000);
  assert.deepEqual([recovery.record()?.told, recovery.record()?.toTell], [claim, undefined]);
  // Its home is back, reaches the recovery site alone, and is lost for good.
  await home.machine!.right.hear(claim);
  down.clear();
  down.add(witness.siteId);
  await clock.turn(10_000);
  await home.votes.close();
  down.clear();
  down.add(home.siteId);
  await clock.turn(10_000);
  assert.equal(witness.record()?.ended, true);
  assert.deepEqual([recovery.record(), [...recovery.alerts.keys()]], [undefined, []]);
  // It is handed over to the fourth site, which has the same witness.
  await later.makeHome(3, [recovery.siteId]);
  const tenure = { state: 'follows', claim: { epoch: 3, siteId: later.siteId } } as const;
  recovery.replica = { tenure, sourceSiteId: later.siteId };
  await later.lease({ recoverySiteId: recovery.siteId, witnessSiteId: witness.siteId });
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.ended, [...later.alerts.keys()]], [undefined, []]);
});

for (const isLate of [false, true])
  test(`S0.17 what the holder of a machine says ${isLate ? 'late ' : ''}of the end of its leases ends none that have begun there since`, async (t) => {
    const s = await sites(t);
    const { clock, down, slow, home, recovery, witness, later } = s;
    const claim = await takeBySecondWord(s);
    down.delete(recovery.siteId);
    await clock.turn(10_000);
    await home.votes.close();
    down.add(home.siteId);
    const arrives = Promise.withResolvers<void>();
    if (isLate) slow.set('lease.end', arrives.promise);
    down.delete(witness.siteId);
    await clock.turn(6_000);
    slow.clear();
    await recovery.makeHome(2, [later.siteId]);
    later.replica = { tenure: { state: 'follows', claim }, sourceSiteId: recovery.siteId };
    await recovery.lease({ recoverySiteId: later.siteId, witnessSiteId: witness.siteId });
    await clock.turn(3_000);
    arrives.resolve();
    // The word arrives now, and its site is lost before it asks for anything more.
    await clock.turn(0);
    down.add(recovery.siteId);
    await clock.turn(20_000);
    const given = await voted({ ...s, recovery: later });
    assert.deepEqual(given, { epoch: 3, siteId: later.siteId });
  });

test('S0.17 people are warned no more that a witness does not count who holds a machine when it has heard that its leases have ended', async (t) => {
  const s = await sites(t);
  const { clock, down, lost, home, recovery, witness } = s;
  const { vote, ...others } = witness.record()!;
  const entitled = { epoch: 5, siteId: home.siteId };
  await witness.records.store({
    ...others,
    vote: { entitled, seen: entitled, term: 'for-good', before: vote.entitled },
  });
  const claim = await takeBySecondWord(s);
  lost.add('lease.end');
  down.clear();
  await clock.turn(10_000);
  assert.deepEqual(
    [...recovery.alerts.values()].map(({ code }) => code),
    ['LEASE_VOTE_STANDS'],
  );
  lost.clear();
  await clock.turn(10_000);
  await witness.votes.forgetWitnessed(LEASED_MACHINE);
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [claim, true]);
  assert.deepEqual([recovery.record(), [...recovery.alerts.keys()]], [undefined, []]);
});

test('S0.17 that a machine has moved on is told to its witness again while that has voted for a site that has not used it', async (t) => {
  const s = await sites(t);
  const { clock, down, call, home, recovery, witness, later } = s;
  const alert = `lease-hold:${LEASED_MACHINE}`;
  const vote = await lose(s);
  await home.endLeases(true);
  const claim = { epoch: 2, siteId: later.siteId };
  await home.machine!.right.hear(claim);
  await clock.turn(20_000);
  assert.deepEqual([witness.record()?.vote.entitled, home.record()?.toTell], [vote, s.claim]);
  assert.equal(home.alerts.get(alert)?.code, 'LEASE_VOTE_STANDS');
  down.delete(recovery.siteId);
  await call(recovery.siteId, witness.siteId, 'lease.let-go', { machineId: LEASED_MACHINE, claim: vote });
  await clock.turn(10_000);
  assert.deepEqual([witness.record()?.vote.entitled, home.record()?.toTell], [claim, undefined]);
  assert.equal(home.alerts.has(alert), false);
});

test('S0.17 the recovery site hears of the end of leases as well that was said on somebody’s word, and asks the witness for nothing then, which hears it too', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness } = s;
  down.add(recovery.siteId);
  await home.endLeases(true);
  await clock.turn(10_000);
  assert.equal(recovery.votes.isParty(LEASED_MACHINE), true);
  assert.deepEqual([...home.alerts.keys()], [`lease-end:${LEASED_MACHINE}`]);
  down.delete(recovery.siteId);
  await clock.turn(10_000);
  assert.equal(recovery.votes.isParty(LEASED_MACHINE), false);
  assert.deepEqual([home.record(), [...home.alerts.keys()]], [undefined, []]);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [s.claim, true]);
  assert.equal(await voted(s), 'LEASE_UNKNOWN');
});

test('S0.17 it hears of it also when it knows by then that the machine has moved on', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness, later } = s;
  down.add(recovery.siteId);
  await home.endLeases(true);
  const claim = { epoch: 2, siteId: later.siteId };
  await home.machine!.right.hear(claim);
  recovery.replica = { tenure: { state: 'follows', claim }, sourceSiteId: later.siteId };
  down.delete(recovery.siteId);
  await clock.turn(10_000);
  assert.equal(recovery.votes.isParty(LEASED_MACHINE), false);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [claim, true]);
  assert.equal(home.record(), undefined);
});

test('S0.17 it hears of it again while it asks for the machine, and not when leases with it have begun anew', async (t) => {
  const s = await sites(t);
  const { clock, down, home, recovery, witness } = s;
  const terms = { recoverySiteId: recovery.siteId, witnessSiteId: witness.siteId };
  down.add(recovery.siteId);
  await home.endLeases(true);
  await clock.turn(20_000);
  // It is parted from the witness, and asks.
  down.delete(recovery.siteId);
  down.add(witness.siteId);
  const giving = new AbortController();
  const seeking = assert.rejects(recovery.votes.seek(LEASED_MACHINE, giving.signal));
  await clock.turn(2_000);
  recovery.votes.tell();
  home.votes.tell();
  await clock.turn(0);
  assert.ok(home.record()?.toEnd, 'it wants it');
  giving.abort();
  await clock.turn(0);
  await seeking;
  await clock.turn(10_000);
  assert.deepEqual(
    home.record()?.toEnd?.map(({ siteId }) => siteId),
    [witness.siteId],
  );
  down.delete(witness.siteId);
  await clock.turn(10_000);
  await home.lease(terms);
  await clock.turn(5_000);
  // An end of those is still owed when others begin.
  down.add(recovery.siteId);
  await home.endLeases(true);
  await home.lease(terms);
  down.delete(recovery.siteId);
  await clock.turn(20_000);
  assert.equal(recovery.votes.isParty(LEASED_MACHINE), true);
  assert.equal(home.record()?.toEnd, undefined);
  assert.equal(home.alerts.has(`lease-end:${LEASED_MACHINE}`), false);
});

test('S0.17 people are warned that a witness does not count who holds a machine, and it does when it has forgotten its vote', async (t) => {
  const s = await sites(t);
  const { clock, home, witness } = s;
  const terms = { recoverySiteId: s.later.siteId, witnessSiteId: (await s.add('y')).siteId };
  const alert = `lease-hold:${LEASED_MACHINE}`;
  for (const others of [false, true]) {
    await lose(s, others ? 10 : 9);
    await home.endLeases(true);
    if (others) await home.lease(terms);
    await clock.turn(10_000);
    assert.equal(home.alerts.get(alert)?.code, 'LEASE_VOTE_STANDS');
    if (others) break;
    // Leases of both begin anew: nothing of that is left to tell.
    s.down.delete(s.recovery.siteId);
    await home.lease({ recoverySiteId: s.recovery.siteId, witnessSiteId: witness.siteId });
    assert.equal(home.alerts.has(alert), false);
    await witness.votes.forgetWitnessed(LEASED_MACHINE);
    await clock.turn(10_000);
  }
  await witness.votes.forgetWitnessed(LEASED_MACHINE);
  await clock.turn(10_000);
  assert.deepEqual([home.alerts.has(alert), home.record()?.toHold], [false, undefined]);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.vote.term], [s.claim, 'for-good']);
});

test('S0.17 a witness that is paired no more is not asked again and again to hear who holds the machine, or what was let go, and hears it when it is paired anew', async (t) => {
  const s = await sites(t);
  const { clock, down, revoked, asked, home, recovery, witness } = s;
  const told = () => asked.filter(({ from, to }) => from !== witness.siteId && to === witness.siteId).length;
  // The recovery site has asked the witness, and cannot say that it does not want that any more.
  down.add(home.siteId);
  const vote = await voted(s);
  down.delete(home.siteId);
  revoked.add(witness.siteId);
  recovery.votes.letGo(LEASED_MACHINE);
  down.add(recovery.siteId);
  await clock.turn(10_000);
  await home.endLeases(true);
  await clock.turn(10_000);
  const before = told();
  await clock.turn(4 * 60_000);
  assert.equal(told(), before);
  assert.deepEqual([home.record()?.toTell, recovery.record()?.seeking], [s.claim, vote]);
  revoked.delete(witness.siteId);
  down.delete(recovery.siteId);
  for (const { votes } of [home, recovery]) votes.tell();
  await clock.turn(10_000);
  assert.equal(recovery.record()?.seeking, undefined);
  assert.deepEqual([witness.record()?.vote.entitled, witness.record()?.ended], [s.claim, true]);
});

test('S0.17 what an older program has left to be told of a machine that is here no more, without its claim, is told to nobody, and kept no longer', async (t) => {
  const { clock, asked, home, witness, later, claim } = await sites(t);
  const siteIds = [home.siteId, later.siteId];
  const left = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', leaseMs: 10_000, siteIds, ended: true as const },
    ...{ vote: { entitled: claim, seen: claim, term: 'for-good' as const }, witnessSiteId: home.siteId },
    toHold: [{ witnessSiteId: witness.siteId, siteIds }],
  };
  await later.records.store(left);
  // It was given up here: who has it may be known yet.
  const word = { epoch: 2, siteId: later.siteId };
  later.replica = { tenure: { state: 'follows', claim: word }, sourceSiteId: home.siteId };
  later.votes.tell();
  await clock.turn(10_000);
  assert.deepEqual(later.record()?.toHold, left.toHold);
  later.replica = undefined;
  later.votes.tell();
  await clock.turn(10_000);
  assert.equal(later.record(), undefined);
  assert.equal(
    asked.some(({ from }) => from === later.siteId),
    false,
  );
});
