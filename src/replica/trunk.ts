import type { ImageFile } from '../hypervisor/index.ts';
import type { PointStatement } from '../recovery-point/index.ts';
import type { ReplicaLayout } from './layout.ts';
import type { PointManifest, ReplicaRecord } from './records.ts';
import type { Replica } from './replica.ts';

/**
 * What branches are made of: the points of a replica, or the disks that a machine had at this site when it was fenced. Where a branch is
 * concerned there is no difference, and what is called a replica there may be either.
 */
export interface Trunk
  extends Pick<
    Replica,
    'branches' | 'points' | 'newest' | 'chain' | 'checkUsable' | 'holdLayers' | 'refreshBranches'
  > {
  readonly record: Pick<ReplicaRecord, 'machineId' | 'machineName' | 'epoch' | 'adopted'> &
    Partial<Pick<ReplicaRecord, 'retention'>>;
  readonly layout: Pick<ReplicaLayout, 'directory' | 'branches' | 'branch' | 'proofs'>;
  /** What retention makes of the chains that branches lie upon; absent where no chain grows. */
  readonly retention?: Replica['retention'];
  point(pointId: string): TrunkState;
}

/** A state of a machine's disks that branches can be made of. */
export interface TrunkState {
  readonly statement: Pick<
    PointStatement,
    'pointId' | 'sequence' | 'copyType' | 'consistency' | 'configuration' | 'assertions'
  > & { readonly disks: readonly Pick<PointStatement['disks'][number], 'diskId' | 'sizeBytes'>[] };
  readonly manifest: Pick<PointManifest, 'cutAtHereMs'> & Partial<Pick<PointManifest, 'signed'>>;
  /** What people call it, where it is a branch and no point: what was written after the point of that number. */
  readonly branchName?: string;
  /** Only of a point: what a proof of it is about. */
  readonly statementDigest?: string;
  /** By disk: the file that a branch lies upon, where that is not the layer of a point. */
  readonly tips?: Readonly<Record<string, ImageFile>>;
  /** Where the TPM of the machine has left its state, where no statement holds that. */
  readonly tpmDirectory?: string | undefined;
}
