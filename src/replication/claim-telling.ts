import { isFailure } from '../lib/errors.ts';
import type { ReplicaDescription } from '../replica/index.ts';
import type { MachineRecord } from './records.ts';
import type { ReplicationTarget } from './target.ts';

/**
 * What a target has of a machine. One in a lower epoch is told first by which claim the machine is held at `siteId`, before anything is
 * laid upon what it has: it may follow somebody else, or run the machine itself.
 */
export async function describedTo(
  target: ReplicationTarget,
  { machineId, epoch }: Pick<MachineRecord, 'machineId' | 'epoch'>,
  siteId: string,
  signal?: AbortSignal,
  acknowledged?: string,
): Promise<ReplicaDescription | null> {
  const replica = await target.describe(machineId, signal, acknowledged);
  const isOurs = replica?.holderSiteId === undefined || replica.holderSiteId === siteId;
  // Of two claims of one epoch the sites decide; whoever has the lower one must hear of the other.
  const knows = replica && (replica.epoch > epoch || (replica.epoch === epoch && isOurs));
  if (!replica || knows || !target.rights) return replica;
  try {
    await target.rights.claim(machineId, { epoch, siteId }, signal);
  } catch (error) {
    // An older version takes no copies of another epoch, and says so to the offer that follows.
    if (isFailure(error, 'PEER_CALL_UNKNOWN')) return replica;
    throw error;
  }
  return target.describe(machineId, signal, acknowledged);
}
