import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VoteRecords } from '../../../src/control/leases/lease-records.ts';
import { LeaseVotes } from '../../../src/control/leases/lease-votes.ts';
import type { Json } from '../../../src/lib/canonical-json.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { peerFailure } from '../../../src/peer/errors.ts';
import type { Peer } from '../../../src/peer/index.ts';
import { afterHearing, type Claim, type Tenure } from '../../../src/recovery-point/index.ts';
import { replicationFailure } from '../../../src/replication/errors.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import type { CleanUp } from '../../support/temporary.ts';

const id = (letter: string) => `${'0'.repeat(25)}${letter}`;
const [MACHINE, HOME, RECOVERY, WITNESS, STRANGER] = ['m', 'p', 'r', 'w', 'x'].map(id) as [
  string,
  string,
  string,
  string,
  string,
];
const LEASE_MS = 10_000;
const TERMS = { recoverySiteId: RECOVERY, witnessSiteId: WITNESS, leaseMs: LEASE_MS };
const AT_HOME: Tenure = { state: 'holds', claim: { epoch: 1, siteId: HOME } };

/** The two sites of a machine, its witness and a stranger, which call one another unless a link is cut. */
async function sites(t: CleanUp) {
  const clock = new FakeClock();
  const down = new Set<string>();
  const leased = new Set([HOME]);
  const tenures = new Map<string, Tenure>([
    [HOME, AT_HOME],
    [RECOVERY, { state: 'follows', claim: AT_HOME.claim }],
  ]);
  const all = new Map<string, { votes: LeaseVotes; records: VoteRecords }>();
  const call = async (from: string, to: string, name: string, body: Json): Promise<Json> => {
    if (down.has(from) || down.has(to)) throw peerFailure('PEER_UNREACHABLE', 'a cable is cut');
    const { signal } = new AbortController();
    return all.get(to)!.votes.calls[name]!({ siteId: from } as Peer, body, signal);
  };
  for (const siteId of [HOME, RECOVERY, WITNESS, STRANGER]) {
    const alerts = { raise: () => undefined, clear: () => undefined };
    const records = await VoteRecords.open({ files: new SimFiles(new SimDisk(), AT_ONCE), alerts }, '/');
    const votes = new LeaseVotes({
      ...{ siteId, records, clock, bootClock: clock, log: silentLog },
      audit: { note: () => undefined },
      client: (to) => ({ call: (name, body) => call(siteId, to, name, body) }),
      standing: () => tenures.get(siteId),
      settle: async () => undefined,
      alerts: { raise: () => undefined, clear: () => undefined },
      leaseOf: () => (leased.has(siteId) ? TERMS : undefined),
      hear: async (_machineId, claim) => {
        const own = tenures.get(siteId);
        if (!own || ![HOME, RECOVERY].includes(claim.siteId))
          throw replicationFailure('REPLICATION_NOT_YOURS', 'a stranger');
        tenures.set(siteId, afterHearing(own, siteId, claim));
      },
    });
    all.set(siteId, { votes, records });
    t.after(() => votes.close());
  }
  const ask = (from: string, to: string, body: Record<string, Json>) =>
    call(from, to, 'lease.ask', {
      ...{ machineId: MACHINE, machineName: 'vm', leaseMs: LEASE_MS, witnessSiteId: WITNESS },
      ...{ siteIds: [HOME, RECOVERY], ...body },
    });
  const renew = (to: string, claim: Claim) => ask(claim.siteId, to, { kind: 'renew', claim: { ...claim } });
  return {
    ...{ clock, down, leased, tenures, ask, renew, call },
    votes: (siteId: string) => all.get(siteId)!.votes,
    record: (siteId: string) => all.get(siteId)!.records.get(MACHINE),
    forget: (siteId: string) => all.get(siteId)!.records.remove(MACHINE),
  };
}

/** Its home has had it lent by both others. */
async function leased(t: CleanUp) {
  const s = await sites(t);
  await s.renew(RECOVERY, AT_HOME.claim);
  await s.renew(WITNESS, AT_HOME.claim);
  return s;
}

