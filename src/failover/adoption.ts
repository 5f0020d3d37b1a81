import { checkMachineConfiguration, type ImageFile, type MachineConfiguration } from '../hypervisor/index.ts';
import type { Claim } from '../recovery-point/index.ts';
import {
  type BranchRecord,
  branchChain,
  type Replica,
  rightState,
  tenureOfReplica,
} from '../replica/index.ts';
import { runDirectoryOf } from './branch-machine.ts';
import { loadNetworks } from './branch-networks.ts';
import { type BranchTools, recoverBranch } from './branch-recovery.ts';
import { loadState } from './branch-state.ts';
import { failoverFailure } from './errors.ts';
import type { NicMapping } from './network.ts';
import { checkNicsNamed } from './nic-checks.ts';

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
  const networks = home.networks ?? (await loadNetworks(tools, replica, branchId));
  checkNicsNamed(networks, [replica.point(branch.pointId).statement.configuration]);
  const about = () => adopted(replica, branch, networks, { tools });
  home.check(about());
  // Looked at again beside no other change: a higher claim may have been heard of.
  await replica.update((record) => (rightState(record) === 'holds' ? { adopted: branchId } : undefined));
  if (replica.record.adopted !== branchId) throw notAtWork(replica, branchId);
  // Held until it is certain that nothing of the branch is to be read any more, or that it goes on.
  const release = await replica.holdLayers('open');
  try {
    await live.letGo(branchId);
    // A merge may have ended since: these are the files that stay.
    return await home.create(about());
  } catch (error) {
    await replica.update({ adopted: undefined });
    await recoverBranch({ tools, live }, replica, branch);
    throw error;
  } finally {
    release();
  }
}

function notAtWork({ record: { machineName } }: Replica, branchId: string) {
  const said = `branch ${branchId} of ${machineName} is not at work here`;
  return failoverFailure('FAILOVER_NOT_AT_WORK', said, { context: { branchId } });
}

function adopted(
  replica: Replica,
  branch: BranchRecord,
  networks: AdoptedBranch['networks'],
  { tools }: Pick<BranchTools, 'tools'>,
): AdoptedBranch {
  const { branchId, pointId } = branch;
  const { statement } = replica.point(pointId);
  const { machineId } = replica.record;
  return {
    ...{ machineId, branchId, pointId, networks },
    claim: tenureOfReplica(replica.record, tools.siteId).claim,
    configuration: checkMachineConfiguration(statement.configuration),
    disks: statement.disks.map(({ diskId, sizeBytes }) => {
      return { diskId, sizeBytes, chain: branchChain(replica, branch, diskId) };
    }),
    runDirectory: runDirectoryOf(tools, branchId),
  };
}
