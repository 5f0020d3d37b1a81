import type { Report } from '../../api/index.ts';
import { type Replica, tenureOfReplica } from '../../replica/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import { speakingHome } from '../machines/speaking-home.ts';

/** What a site has of a machine when a report of it is written. */
interface Standing {
  readonly home: ProtectedMachine | undefined;
  readonly replica: Replica | undefined;
}

/** Where the site stands with the right to run a machine, by whoever speaks for that here; undefined where it has nothing of it. */
export function rightOf({ home, replica }: Standing, siteId: string): Report['right'] {
  const held = speakingHome(home, replica, siteId)?.right.tenure;
  const tenure = held ?? (replica && tenureOfReplica(replica.record, siteId));
  if (!tenure) return undefined;
  return { epoch: tenure.claim.epoch, siteId: tenure.claim.siteId, state: tenure.state };
}

/** Whether this very branch is the machine that is at home here: what was adopted before it may be so still. */
export function isAtHome(found: Pick<Standing, 'home'> | undefined, branchId: unknown): boolean {
  const adopted = found?.home?.record.adopted;
  return adopted !== undefined && adopted.branchId === branchId;
}