const seized: Tenure = { state: 'holds', claim: { epoch: 2, siteId: RECOVERY } };

test('S0.17 a witness that has lost what it knew hears again who holds the machine, without anybody’s asking', async (t) => {
  const s = await leased(t);
  s.tenures.set(RECOVERY, seized);
  await s.votes(RECOVERY).held(MACHINE);
  await s.clock.turn(0);
  assert.deepEqual(s.record(WITNESS)?.vote.entitled, seized.claim);
  await s.forget(WITNESS);
  s.votes(RECOVERY).begin();
  await s.clock.turn(0);
  assert.deepEqual(s.record(WITNESS)?.vote.entitled, seized.claim, 'when the site starts');
  await s.forget(WITNESS);
  await s.clock.turn(6 * 60_000);
  assert.deepEqual(s.record(WITNESS)?.vote.entitled, seized.claim, 'and every few minutes');
});

test('S0.17 what a site holds by somebody’s word is told by its next process, if it was killed before it could note that', async (t) => {
  const s = await leased(t);
  s.tenures.set(RECOVERY, seized);
  s.votes(RECOVERY).begin();
  await s.clock.turn(0);
  assert.deepEqual(s.record(WITNESS)?.vote, { entitled: seized.claim, seen: seized.claim, term: 'for-good' });
});

test('S0.17 a site that holds a machine by a lower claim hears of the higher one, and does not lend what it runs', async (t) => {
  const s = await sites(t);
  await s.renew(RECOVERY, AT_HOME.claim);
  s.tenures.set(RECOVERY, seized);
  const back: Claim = { epoch: 3, siteId: HOME };
  await s.renew(RECOVERY, back);
  assert.deepEqual(s.tenures.get(RECOVERY), { state: 'fenced', claim: back, lost: seized.claim });
});

test('S0.17 a witness that knows of a higher holder is believed by whoever tells it that it holds the machine for good', async (t) => {
  const s = await sites(t);
  await s.renew(RECOVERY, AT_HOME.claim);
  await s.ask(RECOVERY, WITNESS, { kind: 'hold', claim: { ...seized.claim } });
  const parties = { machineId: MACHINE, machineName: 'vm', leaseMs: LEASE_MS, siteIds: [HOME, RECOVERY] };
  s.leased.delete(HOME);
  await s.votes(HOME).holdForGood({ ...parties, witnessSiteId: WITNESS }, AT_HOME.claim, RECOVERY);
  await s.clock.turn(0);
  assert.equal(s.tenures.get(HOME)?.state, 'fenced');
});

test('S0.17 nobody but the sites of a machine has it lent, or names its witness', async (t) => {
  const s = await sites(t);
  const foreign = {
    ...{ kind: 'renew', claim: { epoch: 5, siteId: STRANGER } },
    ...{ siteIds: [RECOVERY, STRANGER], witnessSiteId: WITNESS },
  };
  await assert.rejects(s.ask(STRANGER, RECOVERY, foreign), (error) =>
    isFailure(error, 'REPLICATION_NOT_YOURS'),
  );
  const own = { ...foreign, witnessSiteId: STRANGER };
  await assert.rejects(s.ask(STRANGER, RECOVERY, own), (error) => isFailure(error, 'LEASE_REQUEST_INVALID'));
  assert.equal(s.votes(RECOVERY).isParty(MACHINE), false);
});

