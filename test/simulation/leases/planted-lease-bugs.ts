import { seizeRight } from '../../../src/failover/right.ts';
import type { LeaseGuard, LeaseGuards } from '../../../src/hypervisor/index.ts';
import type { Json } from '../../../src/lib/canonical-json.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import { tenureOfReplica } from '../../../src/replica/index.ts';
import { withoutSync } from '../changed-files.ts';
import type { LeaseWrappers } from './lease-site.ts';
import { type FixedLeaseSwarm, LEASE_EVENTS } from './lease-swarm.ts';

export interface PlantedLeaseBug {
  readonly name: string;
  readonly wrap: LeaseWrappers;
  /** What the simulation must say. */
  readonly expects: RegExp;
  /** Tried first, as there are lives that take seconds and find nothing. Default 1. */
  readonly firstSeed?: number;
  /** What the life is about in which it is found soon. */
  readonly swarm?: FixedLeaseSwarm;
}

const NOTHING_HAPPENS = Object.fromEntries(LEASE_EVENTS.map((event) => [event, 0]));
const BOTH = /the machine runs at both sites/;

/** Mistakes that somebody could make, each of which the simulation must find within its seeds. */
export const PLANTED_LEASE_BUGS: readonly PlantedLeaseBug[] = [
  {
    name: 'a guard lets its guest run for longer than its lenders count',
    wrap: { guards: (guards) => lendingMore(guards, 5_000) },
    expects: BOTH,
  },
  {
    name: 'a vote leaves its voter before it is durable',
    wrap: {
      files: (files, site) => (site === 'W' ? withoutSync(files, (path) => path.includes('/votes/')) : files),
    },
    expects: /was granted, and after a power cut|was let go, and that is not durable|vote:.* cannot be read/,
  },
  {
    name: 'the recovery site lends again, and lets go, before it holds what it has asked for',
    wrap: {
      votes: (votes, site) => {
        if (site !== 'R') return;
        const seek = votes.seek.bind(votes);
        votes.seek = async (machineId, signal) => {
          const claim = await seek(machineId, signal);
          votes.letGo(machineId);
          return claim;
        };
      },
    },
    expects: /the machine runs at both sites|the witness does not know/,
    firstSeed: 50,
  },
  {
    name: 'a lender that starts has forgotten what it lent',
    wrap: { bootClock: (clock, site) => (site === 'P' ? clock : startedLongAgo(clock)) },
    expects: BOTH,
    firstSeed: 50,
  },
  {
    name: 'a guard ends with its site',
    wrap: { guardEndsWithSite: true },
    expects: BOTH,
    swarm: {
      leaseMs: 4_000,
      rates: { 'kill-home': 1 / 60, isolate: 1 / 150, 'kill-guard': 0, 'cut-power-home': 0 },
    },
  },
  {
    name: 'the recovery site starts the machine before it is durable that it holds it',
    wrap: {
      files: (files, site) =>
        site === 'R' ? withoutSync(files, (path) => path.includes('replica.json')) : files,
    },
    expects: /what is durable is|is followed, and that is not durable|is not a valid replica record/,
  },
  {
    name: 'leases that have ended begin again by a question that was late',
    wrap: {
      calls: (calls) => ({
        ...calls,
        'lease.end': (peer, body, signal) => {
          const { begunAtMs: _which, ...end } = body as Record<string, Json>;
          return calls['lease.end']!(peer, end, signal);
        },
      }),
    },
    expects: BOTH,
    swarm: {
      leaseMs: 6_000,
      weather: { lost: 0.15, doubled: 0.8, late: 0.3 },
      rates: { 'change-leases': 1 / 200, isolate: 1 / 250, word: 0 },
    },
  },
  {
    name: 'the home asks for leases of which it is not certain that they are stored',
    wrap: {
      home: ({ right }) => {
        right.settle = async () => undefined;
      },
    },
    expects: /after a power cut it runs by no leases/,
    firstSeed: 5,
    swarm: {
      leaseMs: 4_000,
      weather: { lost: 0, doubled: 0, late: 0 },
      rates: { ...NOTHING_HAPPENS, 'change-leases': 1 / 40, 'fault-disk': 1 / 15 },
    },
  },
  {
    name: 'a site that believes it holds the machine claims it anew when it is to ask the witness',
    wrap: {
      votedRight: (right) => (replica, siteId) =>
        tenureOfReplica(replica.record, siteId).state === 'holds'
          ? seizeRight(replica, siteId)
          : right(replica, siteId),
    },
    expects: /which nobody has voted for or confirmed/,
    swarm: {
      leaseMs: 4_000,
      rates: {
        ...{ 'cut-power-recovery': 1 / 150, 'cut-power-home': 1 / 300, partition: 1 / 60 },
        ...{ word: 1 / 20, 'fail-over': 1 / 60, undo: 0 },
      },
    },
  },
];

function lendingMore(guards: LeaseGuards, byMs: number): LeaseGuards {
  const more = (guard: LeaseGuard): LeaseGuard => ({
    gone: guard.gone,
    lend: (untilMs) => guard.lend(untilMs + byMs),
    dismiss: () => guard.dismiss(),
    disconnect: () => guard.disconnect(),
  });
  return {
    expect: (runDirectory) => guards.expect(runDirectory),
    of: async (runDirectory, o) => more(await guards.of(runDirectory, o)),
    release: (runDirectory) => guards.release(runDirectory),
  };
}

/** The first that a process hears of the time is long past. */
function startedLongAgo(clock: Clock): Clock {
  let isFirst = true;
  return {
    ...clock,
    monotonicMs: () => {
      if (!isFirst) return clock.monotonicMs();
      isFirst = false;
      return clock.monotonicMs() - 3_600_000;
    },
  };
}
