import assert from 'node:assert/strict';
import { test } from 'node:test';
import { controlFailure } from '../../../src/control/errors.ts';
import { LATE_MS_MAX } from '../../../src/control/leases/lease-wire.ts';
import { LEASED_MACHINE, unleasedSites } from '../../support/lease-sites.ts';

test('S0.17 nobody is asked to lend a machine before it is certain that its leases are stored', async (t) => {
  const { clock, asked, home, terms } = await unleasedSites(t);
  const renewals = () => asked.filter(({ name }) => name === 'lease.ask').length;
  home.faults.arm({ act: 'syncDirectory', system: 'EIO', after: 1, forever: true });
  await assert.rejects(home.lease(terms), { code: 'FSYNC_FAILED' });
  await clock.turn(20_000);
  assert.ok(home.machine!.record.lease, 'they count here');
  assert.equal(renewals(), 0, 'and after a power cut they might not');
  home.faults.heal();
  await clock.turn(5_000);
  assert.ok(renewals() > 0);
  assert.equal(home.leases.standing(LEASED_MACHINE)?.guest, 'runs');
});

test('S0.17 that a machine was held for good is not told of one that runs by leases again', async (t) => {
  const { clock, down, home, recovery, witness, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  down.add(witness.siteId);
  await home.endLeases(true);
  await clock.turn(15_000);
  await home.lease(terms);
  await clock.turn(5_000);
  down.delete(witness.siteId);
  // Its home ends before it has asked the witness itself.
  await home.leases.close();
  await clock.turn(10_000);
  down.add(home.siteId);
  assert.equal(witness.record()?.vote.term, 'leased');
  const voted = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
  await clock.turn(30_000);
  assert.equal((await voted).siteId, recovery.siteId);
});

test('S0.17 leases that begin anew by a clock that was set back end those before them as well', async (t) => {
  const { clock, call, home, recovery, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const { begunAtMs } = home.machine!.record.lease!;
  const claim = { epoch: 1, siteId: home.siteId };
  // As by a home that was killed while it ended them.
  const end = { machineId: LEASED_MACHINE, claim, begunAtMs: begunAtMs! };
  assert.deepEqual(await call(home.siteId, recovery.siteId, 'lease.end', end), { ended: true });
  await clock.turn(5_000);
  assert.equal(home.machine!.record.lease!.begunAtMs, begunAtMs! + LATE_MS_MAX - 1);
  assert.ok(home.leases.standing(LEASED_MACHINE)!.lentMs[recovery.siteId]! > 0);
  await home.endLeases();
  const late = {
    ...{ machineId: LEASED_MACHINE, machineName: 'web', kind: 'renew', claim, leaseMs: 10_000 },
    ...{ siteIds: [home.siteId, recovery.siteId], witnessSiteId: terms.witnessSiteId, begunAtMs: begunAtMs! },
  };
  await assert.rejects(call(home.siteId, recovery.siteId, 'lease.ask', late), { code: 'LEASE_UNKNOWN' });
  // Others begin all the same, though the clock is behind the beginning of those.
  await home.lease(terms);
  await clock.turn(5_000);
  assert.ok(home.leases.standing(LEASED_MACHINE)!.lentMs[recovery.siteId]! > 0);
});

test('S0.17 a guard that an end of leases could not dismiss goes soon, and stops its guest if leases begin before that', async (t) => {
  const { clock, lost, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  home.guards.dismissalFails = controlFailure('LEASE_NOT_LENT', 'it was killed on the way');
  await assert.rejects(home.endLeases(), { code: 'LEASE_NOT_LENT' });
  await clock.turn(0);
  assert.equal(home.guards.untilMs, undefined);
  // As an earlier process has left one.
  home.guards.untilMs = Number.POSITIVE_INFINITY;
  lost.add('lease.ask');
  await home.lease(terms);
  await clock.turn(1_000);
  assert.equal(home.guards.untilMs, clock.monotonicMs() + 4_000);
});

test('S0.17 a machine whose monitor this site has lost is lent as long as its guard is there', async (t) => {
  const { clock, asked, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const [machine, { guards, leases }] = [home.machine!, home];
  const toldWhileAway = async (presence: typeof machine.presence) => {
    machine.presence = presence;
    leases.look(LEASED_MACHINE);
    const before = guards.untilMs!;
    await clock.turn(15_000);
    return guards.untilMs !== undefined && guards.untilMs > before;
  };
  machine.running = undefined;
  assert.ok(await toldWhileAway({ state: 'stopped' }), 'until it is looked for again');
  assert.ok(await toldWhileAway({ state: 'unreachable', reason: 'somebody else has its monitor' }));
  machine.presence = { state: 'stopped' };
  guards.end();
  await clock.turn(5_000);
  const { length } = asked;
  await clock.turn(30_000);
  assert.equal(asked.length, length, 'it has ended');
});

test('S0.17 people are warned of a site that gets copies and has no part in the leases', async (t) => {
  const { clock, home, terms } = await unleasedSites(t);
  home.machine!.targets.push({ siteId: 'further' });
  await home.lease(terms);
  await clock.turn(5_000);
  const key = `lease-further:${LEASED_MACHINE}`;
  assert.equal(home.alerts.get(key)?.code, 'LEASE_FURTHER_TARGET');
  home.machine!.targets.pop();
  await clock.turn(5_000);
  assert.equal(home.alerts.get(key), undefined);
});

test('S0.17 of a machine that is off, and whose files somebody else has, nobody says that it is not lent, and its guard is not looked for again and again', async (t) => {
  const { clock, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const [machine, { guards, leases, alerts }] = [home.machine!, home];
  machine.running = undefined;
  machine.presence = { state: 'stopped' };
  guards.startFails = controlFailure('LEASE_NOT_LENT', 'there is no machine to guard');
  guards.end();
  leases.look(LEASED_MACHINE);
  await clock.turn(60_000);
  machine.presence = { state: 'unreachable', reason: 'a backup reads its disk' };
  leases.look(LEASED_MACHINE);
  const before = guards.lookedFor;
  await clock.turn(30_000);
  assert.deepEqual([[...alerts.keys()], guards.lookedFor - before], [[], 1]);
  // It comes back, with its guard.
  guards.startFails = undefined;
  machine.running = {};
  machine.presence = { state: 'running', processId: undefined };
  leases.look(LEASED_MACHINE);
  await clock.turn(5_000);
  assert.equal(leases.standing(LEASED_MACHINE)?.guest, 'runs');
});

test('S0.17 the guard of a machine whose monitor this site has lost is started anew before its lease is over, also if that fails at first', async (t) => {
  const { clock, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const [machine, { guards, leases }] = [home.machine!, home];
  machine.running = undefined;
  machine.presence = { state: 'unreachable', reason: 'somebody else has its monitor' };
  leases.look(LEASED_MACHINE);
  await clock.turn(5_000);
  guards.startFails = controlFailure('LEASE_NOT_LENT', 'it was not ready in time');
  guards.end();
  await clock.turn(1_000);
  assert.equal(guards.untilMs, undefined);
  guards.startFails = undefined;
  await clock.turn(5_000);
  assert.ok(guards.untilMs! > clock.monotonicMs());
  assert.equal(leases.standing(LEASED_MACHINE)?.guest, 'runs');
});

test('S0.17 nor is it waited for longer where the site that starts has not looked at the machine yet', async (t) => {
  const { clock, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const [machine, { guards, leases }] = [home.machine!, home];
  await leases.close();
  machine.running = undefined;
  machine.presence = { state: 'stopped', isUnseen: true };
  guards.startFails = controlFailure('LEASE_NOT_LENT', 'it was not ready in time');
  guards.end();
  leases.look(LEASED_MACHINE);
  await clock.turn(100);
  // It runs, and somebody else has its monitor.
  machine.presence = { state: 'unreachable', reason: 'somebody else has its monitor' };
  leases.look(LEASED_MACHINE);
  await clock.turn(1_000);
  assert.equal(guards.untilMs, undefined);
  guards.startFails = undefined;
  await clock.turn(5_000);
  assert.ok(guards.untilMs! > clock.monotonicMs());
  assert.equal(leases.standing(LEASED_MACHINE)?.guest, 'runs');
});

test('S0.17 leases that have begun are no failure because what was known of earlier ones could not be removed at once', async (t) => {
  const { clock, down, home, recovery, witness, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  down.add(witness.siteId);
  await home.endLeases();
  await clock.turn(10_000);
  assert.deepEqual([...home.alerts.keys()], [`lease-end:${LEASED_MACHINE}`]);
  const { records } = home;
  const remove = records.remove.bind(records);
  records.remove = () => Promise.reject(controlFailure('SITE_DATABASE_FULL', 'there is no room'));
  await home.lease(terms);
  await clock.turn(5_000);
  assert.ok(home.leases.standing(LEASED_MACHINE)!.lentMs[recovery.siteId]! > 0);
  assert.ok(home.record());
  records.remove = remove;
  await clock.turn(5_000);
  assert.equal(home.record(), undefined);
});

test('S0.17 what a site has lent counts while it could not store that the leases have ended', async (t) => {
  const { clock, down, home, recovery, witness, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(1_000);
  // The witness has lent nothing for long.
  down.add(witness.siteId);
  await clock.turn(30_000);
  recovery.faults.arm({ act: 'remove', system: 'EIO', after: 1, forever: false });
  await assert.rejects(home.endLeases());
  down.add(home.siteId);
  down.delete(witness.siteId);
  const startedMs = clock.monotonicMs();
  const voted = recovery.votes.seek(LEASED_MACHINE, new AbortController().signal);
  const endedMs = home.guards.untilMs!;
  let votedMs = 0;
  void voted.then(() => {
    votedMs = clock.monotonicMs();
  });
  await clock.turn(30_000);
  await voted;
  assert.ok(endedMs > startedMs, 'it runs at home by what it was lent');
  assert.ok(votedMs > endedMs, `${votedMs - endedMs} ms after that`);
});

test('S0.17 one guard is started in the place of one that has gone, however many lend the machine at once', async (t) => {
  const { clock, lost, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const { guards, leases } = home;
  // It goes while both are being asked.
  let before: number | undefined;
  lost.has = () => {
    if (before === undefined) guards.end();
    before ??= guards.lookedFor;
    return false;
  };
  await clock.turn(2_500);
  assert.equal(guards.lookedFor - before!, 1);
  assert.equal(leases.standing(LEASED_MACHINE)?.guest, 'runs');
});

test('S0.17 a guest whose guard ends while its leases are ended is under another one before anybody has answered', async (t) => {
  const { clock, slow, home, terms } = await unleasedSites(t);
  await home.lease(terms);
  await clock.turn(5_000);
  const { promise, resolve } = Promise.withResolvers<void>();
  slow.set('lease.end', promise);
  const ending = home.endLeases();
  await clock.turn(0);
  const { untilMs } = home.guards;
  home.guards.end();
  assert.equal(home.guards.untilMs, undefined);
  await clock.turn(0);
  assert.equal(home.guards.untilMs, untilMs, 'with what was lent, and no more');
  resolve();
  await ending;
  assert.equal(home.guards.untilMs, undefined, 'and goes with the leases');
});