test('S0.17 leases that end while a vote that nobody uses stands at the witness fence nobody, and the witness hears that it was let go', async (t) => {
  const s = await leased(t);
  await s.clock.turn(2 * LEASE_MS);
  // The vote is given, and its answer is lost; the site gives up while it cannot reach the witness.
  const giving = new AbortController();
  const seeking = s.votes(RECOVERY).seek(MACHINE, giving.signal);
  await s.clock.turn(0);
  await seeking;
  s.down.add(WITNESS);
  s.votes(RECOVERY).letGo(MACHINE);
  await s.clock.turn(0);
  const end = { machineId: MACHINE, claim: { ...AT_HOME.claim } };
  assert.deepEqual(await s.call(HOME, RECOVERY, 'lease.end', end), { ended: true });
  assert.equal(s.votes(RECOVERY).isParty(MACHINE), false);
  s.down.delete(WITNESS);
  assert.deepEqual(
    await s.call(HOME, WITNESS, 'lease.end', end),
    { ended: true },
    'nobody holds it elsewhere',
  );
  await s.renew(WITNESS, AT_HOME.claim);
  await s.clock.turn(10_000);
  assert.equal(s.record(RECOVERY), undefined, 'it has said that it does not want it, and is done');
  assert.deepEqual(await s.renew(WITNESS, AT_HOME.claim), { granted: true });
});

test('S0.17 a witness that has come to hold the machine itself votes for nobody', async (t) => {
  const s = await leased(t);
  await s.clock.turn(2 * LEASE_MS);
  const own: Claim = { epoch: 2, siteId: WITNESS };
  s.tenures.set(WITNESS, { state: 'holds', claim: own });
  const vote = { kind: 'vote', claim: { epoch: 7, siteId: RECOVERY }, over: { ...AT_HOME.claim } };
  const answer = (await s.ask(RECOVERY, WITNESS, vote)) as { why: string; entitled: Claim };
  assert.deepEqual([answer.why, answer.entitled], ['superseded', own]);
});

test('S0.17 what was asked for by a claim above the one that is held is let go of before that is told', async (t) => {
  const s = await leased(t);
  await s.clock.turn(2 * LEASE_MS);
  // A first question is let go; the second one gets the vote by a higher claim, of which nothing is made.
  for (let asked = 0; asked < 2; asked++) {
    const seeking = s.votes(RECOVERY).seek(MACHINE, new AbortController().signal);
    await s.clock.turn(5_000);
    await seeking;
    if (asked === 1) s.down.add(WITNESS);
    s.votes(RECOVERY).letGo(MACHINE);
    await s.clock.turn(0);
  }
  // Then somebody gives his word, which is a claim below that.
  s.tenures.set(RECOVERY, seized);
  await s.votes(RECOVERY).held(MACHINE);
  s.down.delete(WITNESS);
  await s.clock.turn(10_000);
  assert.deepEqual(s.record(WITNESS)?.vote.entitled, seized.claim);
  assert.equal(s.record(RECOVERY)?.seeking, undefined);
});

test('S0.17 what was held once is not told any more by who has given it up', async (t) => {
  const s = await leased(t);
  s.tenures.set(RECOVERY, seized);
  await s.votes(RECOVERY).held(MACHINE);
  await s.clock.turn(0);
  s.tenures.set(RECOVERY, { state: 'follows', claim: { epoch: 3, siteId: HOME } });
  await s.forget(WITNESS);
  s.votes(RECOVERY).begin();
  await s.clock.turn(6 * 60_000);
  assert.equal(s.record(WITNESS), undefined);
});

test('S0.17 who believes that it holds a machine is told by the witness who took that back, and begins nothing anew without it', async (t) => {
  const s = await leased(t);
  const { signal } = new AbortController();
  const confirmed = () => s.votes(RECOVERY).confirm(MACHINE, seized.claim, signal);
  s.tenures.set(RECOVERY, seized);
  await confirmed();
  assert.deepEqual(s.record(WITNESS)?.vote.entitled, seized.claim);
  s.down.add(WITNESS);
  const silent = assert.rejects(confirmed(), { code: 'LEASE_WITNESS_SILENT' });
  await s.clock.turn(10_000);
  await silent;
  s.down.delete(WITNESS);
  // A person has taken it back at home, and the recovery site has not heard of that.
  const back: Claim = { epoch: 3, siteId: HOME };
  await s.renew(WITNESS, back);
  await assert.rejects(confirmed(), { code: 'LEASE_HELD' });
  assert.deepEqual(s.tenures.get(RECOVERY), { state: 'fenced', claim: back, lost: seized.claim });
  assert.deepEqual(s.record(WITNESS)?.vote.entitled, back);
});
