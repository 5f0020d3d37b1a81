import type { BranchRecord, Trunk } from '../replica/index.ts';
import { runDirectoryOf } from './branch-machine.ts';
import type { BranchTools } from './branch-recovery.ts';
import { recordEnd } from './live-branches.ts';
import type { StopOptions } from './options.ts';
import { shutsDown } from './power-off.ts';

/** `not-running`: there was nothing to end. */
export type BranchEnd = 'shut-down' | 'powered-off' | 'not-running';

/** Ends the machine of a branch and keeps its files; nobody else does anything with the branch meanwhile. Throws MACHINE_END_FAILED. */
export async function stopBranch(
  { tools, live }: BranchTools,
  replica: Trunk,
  { branchId }: BranchRecord,
  { graceMs, signal }: StopOptions,
): Promise<BranchEnd> {
  if ((await tools.hypervisor.processesOf(runDirectoryOf(tools, branchId))).length === 0)
    return 'not-running';
  const found = live.get(branchId);
  const hasShutDown = found !== undefined && (await shutsDown(tools, found.machine, graceMs, signal));
  await live.end(branchId);
  await recordEnd(tools, replica, branchId);
  return hasShutDown ? 'shut-down' : 'powered-off';
}
