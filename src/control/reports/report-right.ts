import type { Report, ReportKind } from '../../api/index.ts';
import { type Replica, tenureOfReplica } from '../../replica/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import type { Unread } from '../inventory/inventory.ts';
import { speakingHome } from '../machines/speaking-home.ts';

/** What a site has of a machine when a report of it is written. */
interface Standing {
  readonly home: ProtectedMachine | undefined;
  readonly replica: Replica | undefined;
  readonly unread: Unread;
}

/**
 * Where the site stands with the right to run a machine, by whoever speaks for that here; undefined where it has nothing of it, or where
 * something of it cannot be read. What can be read does not speak for it then: what was at home here before is the machine no more, and what
 * runs upon a replica may have handed over or taken back what the replica knows of.
 */
export function rightOf({ home, replica, unread }: Standing, siteId: string): Report['right'] {
  if (unread.home || unread.replica) return undefined;
  const held = speakingHome(home, replica, siteId)?.right.tenure;
  const tenure = held ?? (replica && tenureOfReplica(replica.record, siteId));
  if (!tenure) return undefined;
  return { epoch: tenure.claim.epoch, siteId: tenure.claim.siteId, state: tenure.state };
}

/** What a report lacks of that. */
export function lackOfStanding({ unread }: Pick<Standing, 'unread'>, kind: ReportKind): readonly string[] {
  const why = unread.home ?? unread.replica;
  return [
    ...(why ? [`the right to run the machine, which cannot be read (${why.message})`] : []),
    ...(unread.home && kind === 'adopt'
      ? [`whether the machine is at home here, which cannot be read (${unread.home.message})`]
      : []),
  ];
}

/** Whether this very branch is the machine that is at home here: what was adopted before it may be so still. Undefined where that cannot be read. */
export function isAtHome(
  { home, unread }: Omit<Standing, 'replica'>,
  branchId: unknown,
): boolean | undefined {
  if (unread.home) return undefined;
  const adopted = home?.record.adopted;
  return adopted !== undefined && adopted.branchId === branchId;
}
