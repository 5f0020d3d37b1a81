import type { LeaseGuards } from '../../hypervisor/index.ts';
import type { Clock } from '../../lib/clock.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Replicas, tenureOfReplica } from '../../replica/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import type { EventHub } from '../base/event-hub.ts';
import type { Machines } from '../machines/machines.ts';
import { speakingHome } from '../machines/speaking-home.ts';
import { VoteRecords } from './lease-records.ts';
import { LeaseVotes } from './lease-votes.ts';
import { Leases } from './leases.ts';
import type { HearClaim } from './vote-book.ts';

/** What a site has to do with leases: those by which its machines run, and those that it lends to others. */
export interface LeaseWorks {
  readonly leases: Leases;
  readonly votes: LeaseVotes;
}

/** Composes them. What they begin is ended by what is deferred to `opening`. */
export async function leaseWorks(
  o: {
    readonly dataDirectory: string;
    readonly siteId: string;
    readonly files: FileSystem;
    readonly clock: Clock;
    readonly bootClock: Clock;
    readonly leaseGuards: LeaseGuards;
    readonly log: Log;
    readonly alerts: AlertSink;
    readonly audit: Pick<Audit, 'note'>;
    readonly events: EventHub;
    readonly links: { client(siteId: string): Pick<PeerClient, 'call'> };
    readonly machines: Pick<Machines, 'get' | 'list' | 'broken'>;
    readonly replicas: Pick<Replicas, 'get' | 'broken'>;
    /** Of the claim's site. */
    readonly hear: HearClaim;
  },
  opening: AsyncDisposableStack,
): Promise<LeaseWorks> {
  const { siteId, machines, replicas, events } = o;
  const client = (peerId: string) => o.links.client(peerId);
  const homeOf = (machineId: string) =>
    speakingHome(machines.get(machineId)?.machine, replicas.get(machineId), siteId);
  const records = await VoteRecords.open(o, o.dataDirectory);
  const votes = new LeaseVotes({
    ...{ ...o, records, client },
    leaseOf: (machineId) => homeOf(machineId)?.record.lease,
    settle: async (machineId) => void (await (homeOf(machineId)?.right ?? replicas.get(machineId))?.settle()),
    standing: (machineId) => {
      // What cannot be read may hold the machine: it is neither lent nor voted for.
      const broken = [...replicas.broken, ...machines.broken].find((one) => one.machineId === machineId);
      if (broken) throw broken.error;
      const home = homeOf(machineId);
      if (home) return home.right.tenure;
      const replica = replicas.get(machineId);
      return replica && tenureOfReplica(replica.record, siteId);
    },
  });
  opening.defer(() => votes.close());
  const leases = new Leases({
    ...{ ...o, guards: o.leaseGuards, client, votes },
    onChanged: (machineId) => events.emit({ event: 'machine', machineId, state: 'running' }),
  });
  opening.defer(() => leases.close());
  opening.defer(
    events.listen((event) => {
      if (event.event === 'machine') leases.look(event.machineId);
    }),
  );
  leases.begin();
  return { leases, votes };
}
