import { type MachineSockets, runPaths } from '../hypervisor/index.ts';
import { allocatedBytes } from '../lib/host-files.ts';
import { type BranchRecord, branchLayer, type Trunk } from '../replica/index.ts';
import { runDirectoryOf } from './branch-machine.ts';
import { loadState } from './branch-state.ts';
import type { BranchPhase } from './records.ts';
import { loadLimits, type TestLimits } from './test-limits.ts';
import type { FailoverTools } from './tools.ts';

/** A branch as it is now. */
export interface BranchView {
  readonly branchId: string;
  /** What people call it. */
  readonly name?: string;
  readonly pointId: string;
  readonly purpose: BranchRecord['purpose'];
  readonly createdAtMs: number;
  readonly phase: BranchPhase;
  readonly reason?: string;
  readonly running: boolean;
  readonly processId?: number;
  readonly sockets?: MachineSockets;
  /** What its own layers take on this host: its writes in whole clusters, and their tables. */
  readonly ownBytes: number;
  /** What it may take, and until when it stays, where that was said. */
  readonly limits: TestLimits;
  /** It stands still, because the disk of the site is nearly full. */
  readonly paused: boolean;
  /** It is the disks of a machine that is at home here. */
  readonly adopted: boolean;
}

export async function viewOf(
  tools: Pick<FailoverTools, 'files' | 'hypervisor' | 'runDirectory'>,
  replica: Trunk,
  branch: BranchRecord,
  paused: boolean,
): Promise<BranchView> {
  const { branchId, name, pointId, purpose, createdAtMs } = branch;
  const state = await loadState(tools, replica, branchId);
  const runDirectory = runDirectoryOf(tools, branchId);
  const [processId] = await tools.hypervisor.processesOf(runDirectory);
  const { qmpPath, agentPath } = runPaths(runDirectory);
  return {
    ...{ branchId, pointId, purpose, createdAtMs, phase: state?.phase ?? 'created' },
    ...(name === undefined ? {} : { name }),
    ...(state?.reason === undefined ? {} : { reason: state.reason }),
    running: processId !== undefined,
    ...(processId === undefined ? {} : { processId, sockets: { qmpPath, agentPath } }),
    ownBytes: await ownBytes(replica, branch),
    limits: await loadLimits(tools, replica, branchId),
    paused,
    adopted: replica.record.adopted === branchId,
  };
}

async function ownBytes(replica: Trunk, branch: BranchRecord): Promise<number> {
  let bytes = 0;
  for (const diskId of branch.diskIds)
    bytes += await allocatedBytes(branchLayer(replica.layout, branch.branchId, diskId));
  return bytes;
}
