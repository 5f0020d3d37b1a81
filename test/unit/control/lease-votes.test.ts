import assert from 'node:assert/strict';
import { it } from 'node:test';
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

/** The witness of a machine, and what the two others ask of it. */
async function witness() {
  const disk = new SimDisk();
  const faults = new DiskFaults();
  const clock = new FakeClock();
  const opened = async () => {
    const alerts = { raise: () => undefined, clear: () => undefined };
    const records = await VoteRecords.open({ files: new SimFiles(disk, AT_ONCE, faults), alerts }, '/');
    const votes = new LeaseVotes({
      ...{ siteId: WITNESS, records, clock, bootClock: clock, log: silentLog },
      audit: { note: () => undefined },
      client: () => ({ call: () => Promise.reject(new Error('nobody is called')) }),
      standing: () => undefined,
      runsByLeases: () => false,
      hear: () => Promise.reject(new Error('nobody is told')),
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
    vote: () => site.records.get(MACHINE)?.vote,
    /** The power of its host fails, and it is opened again. */
    losePower: async () => {
      disk.crash(new SimRandom(1, 1), { names: 'ordered', pagesKept: 1, metadataFirst: true });
      site = await opened();
    },
  };
}

it('S0.17 what a voter could not store is not what it finds after a power cut, once it has lent again', async () => {
  const w = await witness();
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
  const w = await witness();
  const renewal = { kind: 'renew', claim: FIRST, begunAtMs: 7 };
  assert.deepEqual(await w.ask(HOME, renewal), { granted: true });
  const end = { machineId: MACHINE, claim: FIRST, begunAtMs: 7 };
  assert.deepEqual(await w.call(HOME, 'lease.end', end), { ended: true });
  await assert.rejects(w.ask(HOME, renewal), { code: 'LEASE_UNKNOWN' });
  assert.equal(w.vote(), undefined);
  assert.deepEqual(await w.ask(HOME, { ...renewal, begunAtMs: 8 }), { granted: true });
});
