import { join } from 'node:path';
import { checkMachineConfiguration, type RunningMachine } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import { defaultProbes, type Probe, type ProbeResult } from '../probe/index.ts';
import type { Assertion } from '../recovery-point/index.ts';
import { type BranchRecord, branchChain, type Trunk } from '../replica/index.ts';
import { AgentPort } from './agent-port.ts';
import { type AssertionReport, runAssertions } from './assertions.ts';
import { type BranchChanges, changed, loadChanges } from './branch-changes.ts';
import { storeNetworks } from './branch-networks.ts';
import { storeState } from './branch-state.ts';
import { branchTpm } from './branch-tpm.ts';
import { proveScreen, type Screen, takePicture } from './console.ts';
import type { BranchNetwork, BranchNetworks, NetworkReport, NicMapping } from './network.ts';
import { type Probed, runProbes } from './probing.ts';
import { type Readdressed, type ReaddressReport, whileReaddressed } from './readdressing.ts';
import type { Stopwatch } from './report.ts';
import type { SharedTest } from './shared-tests.ts';
import { limited, loadLimits, type TestLimits } from './test-limits.ts';
import type { FailoverTools } from './tools.ts';
import type { NonceVerdict } from './verdict.ts';

export interface BootRequest {
  readonly replica: Trunk;
  readonly branch: BranchRecord;
  readonly keep: boolean;
  /** It is booted again: what was written in it before must outlive an end of this process in the middle. */
  readonly hasRun: boolean;
  /** Absent: the agent, if the machine has one. */
  readonly probes?: readonly Probe[] | undefined;
  /** `isolated`: nothing of it reaches the outside. Else where each NIC goes; those not named stay unplugged. */
  readonly network: 'isolated' | Readonly<Record<string, NicMapping>>;
  /** The test of several machines whose isolated network it shares; one of its own if absent. */
  readonly together?: SharedTest | undefined;
  /** What is asked of the guest, in isolation, when its probes have passed; the claims of the point if absent. */
  readonly programs?: readonly Assertion[];
  readonly watch: Stopwatch;
  /** Told of the machine as soon as there is one: whoever is told sees to its end. */
  readonly onStarted: (machine: RunningMachine) => void;
  /** Asked right before its guest runs: throws why it must not. */
  readonly checkHeld?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What was seen of a boot. */
export interface Boot {
  readonly network: NetworkReport;
  readonly probes: readonly ProbeResult[];
  /** Where NICs were to have other addresses in the guest. */
  readonly addresses?: ReaddressReport;
  /** What became of the claims of the point; nothing where it makes none, or where the guest did not come up. */
  readonly assertions: readonly AssertionReport[];
  readonly screen: { readonly picture: Screen['picture']; readonly nonce: NonceVerdict | 'not-asked' };
  /** When the last probe that passed did so, monotonic; undefined if none did. */
  readonly lastPassedMs: number | undefined;
}

export function runDirectoryOf(tools: Pick<FailoverTools, 'runDirectory'>, branchId: string): string {
  return join(tools.runDirectory, branchId);
}

/**
 * Boots a branch and looks at it. Each act is recorded before it is done. The machine is left running, whatever the
 * probes say; it is started with its CPUs stopped, so that no event of the guest is missed.
 */
export async function bootBranch(tools: FailoverTools, request: BootRequest): Promise<Boot> {
  const { replica, branch, keep, hasRun, watch, signal } = request;
  const { branchId, pointId } = branch;
  const { statement } = replica.point(pointId);
  const limits = await loadLimits(tools, replica, branchId);
  const changes = await loadChanges(tools, replica, branchId);
  const asItWas = checkMachineConfiguration(statement.configuration);
  const configuration = limited(changed(asItWas, changes), limits);
  await storeState(tools, replica, branchId, { phase: 'network', keep, hasRun });
  if (request.network !== 'isolated') await storeNetworks(tools, replica, branchId, request.network);
  const network = await watch.time('network', () => makeNetwork(tools.networks, request, configuration.nics));
  throwIfAborted(signal);
  await storeState(tools, replica, branchId, { phase: 'started', keep, hasRun });
  const runDirectory = runDirectoryOf(tools, branchId);
  const machine = await watch.time('start', async () => {
    await tools.files.makeDirectory(runDirectory);
    const tpmDirectory = configuration.tpm && (await branchTpm(tools.files, replica, branch));
    return tools.hypervisor.start({
      configuration,
      disks: Object.fromEntries(
        branch.diskIds.map((diskId) => [diskId, branchChain(replica, branch, diskId)]),
      ),
      ...{ runDirectory, tpmDirectory },
      networks: network.attachments,
      ...(network.report.kind === 'isolated' ? { networkNamespace: network.report.namespace } : {}),
      paused: true,
    });
  });
  request.onStarted(machine);
  const agentPort = new AgentPort(machine);
  try {
    await hold(tools, branchId, machine, limits);
    request.checkHeld?.();
    await machine.resume();
    const runningSinceMs = tools.clock.monotonicMs();
    const isConnected = network.report.kind === 'connected';
    if (isConnected) await announce(tools, machine);
    const about = {
      ...{ machine, agentPort, runDirectory, network: network.report, clock: tools.clock },
      isIsolated: request.network === 'isolated',
      ...{ runningSinceMs, programs: tools.programs, environment: toldOf(replica, branch, changes) },
    };
    const asked = request.probes ?? defaultProbes(configuration);
    const { probes, addresses } = await watch.time('probes', () =>
      probeReaddressed(about, asked, { nics: configuration.nics, changes }, signal),
    );
    // The guest is up, and may have addresses that it had not when it began.
    if (isConnected) await announce(tools, machine);
    const screen = await watch.time('picture', () =>
      look(tools, machine, { ...request, runDirectory, withAgent: agentPort.isOpen }),
    );
    const isUp = probes.length > 0 && probes.every((probe) => probe.passed);
    const claims =
      request.network === 'isolated' && isUp && !hasRun
        ? (request.programs ?? statement.assertions ?? [])
        : [];
    const ask = () => runAssertions(machine, claims, tools.clock, signal);
    const assertions = claims.length === 0 ? [] : await watch.time('assertions', ask);
    const passed = probes.filter((probe) => probe.passed).map(({ durationMs }) => durationMs);
    const lastPassedMs = passed.length > 0 ? runningSinceMs + Math.max(...passed) : undefined;
    return {
      network: network.report,
      probes,
      screen,
      assertions,
      lastPassedMs,
      ...(addresses ? { addresses } : {}),
    };
  } finally {
    agentPort.close();
  }
}

/** Others find a machine without it too, when it next says something: that it cannot be done keeps none from coming up. */
async function announce({ log }: FailoverTools, machine: RunningMachine): Promise<void> {
  try {
    await machine.announce();
  } catch (error) {
    if (!isFailure(error)) throw error;
    log.warn('branch.not-announced', { reason: error.message });
  }
}

/** What programs of the site are told of the machine of a branch. */
export function toldOf(
  { record }: Trunk,
  { branchId }: BranchRecord,
  { addresses = {} }: BranchChanges,
): Readonly<Record<string, string>> {
  const { machineId, machineName } = record;
  return {
    ...{ WARMSITE_MACHINE: machineName, WARMSITE_MACHINE_ID: machineId, WARMSITE_BRANCH: branchId },
    WARMSITE_ADDRESSES: Object.entries(addresses)
      .flatMap(([nicId, nic]) => nic.addresses.map((address) => `${nicId}=${address}`))
      .join(' '),
  };
}

/** Asks the probes of a guest when its NICs have the addresses that they are to have here. */
export async function probeReaddressed(
  probed: Probed,
  probes: readonly Probe[],
  o: Pick<Readdressed, 'nics' | 'changes' | 'isAtWork'>,
  signal?: AbortSignal,
): Promise<{ readonly probes: readonly ProbeResult[]; readonly addresses?: ReaddressReport }> {
  const ask = () => runProbes(probed, probes, signal);
  if (o.changes.addresses === undefined) return { probes: await ask() };
  const { asked, report } = await whileReaddressed({ ...probed, ...o }, ask, signal);
  const reason = 'its addresses could not be set';
  const durationMs = probed.clock.monotonicMs() - probed.runningSinceMs;
  const unasked = () => probes.map((probe) => ({ probe, passed: false, durationMs, reason }));
  return { probes: asked ?? unasked(), addresses: report };
}

/** Puts a machine that stands still under its limits, before its guest can take more. */
async function hold(
  tools: FailoverTools,
  branchId: string,
  machine: RunningMachine,
  limits: TestLimits,
): Promise<void> {
  const { cpuPercent, cpuWeight, diskBytesPerSecond, diskOperationsPerSecond } = limits;
  if (cpuPercent !== undefined || cpuWeight !== undefined) {
    await tools.cpuGroups.make(branchId, limits);
    await tools.cpuGroups.enter(
      branchId,
      await tools.hypervisor.processesOf(runDirectoryOf(tools, branchId)),
    );
  }
  if (diskBytesPerSecond !== undefined || diskOperationsPerSecond !== undefined) {
    await machine.limitDisks({
      bytesPerSecond: diskBytesPerSecond,
      operationsPerSecond: diskOperationsPerSecond,
    });
  }
}

function makeNetwork(
  networks: BranchNetworks,
  { branch: { branchId }, network, together }: BootRequest,
  nics: Parameters<BranchNetworks['isolate']>[1],
): Promise<BranchNetwork> {
  if (network !== 'isolated') return networks.connect(branchId, nics, network);
  return together ? together.plug(branchId, nics) : networks.isolate(branchId, nics);
}

/** Only in isolation is anything drawn: what a machine shows after a real failover is its own. */
async function look(
  tools: FailoverTools,
  machine: RunningMachine,
  o: {
    readonly network: BootRequest['network'];
    readonly runDirectory: string;
    readonly withAgent: boolean;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<Boot['screen']> {
  const { runDirectory, withAgent, signal } = o;
  if (o.network !== 'isolated') {
    return { picture: await takePicture(tools, machine, runDirectory), nonce: 'not-asked' };
  }
  return proveScreen(tools, machine, { runDirectory, withAgent, ...(signal ? { signal } : {}) });
}

/** Ends the machine of a branch and removes its sockets and its network; its files stay. May be repeated. */
export async function endBranchMachine(tools: FailoverTools, branchId: string): Promise<void> {
  const runDirectory = runDirectoryOf(tools, branchId);
  await tools.hypervisor.end(runDirectory);
  await tools.networks.remove(branchId);
  await tools.cpuGroups.remove(branchId);
  await tools.files.removeDirectory(runDirectory);
}
