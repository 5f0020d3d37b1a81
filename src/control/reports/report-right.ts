import type { Report } from '../../api/index.ts';
import { type Replica, tenureOfReplica } from '../../replica/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import { speakingHome } from '../machines/speaking-home.ts';

/** What a site has of a machine when a report of it is written. */
interface Standing {
  readonly home: ProtectedMachine | undefined;
  readonly replica: Replica | undefined;
  /** Why the replica that it has cannot be read. */
  readonly unread?: Error | undefined;
}

/**
 * Where the site stands with the right to run a machine, by whoever speaks for that here; undefined where it has nothing of it, or where
 * that cannot be read: what was at home here before does not speak for it.
 */
export function rightOf({ home, replica, unread }: Standing, siteId: string): Report['right'] {
  if (unread) return undefined;
  const held = speakingHome(home, replica, siteId)?.right.tenure;
  const tenure = held ?? (replica && tenureOfReplica(replica.record, siteId));
  if (!tenure) return undefined;
  return { epoch: tenure.claim.epoch, siteId: tenure.claim.siteId, state: tenure.state };
}

/** What a report lacks of that. */
export function lackOfStanding(found: Standing | undefined): readonly string[] {
  if (!found?.unread) return [];
  return [`the right to run the machine, whose replica cannot be read (${found.unread.message})`];
}

/** Whether this very branch is the machine that is at home here: what was adopted before it may be so still. */
export function isAtHome(found: Pick<Standing, 'home'> | undefined, branchId: unknown): boolean {
  const adopted = found?.home?.record.adopted;
  return adopted !== undefined && adopted.branchId === branchId;
}
