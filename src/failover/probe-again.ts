import { checkMachineConfiguration } from '../hypervisor/index.ts';
import { isFailure } from '../lib/errors.ts';
import { defaultProbes, type Probe, type ProbeResult } from '../probe/index.ts';
import { findBranch, type Trunk } from '../replica/index.ts';
import { changed, loadChanges } from './branch-changes.ts';
import { probeReaddressed, runDirectoryOf, toldOf } from './branch-machine.ts';
import { loadNetworks } from './branch-networks.ts';
import type { BranchTools } from './branch-recovery.ts';
import { loadState, storeState } from './branch-state.ts';

/** Whoever connects to a machine that runs has not seen its agent's port being opened: it is asked all the same. */
const MAY_BE_OPEN = { opened: Promise.resolve() };

/**
 * Asks the guest of a branch that runs, because nobody saw its boot to its end. Its machine stays as it is, whatever it answers; that it
 * answers all is on record on return, as far as that can be recorded. Undefined if this site is not connected to it.
 */
export async function probeAgain(
  { tools, live }: BranchTools,
  replica: Trunk,
  branchId: string,
  probes: readonly Probe[] | undefined,
  signal: AbortSignal,
): Promise<readonly ProbeResult[] | undefined> {
  const branch = findBranch(replica, branchId);
  const { pointId } = branch;
  const configuration = checkMachineConfiguration(replica.point(pointId).statement.configuration);
  const running = live.get(branchId);
  if (!running) return undefined;
  const isConnected = Object.keys(await loadNetworks(tools, replica, branchId)).length > 0;
  const changes = await loadChanges(tools, replica, branchId);
  const { probes: results, addresses } = await probeReaddressed(
    {
      machine: running.machine,
      agentPort: MAY_BE_OPEN,
      runDirectory: runDirectoryOf(tools, branchId),
      network: isConnected
        ? { kind: 'connected', unplugged: [] }
        : { kind: 'unplugged', reason: 'no NIC was connected' },
      isIsolated: false,
      ...{ clock: tools.clock, programs: tools.programs, environment: toldOf(replica, branch, changes) },
      runningSinceMs: tools.clock.monotonicMs(),
    },
    probes ?? defaultProbes(configuration),
    { nics: changed(configuration, changes).nics, changes, isAtWork: true },
    signal,
  );
  const state = await loadState(tools, replica, branchId);
  const isUp = addresses?.failure === undefined && results.every(({ passed }) => passed);
  if (state && isUp) {
    try {
      await storeState(tools, replica, branchId, { phase: 'probed', keep: state.keep });
    } catch (error) {
      // It is up all the same; who needs to know it later asks again.
      if (!isFailure(error)) throw error;
      tools.log.warn('branch.not-recorded', { branchId, reason: error.message });
    }
  }
  return results;
}
