import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { bringerOf, type Replicas } from '../../replica/index.ts';
import { OfferedRights, ReplicationReceiver } from '../../replication/index.ts';
import type { Audit } from '../base/audit.ts';
import type { EventHub } from '../base/event-hub.ts';
import type { Forwards } from '../replicas/forwards.ts';
import type { OlderCopies } from '../replicas/older-copies.ts';
import type { Origins } from '../replicas/origins.ts';
import { checkRoom } from '../replicas/receive-floor.ts';
import type { ReplicaFences } from '../replicas/replica-fences.ts';
import type { ReplicaKeeper } from '../replicas/replica-keeper.ts';
import type { HomeRights } from './home-rights.ts';

/** What other sites may do at this one, and who of this site is told. */

interface Told {
  readonly home: HomeRights;
  readonly replicas: Replicas;
  readonly audit: Audit;
  readonly events: EventHub;
}

/** Takes what other sites bring, and tells those who care for it. */
export function receiverOf({
  dataDirectory,
  home,
  replicas,
  origins,
  olderCopies,
  audit,
  events,
  clock,
  log,
  keeper,
  forwards,
}: Told & {
  readonly dataDirectory: string;
  readonly origins: Origins;
  readonly olderCopies: OlderCopies;
  readonly clock: Clock;
  readonly log: Log;
  readonly keeper: ReplicaKeeper;
  readonly forwards: Forwards;
}): ReplicationReceiver {
  return new ReplicationReceiver({
    ...{ replicas, home, log, wallMs: () => clock.wallMs() },
    olderDisks: (siteId, name, header) =>
      olderCopies.disksFor(siteId, name, header) ?? home.formerDisks(siteId, header),
    checkRoom: () => checkRoom(dataDirectory),
    onPublished: (replica, { pointId, sequence }) => {
      const { machineId, sourceSiteId } = replica.record;
      void olderCopies.published(sourceSiteId, replica.record);
      const details = { pointId, sequence };
      audit.note({
        actor: `peer:${bringerOf(replica.record)}`,
        act: 'point.published',
        subject: machineId,
        details,
      });
      events.emit({ event: 'point', change: 'published', machineId, pointId, sequence });
      keeper.tend(replica);
      forwards.arrived(machineId);
    },
    acceptOrigin: (origin, fromSiteId) => origins.accept(origin, fromSiteId),
    preview: (replica, policy) => keeper.preview(replica, policy),
  });
}

/** Takes what other sites offer of their rights; whoever waits for it is told. */
export function offeredRights({
  siteId,
  home,
  replicas,
  events,
  audit,
  fences,
  keeper,
}: Told & {
  readonly siteId: string;
  readonly fences: ReplicaFences;
  readonly keeper: Pick<ReplicaKeeper, 'starts'>;
}): OfferedRights {
  return new OfferedRights({
    ...{ siteId, replicas, home },
    hindrance: (replica) => keeper.starts.hindrance(replica),
    onChanged: (replica) => {
      const { machineId, sourceSiteId, offer, tenure } = replica.record;
      const act = offer ? 'right.offered' : 'right.claimed';
      const details = { epoch: offer?.claim.epoch ?? tenure?.claim.epoch ?? 1 };
      audit.note({ actor: `peer:${sourceSiteId}`, act, subject: machineId, details });
      events.emit({ event: 'machine', machineId, state: offer ? 'offered' : 'replica' });
      fences.look(replica);
    },
  });
}
