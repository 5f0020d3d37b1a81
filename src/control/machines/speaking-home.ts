import { compareClaims } from '../../recovery-point/index.ts';
import { type Replica, tenureOfReplica } from '../../replica/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';

/**
 * Whether the disks of a machine lie upon a branch of the replica. While one is being adopted, or removed, the machine that the site has may be
 * the one that was at home here before: what the replica knows is not that one's.
 */
export function liesUpon(
  { record }: Pick<ProtectedMachine, 'record'>,
  replica: Pick<Replica, 'record'> | undefined,
): boolean {
  const adopted = replica?.record.adopted;
  return adopted !== undefined && record.adopted?.branchId === adopted;
}

/**
 * Who speaks for a machine at a site that may have both, a machine that was at home here and a replica of what it has become elsewhere:
 * the machine, if there is no replica, or its disks lie upon that, or it was taken back here on somebody's word while the replica still
 * follows the other site. Undefined: the replica does. Every question about the right to run it goes by this.
 */
export function speakingHome(
  machine: ProtectedMachine | undefined,
  replica: Replica | undefined,
  siteId: string,
): ProtectedMachine | undefined {
  if (!machine || !replica || liesUpon(machine, replica)) return machine;
  const { state, claim } = machine.right.tenure;
  const isAbove =
    state === 'holds' && compareClaims(claim, tenureOfReplica(replica.record, siteId).claim) > 0;
  return isAbove ? machine : undefined;
}
