import { checkMachineConfiguration, type ImageFile, type MachineConfiguration } from '../hypervisor/index.ts';
import type { Claim } from '../recovery-point/index.ts';
import {
  type BranchRecord,
  branchChain,
  type Replica,
  rightState,
  tenureOfReplica,
} from '../replica/index.ts';
import { type BranchChanges, changed, loadChanges } from './branch-changes.ts';
import { runDirectoryOf } from './branch-machine.ts';
import { loadNetworks } from './branch-networks.ts';
import { type BranchTools, recoverOrLeave } from './branch-recovery.ts';
import { loadState } from './branch-state.ts';
import { branchTpmDirectory } from './branch-tpm.ts';
import { failoverFailure } from './errors.ts';
import type { NicMapping } from './network.ts';
import { checkNicsNamed, namedAmong } from './nic-checks.ts';

/** A branch that becomes a machine of this site, as that has to know it. */
export interface AdoptedBranch {
  readonly machineId: string;
  readonly branchId: string;
  readonly pointId: string;
  /** By which the machine is held here. */
  readonly claim: Claim;
  readonly configuration: MachineConfiguration;
  readonly disks: readonly {
    readonly diskId: string;
    readonly sizeBytes: number;
    /** The oldest file first; the last one is written. */
    readonly chain: readonly ImageFile[];
  }[];
  /** Where its TPM has its state, if it has one. */
  readonly tpmDirectory?: string | undefined;
  readonly networks: Readonly<Record<string, NicMapping>>;
  /** Where its process has its sockets, and will have them. */
  readonly runDirectory: string;
}

/** Where machines are at home. */
export interface NewHome<T> {
  /** Throws what stands in the way; nothing has been changed then. */
  readonly check: (adopted: AdoptedBranch) => void;
  /** Durable on return. If it throws, there is no such machine. */
  readonly create: (adopted: AdoptedBranch) => Promise<T>;
  /** What its NICs are connected to when it is started there; as they were connected last if absent. */
  readonly networks?: AdoptedBranch['networks'] | undefined;
}

/** The act of `Failovers.adopt`; nobody else does anything with the branch meanwhile. */
export async function adoptBranch<T>(
  { tools, live }: BranchTools,
  replica: Replica,
  branch: BranchRecord,
  home: NewHome<T>,
): Promise<T> {
  const { branchId } = branch;
  const phase = (await loadState(tools, replica, branchId))?.phase;
  const isAtWork = branch.purpose === 'failover' && ['started', 'probed', 'stopped'].includes(phase ?? '');
  if (!isAtWork || rightState(replica.record) !== 'holds') {
    throw notAtWork(replica, branchId);
  }
  const { configuration } = replica.point(branch.pointId).statement;
  if (home.networks) checkNicsNamed(home.networks, [configuration]);
  // Of several points that were to be tried, another one may have had more NICs.
  const networks = home.networks ?? namedAmong(await loadNetworks(tools, replica, branchId), configuration);
  let { claim } = tenureOfReplica(replica.record, tools.siteId);
  const changes = await loadChanges(tools, replica, branchId);
  const about = () =>
    adopted(replica, branch, { networks, claim, changes, runDirectory: runDirectoryOf(tools, branchId) });
  home.check(about());
  // Looked at again beside no other change, and by that claim: a higher one may have been heard of, or may be at any moment.
  await replica.update((record) => {
    if (rightState(record) !== 'holds') return undefined;
    claim = tenureOfReplica(record, tools.siteId).claim;
    return { adopted: branchId };
  });
  if (replica.record.adopted !== branchId) throw notAtWork(replica, branchId);
  const release = await holdMarked(replica);
  try {
    await live.letGo(branchId);
    // A merge may have ended since: these are the files that stay.
    return await home.create(about());
  } catch (error) {
    // Also if neither can be recorded: fencing, and everybody who comes to the branch, must find it as what it is.
    await replica.disown();
    await recoverOrLeave({ tools, live }, replica, branch);
    throw error;
  } finally {
    release();
  }
}

/** Until it is certain that nothing of the branch is to be read any more, or that it goes on. */
async function holdMarked(replica: Replica): Promise<() => void> {
  try {
    return await replica.holdLayers('open');
  } catch (error) {
    await replica.disown();
    throw error;
  }
}

function notAtWork({ record: { machineName } }: Replica, branchId: string) {
  const said = `branch ${branchId} of ${machineName} is not at work here`;
  return failoverFailure('FAILOVER_NOT_AT_WORK', said, { context: { branchId } });
}

function adopted(
  replica: Replica,
  branch: BranchRecord,
  {
    changes,
    ...how
  }: Pick<AdoptedBranch, 'networks' | 'claim' | 'runDirectory'> & { changes: BranchChanges },
): AdoptedBranch {
  const { branchId, pointId } = branch;
  const { statement } = replica.point(pointId);
  const { machineId } = replica.record;
  const configuration = checkMachineConfiguration(statement.configuration);
  return {
    ...{ ...how, machineId, branchId, pointId, configuration: changed(configuration, changes) },
    ...(configuration.tpm ? { tpmDirectory: branchTpmDirectory(replica, branchId) } : {}),
    disks: statement.disks.map(({ diskId, sizeBytes }) => {
      return { diskId, sizeBytes, chain: branchChain(replica, branch, diskId) };
    }),
  };
}
