/** What a witness takes from whom, and what it is made to forget. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Claim } from '../../../src/recovery-point/index.ts';
import { LEASED_MACHINE, type LeasedSites, leasedSites } from '../../support/lease-sites.ts';

test('S0.17 a machine that nobody would lend runs on without leases, unguarded, and nothing is stored of them', async (t) => {
  const s = await leasedSites(t);
  await s.home.endLeases();
  s.down.add(s.witness.siteId);
  s.down.add(s.recovery.siteId);
  const terms = { recoverySiteId: s.recovery.siteId, witnessSiteId: s.witness.siteId };
  await assert.rejects(s.home.lease(terms), { code: 'LEASE_REFUSED' });
  assert.equal(s.home.machine!.record.lease, undefined);
  assert.equal(s.home.guards.untilMs, undefined);
});

test('S0.17 whoever is asked whether it would lend a machine promises nothing by its answer', async (t) => {
  const s = await leasedSites(t);
  await s.home.endLeases();
  await s.clock.turn(0);
  const ended = s.witness.record();
  const ask = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim: s.claim, leaseMs: 10_000 },
    ...{ siteIds: [s.home.siteId, s.recovery.siteId], witnessSiteId: s.witness.siteId },
  };
  for (const { siteId } of [s.recovery, s.witness])
    assert.deepEqual(await s.call(s.home.siteId, siteId, 'lease.would', ask), { granted: true });
  assert.deepEqual([s.recovery.record(), s.witness.record()], [undefined, ended]);
});

test('S0.17 a stranger neither has the machine lent by a witness that knows it, nor ends what that knows', async (t) => {
  const { call, home, recovery, witness, later } = await leasedSites(t);
  const claim = { epoch: 99, siteId: later.siteId };
  const ask = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, later.siteId], witnessSiteId: witness.siteId },
  };
  await assert.rejects(call(later.siteId, witness.siteId, 'lease.ask', ask), { code: 'LEASE_NOT_YOURS' });
  const end = { machineId: LEASED_MACHINE, claim };
  await assert.rejects(call(later.siteId, witness.siteId, 'lease.end', end), { code: 'LEASE_NOT_YOURS' });
  const there = { ...ask, siteIds: [later.siteId, recovery.siteId].sort() };
  const refused = { code: 'REPLICATION_NOT_YOURS' };
  await assert.rejects(call(later.siteId, recovery.siteId, 'lease.ask', there), refused);
  // Nor is it told who holds it.
  recovery.replica!.tenure = { state: 'follows', claim: { epoch: 5, siteId: home.siteId } };
  const below = { ...there, claim: { epoch: 3, siteId: later.siteId } };
  await assert.rejects(call(later.siteId, recovery.siteId, 'lease.ask', below), refused);
});

/** The machine was brought up elsewhere on somebody's word, by leases of which the witness takes nothing: it knows the former two, who are gone. */
async function isElsewhere(s: LeasedSites): Promise<Claim> {
  const { clock, down, home, recovery, witness, later } = s;
  const further = await s.add('y');
  down.add(home.siteId).add(recovery.siteId);
  await clock.turn(30_000);
  await later.makeHome(7, [further.siteId]);
  const claim = { epoch: 7, siteId: later.siteId };
  further.replica = { tenure: { state: 'follows', claim }, sourceSiteId: later.siteId };
  await later.lease({ recoverySiteId: further.siteId, witnessSiteId: witness.siteId });
  await clock.turn(10_000);
  assert.equal(later.leases.standing(LEASED_MACHINE)!.lentMs[witness.siteId], 0);
  return claim;
}

test('S0.17 a witness whose former sites are gone is made to forget by a person, and not while it lends the machine', async (t) => {
  const s = await leasedSites(t);
  const { clock, later, witness } = s;
  assert.throws(() => witness.votes.witnessed('other'), { code: 'LEASE_UNKNOWN' });
  const { machineId } = witness.votes.witnessed('web');
  await assert.rejects(witness.votes.forgetWitnessed(machineId), { code: 'LEASE_LENT' });
  await isElsewhere(s);
  await witness.votes.forgetWitnessed(machineId);
  assert.throws(() => witness.votes.witnessed('web'), { code: 'LEASE_UNKNOWN' });
  await clock.turn(10_000);
  assert.ok(later.leases.standing(LEASED_MACHINE)!.lentMs[witness.siteId]! > 0);
});

/** Its former home is back, and reaches the witness alone, which lends it nothing; and by the word of a stranger alone it is not fenced. */
async function isLentNothing({ clock, down, home, later, witness, claim }: LeasedSites): Promise<void> {
  down.delete(home.siteId);
  down.add(later.siteId);
  await clock.turn(20_000);
  assert.equal(home.leases.standing(LEASED_MACHINE)!.lentMs[witness.siteId], 0);
  assert.deepEqual(home.machine!.right.tenure, { state: 'holds', claim });
}

test('S0.17 a witness that has forgotten earlier leases hears of the end of later ones, and lends to no former home below that', async (t) => {
  const s = await leasedSites(t);
  const { clock, down, later, witness } = s;
  const claim = await isElsewhere(s);
  down.add(witness.siteId);
  await later.endLeases();
  await witness.votes.forgetWitnessed(LEASED_MACHINE);
  down.delete(witness.siteId);
  await clock.turn(10_000);
  const before = s.claim;
  assert.deepEqual(witness.record()?.vote, { entitled: claim, seen: claim, term: 'for-good', before });
  assert.equal(later.record(), undefined);
  await isLentNothing(s);
  // A person can take that away as well.
  await witness.votes.forgetWitnessed(witness.votes.witnessed('web').machineId);
  assert.deepEqual(witness.record()?.vote.entitled, before);
});

test('S0.17 a witness that knows of earlier leases alone has not heard of the end of later ones: an alert says so until it has forgotten those', async (t) => {
  const s = await leasedSites(t);
  const { clock, later, witness } = s;
  const claim = await isElsewhere(s);
  await later.endLeases();
  await clock.turn(10_000);
  const key = `lease-end:${LEASED_MACHINE}`;
  assert.equal(later.alerts.get(key)?.code, 'LEASE_NOT_YOURS');
  await witness.votes.forgetWitnessed(LEASED_MACHINE);
  await clock.turn(5_000);
  assert.deepEqual([later.alerts.get(key), later.record()], [undefined, undefined]);
  assert.deepEqual(witness.record()?.vote.entitled, claim);
  await isLentNothing(s);
});

test('S0.17 of two machines of one name a witness is made to forget the one whose id is said', async (t) => {
  const { call, home, recovery, witness, later } = await leasedSites(t);
  const machineId = `${'0'.repeat(25)}n`;
  const claim = { epoch: 3, siteId: later.siteId };
  const ask = {
    ...{ machineId, machineName: 'web', kind: 'hold', claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, later.siteId], witnessSiteId: witness.siteId },
  };
  await call(later.siteId, witness.siteId, 'lease.ask', ask);
  assert.throws(() => witness.votes.witnessed('web'), {
    code: 'LEASE_AMBIGUOUS',
    message: [
      '2 machines are called web:',
      `${LEASED_MACHINE} of the sites ${home.siteId} and ${recovery.siteId}, held by ${home.siteId} by leases in epoch 1;`,
      `${machineId} of the sites ${home.siteId} and ${later.siteId}, held by ${later.siteId} for good in epoch 3`,
    ].join(' '),
  });
  await witness.votes.forgetWitnessed(witness.votes.witnessed(machineId).machineId);
  assert.equal(witness.votes.witnessed('web').machineId, LEASED_MACHINE);
});
