import assert from 'node:assert/strict';
import { it } from 'node:test';
import { controlFailure } from '../../../src/control/errors.ts';
import { VoteRecords } from '../../../src/control/leases/lease-records.ts';
import { LeaseVotes } from '../../../src/control/leases/lease-votes.ts';
import type { Json } from '../../../src/lib/canonical-json.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { Peer } from '../../../src/peer/index.ts';
import { DiskFaults } from '../../simulation/faults.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { SimRandom } from '../../simulation/sim-random.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const id = (letter: string) => `${'0'.repeat(25)}${letter}`;
const [MACHINE, HOME, RECOVERY, WITNESS] = [id('m'), id('p'), id('r'), id('w')] as const;
const FIRST = { epoch: 1, siteId: HOME };
const SECOND = { epoch: 2, siteId: RECOVERY };
const LEASE_MS = 10_000;
const SOUGHT = { granted: false, why: 'sought', entitled: FIRST, seen: FIRST, isHeld: false, waitMs: 0 };

const nobodyAnswers = () => Promise.reject(controlFailure('LEASE_WITNESS_SILENT', 'nobody answers'));

/** One of the lenders of a machine, and what the others ask of it; it reaches them by `reach`. */
async function lender(siteId: string, reach: (name: string, body: Json) => Promise<Json> = nobodyAnswers) {
  const disk = new SimDisk();
  const faults = new DiskFaults();
  const clock = new FakeClock();
  const opened = async () => {
    const alerts = { raise: () => undefined, clear: () => undefined };
    const records = await VoteRecords.open({ files: new SimFiles(disk, AT_ONCE, faults), alerts }, '/');
    const votes = new LeaseVotes({
      ...{ siteId, records, clock, bootClock: clock, log: silentLog },
      settle: async () => undefined,
      alerts: { raise: () => undefined, clear: () => undefined },
      leaseOf: () => undefined,
      hear: async () => undefined,
      audit: { note: () => undefined },
      client: () => ({ call: reach }),
      standing: () => (siteId === RECOVERY ? { state: 'follows', claim: FIRST } : undefined),
    });
    return { records, votes };
  };
  let site = await opened();
  const call = (from: string, name: string, body: Record<string, Json>) =>
    site.votes.calls[name]!({ siteId: from } as Peer, body, new AbortController().signal);
  const ask = (from: string, body: Record<string, Json>) =>
    call(from, 'lease.ask', {
      ...{ machineId: MACHINE, machineName: 'vm', leaseMs: LEASE_MS, witnessSiteId: WITNESS },
      ...{ siteIds: [HOME, RECOVERY], ...body },
    });
  return {
    ...{ faults, clock, call, ask },
    votes: () => site.votes,
    vote: () => site.records.get(MACHINE)?.vote,
    /** The power of its host fails, and it is opened again. */
    losePower: async () => {
      disk.crash(new SimRandom(1, 1), { names: 'ordered', pagesKept: 1, metadataFirst: true });
      site = await opened();
    },
  };
}

it('S0.17 what a voter could not store is not what it finds after a power cut, once it has lent again', async () => {
  const w = await lender(WITNESS);
  await w.ask(HOME, { kind: 'renew', claim: FIRST });
  await w.clock.turn(2 * LEASE_MS);
  // Its name is there, and whether that is durable nobody knows.
  w.faults.arm({ act: 'syncDirectory', system: 'EIO', after: 1, forever: false });
  const vote = w.ask(RECOVERY, { kind: 'vote', claim: SECOND, over: FIRST });
  await assert.rejects(vote, { code: 'FSYNC_FAILED' });
  assert.deepEqual(await w.ask(HOME, { kind: 'renew', claim: FIRST }), { granted: true });
  await w.losePower();
  assert.deepEqual(w.vote()?.entitled, FIRST, 'who was lent the machine counts');
});

it('S0.17 who asks for leases that have ended is heard late, and changes nothing; others begin', async () => {
  const w = await lender(WITNESS);
  const renewal = { kind: 'renew', claim: FIRST, begunAtMs: 7 };
  assert.deepEqual(await w.ask(HOME, renewal), { granted: true });
  const end = { machineId: MACHINE, claim: FIRST, begunAtMs: 7 };
  assert.deepEqual(await w.call(HOME, 'lease.end', end), { ended: true });
  await assert.rejects(w.ask(HOME, renewal), { code: 'LEASE_UNKNOWN' });
  await assert.rejects(w.ask(HOME, { ...renewal, begunAtMs: 6 }), { code: 'LEASE_UNKNOWN' });
  assert.equal(w.vote()?.term, 'for-good');
  assert.deepEqual(await w.ask(HOME, { ...renewal, begunAtMs: 8 }), { granted: true });
});

it('S0.17 a vote is let go of when it is certain that nothing was made of it, and not before; also when the leases have ended', async () => {
  const told: string[] = [];
  let isReached = true;
  const r = await lender(RECOVERY, async (name) => {
    if (!isReached) return nobodyAnswers();
    told.push(name);
    return { granted: true };
  });
  const renewal = { kind: 'renew', claim: FIRST };
  await r.ask(HOME, renewal);
  const voted = r.votes().seek(MACHINE, new AbortController().signal);
  await r.clock.turn(2 * LEASE_MS);
  assert.deepEqual(await voted, SECOND);
  let tries = 0;
  r.votes().letGo(MACHINE, async () => {
    tries += 1;
    if (tries === 1) throw new Error('the disk refuses');
  });
  await r.clock.turn(0);
  assert.deepEqual([told, await r.ask(HOME, renewal)], [['lease.ask'], { ...SOUGHT }]);
  isReached = false;
  await r.clock.turn(5_000);
  assert.equal(tries, 2);
  assert.deepEqual(await r.ask(HOME, renewal), { granted: true });
  const end = { machineId: MACHINE, claim: FIRST };
  assert.deepEqual(await r.call(HOME, 'lease.end', end), { ended: true });
  assert.equal(r.votes().isParty(MACHINE), false);
  isReached = true;
  await r.clock.turn(5_000);
  assert.deepEqual([told, r.vote()], [['lease.ask', 'lease.let-go'], undefined]);
});
