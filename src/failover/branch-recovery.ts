import { type RunningMachine, runPaths } from '../hypervisor/index.ts';
import { isFailure } from '../lib/errors.ts';
import { type BranchRecord, removeBranch, type Trunk } from '../replica/index.ts';
import { runDirectoryOf } from './branch-machine.ts';
import { loadState, recoveryOf, storeState } from './branch-state.ts';
import type { LiveBranches } from './live-branches.ts';
import type { FailoverTools } from './tools.ts';

export interface BranchTools {
  readonly tools: FailoverTools;
  readonly live: LiveBranches;
}

/** Connects to the machine of a branch that runs and is to run, and removes or ends what was half made. */
export async function recoverBranch(
  { tools, live }: BranchTools,
  replica: Trunk,
  branch: BranchRecord,
): Promise<void> {
  const { branchId, purpose } = branch;
  // It is the disks of a machine that is at home here.
  if (replica.record.adopted === branchId) return;
  const state = await loadState(tools, replica, branchId);
  const runDirectory = runDirectoryOf(tools, branchId);
  const running = (await tools.hypervisor.processesOf(runDirectory)).length > 0;
  const keep = state?.keep ?? false;
  const recovery = recoveryOf({
    ...{ purpose, phase: state?.phase, keep, running, hasRun: state?.hasRun ?? false },
  });
  tools.log.info('branch.recovery', { branchId, purpose, phase: state?.phase, running, recovery });
  if (recovery === 'remove') {
    await endAndRemove({ tools, live }, replica, branchId);
    return;
  }
  if (recovery === 'attach') {
    const machine = await attach({ tools, live }, replica, branch);
    // Whether a guest that stood still ever since is to run is decided by a person, as if its process had not been begun.
    if (state?.phase !== 'started' || (await machine.hasBegun())) return;
    tools.log.warn('branch.not-begun', { branchId });
  }
  await live.end(branchId);
  if (state && state.phase !== 'failed' && state.phase !== 'prepared') {
    await storeState(tools, replica, branchId, { phase: 'stopped', keep });
  }
}

/** From now on the machine of the branch is one that this process is connected to. */
async function attach(
  { tools, live }: BranchTools,
  replica: Trunk,
  branch: BranchRecord,
): Promise<RunningMachine> {
  // Taken before anything can fail: the process reads the layers whether or not we can talk to it.
  const releaseLayers = await replica.holdLayers('open');
  const { qmpPath, agentPath } = runPaths(runDirectoryOf(tools, branch.branchId));
  const machine = await tools.hypervisor.attach({ qmpPath, agentPath });
  live.adopt({ replica, branch, machine, releaseLayers });
  return machine;
}

/** Ends the machine of a branch and removes everything of it; whether there was such a branch. */
export async function endAndRemove(
  { tools, live }: BranchTools,
  replica: Trunk,
  branchId: string,
): Promise<boolean> {
  await live.end(branchId);
  if ((await tools.files.list(replica.layout.branch(branchId))) === undefined) return false;
  await removeBranch(tools.files, replica, branchId);
  return true;
}

/** `recoverBranch` for each branch of a replica; one that hinders this hinders no other. */
export async function recoverBranches(both: BranchTools, replica: Trunk): Promise<void> {
  for (const branch of replica.branches) await recoverOrLeave(both, replica, branch);
}

/** `recoverBranch`; what hinders it is logged, and the branch left. */
export async function recoverOrLeave(both: BranchTools, replica: Trunk, branch: BranchRecord): Promise<void> {
  try {
    await recoverBranch(both, replica, branch);
  } catch (error) {
    if (!isFailure(error)) throw error;
    const { branchId } = branch;
    both.tools.log.error('branch.not-recovered', { branchId, reason: error.message });
  }
}
