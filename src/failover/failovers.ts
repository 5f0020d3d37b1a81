import type { MachineSockets, RunningMachine } from '../hypervisor/index.ts';
import { processesOfRun, runPaths } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { isId, newId } from '../lib/random.ts';
import { type BranchRecord, createBranch, findBranch, type Replica, removeBranch } from '../replica/index.ts';
import { type Boot, bootBranch, endBranchMachine, runDirectoryOf } from './branch-machine.ts';
import { loadState, recoveryOf, storeState } from './branch-state.ts';
import { type Candidate, candidatesOf, type PointChoice, pointProofs } from './candidates.ts';
import { failoverFailure } from './errors.ts';
import { keepEvidence } from './evidence.ts';
import { checkNicsNamed, type NicMapping } from './network.ts';
import { checkProbes, type Probe } from './probe.ts';
import type { BranchPhase } from './records.ts';
import { type AttemptReport, type FailoverReport, Stopwatch } from './report.ts';
import { type Attempt, RunUnderWay, summaryOf } from './run-under-way.ts';
import type { FailoverTools } from './tools.ts';
import { type BootVerdict, verdictOf } from './verdict.ts';

export interface TestOptions {
  /** Absent: the guest agent, where the machine has one. */
  readonly probes?: readonly Probe[];
  /** Leave the machine running in its isolated network, also if it failed, until `cleanup`. */
  readonly keep?: boolean;
  readonly signal?: AbortSignal;
}

export interface StartOptions {
  readonly probes?: readonly Probe[];
  /** Where NICs are connected here, by NIC id; the others stay unplugged. */
  readonly networks?: Readonly<Record<string, NicMapping>>;
  /** The word of a person that the machine no longer runs at the other site. */
  readonly confirmedOtherSideDown: true;
  readonly signal?: AbortSignal;
}

/** A branch as it is now. */
export interface BranchView {
  readonly branchId: string;
  readonly pointId: string;
  readonly purpose: BranchRecord['purpose'];
  readonly createdAtMs: number;
  readonly phase: BranchPhase;
  readonly reason?: string;
  readonly running: boolean;
  readonly processId?: number;
  readonly sockets?: MachineSockets;
}

interface Live {
  readonly machine: RunningMachine;
  readonly releaseLayers: () => void;
}

interface AttemptRequest {
  readonly replica: Replica;
  readonly candidate: Candidate;
  readonly purpose: 'test' | 'failover';
  readonly keep: boolean;
  /** The branch was there before: its files hold somebody's work, and stay whatever becomes of this attempt. */
  readonly hasRun?: boolean;
  readonly probes?: readonly Probe[] | undefined;
  readonly networks: Readonly<Record<string, NicMapping>>;
  readonly commandMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** The branches of a site that are, or are being, brought to life. One object per site process. */
export class Failovers {
  readonly #tools: FailoverTools;
  readonly #live = new Map<string, Live>();
  /** Branches on which an act is under way, with its end. */
  readonly #busy = new Map<string, Promise<void>>();
  /** Machines that are being failed over. */
  readonly #startingMachines = new Set<string>();

  constructor(tools: FailoverTools) {
    this.#tools = tools;
  }

  /**
   * Boots a point in isolation and looks whether it runs, while replication goes on. Each point that was booted gets a
   * signed proof. Nothing is left behind unless `keep`. A cancelled test is cleaned up before the failure is thrown.
   * Throws FAILOVER_NO_POINT, FAILOVER_PROBE_INVALID, REPLICA_UNKNOWN; everything that happens to the guest is told by
   * the report.
   */
  async test(replica: Replica, choice: PointChoice, options: TestOptions = {}): Promise<FailoverReport> {
    checkProbes(options.probes ?? []);
    const run = new RunUnderWay(this.#tools);
    const candidates = candidatesOf(replica, choice, await pointProofs(this.#tools.files, replica));
    for (const candidate of candidates) {
      const attempt = await this.#attempt({
        ...{ replica, candidate, purpose: 'test', networks: {}, commandMs: run.startMs },
        ...{ keep: options.keep ?? false, probes: options.probes, signal: options.signal },
      });
      if (run.add(attempt)) break;
    }
    return run.report(await this.#about(replica, 'test', choice));
  }

  /**
   * Fails a machine over to this site without the other one's help. First of all the epoch is raised, durably, so that the old
   * source is refused from then on. Then the points are tried, the best first, until one passes its probes. The machine
   * of a point that fails is ended at once, so that no two of them ever share a network; its files are kept, because a
   * probe can be wrong and its disk may hold what people wrote meanwhile. If all fail, the report says so and none runs.
   *
   * Throws FAILOVER_UNCONFIRMED, FAILOVER_RUNS_ALREADY, FAILOVER_NO_POINT, FAILOVER_NIC_UNKNOWN, FAILOVER_PROBE_INVALID
   * before anything is changed.
   */
  async start(replica: Replica, choice: PointChoice, options: StartOptions): Promise<FailoverReport> {
    // The type says so already, but a caller's JSON may not.
    if (options.confirmedOtherSideDown !== true) {
      throw failoverFailure('FAILOVER_UNCONFIRMED', 'nobody has confirmed that the other side is down');
    }
    checkProbes(options.probes ?? []);
    const { machineId } = replica.record;
    const run = new RunUnderWay(this.#tools);
    await this.#checkNoneRuns(replica);
    this.#startingMachines.add(machineId);
    try {
      const proofs = await pointProofs(this.#tools.files, replica);
      const chosen = candidatesOf(replica, choice, proofs);
      checkNicsNamed(
        options.networks ?? {},
        chosen.map(({ pointId }) => replica.point(pointId).statement.configuration),
      );
      await run.watch.time('fence', () => replica.update({ epoch: replica.record.epoch + 1 }));
      this.#tools.log.info('failover.fenced', { machineId, epoch: replica.record.epoch });
      // Chosen again: a point may have arrived in the meantime; from here on none does.
      for (const candidate of candidatesOf(replica, choice, proofs)) {
        const attempt = await this.#attempt({
          ...{ replica, candidate, purpose: 'failover', keep: true, commandMs: run.startMs },
          ...{ networks: options.networks ?? {}, probes: options.probes, signal: options.signal },
        });
        if (run.add(attempt)) break;
      }
    } finally {
      this.#startingMachines.delete(machineId);
    }
    return run.report(await this.#about(replica, 'unplanned', choice));
  }

  /**
   * Boots a branch whose machine has ended on its own files again: after its host was restarted, or to look at several
   * futures of a point in turn. A test boots in isolation, a failover with the NICs that `networks` names. Its files stay,
   * also when it does not come up or the site ends meanwhile.
   *
   * Throws BRANCH_UNKNOWN, FAILOVER_RUNS_ALREADY, FAILOVER_NIC_UNKNOWN, FAILOVER_PROBE_INVALID, FAILOVER_BRANCH_BUSY before
   * anything is changed.
   */
  async restart(
    replica: Replica,
    branchId: string,
    options: Omit<StartOptions, 'confirmedOtherSideDown'> = {},
  ): Promise<FailoverReport> {
    checkProbes(options.probes ?? []);
    const branch = findBranch(replica, branchId);
    const { pointId } = branch;
    const purpose = branch.purpose === 'failover' ? 'failover' : 'test';
    const { machineId } = replica.record;
    const run = new RunUnderWay(this.#tools);
    const { configuration } = replica.point(pointId).statement;
    checkNicsNamed(options.networks ?? {}, [configuration]);
    if (purpose === 'failover') {
      await this.#checkNoneRuns(replica);
      this.#startingMachines.add(machineId);
    }
    try {
      const attempt = await this.#exclusively(branchId, async () => {
        await this.#checkEnded(replica, branchId);
        await this.#end(branchId);
        const request: AttemptRequest = {
          ...{ replica, purpose, keep: true, hasRun: true, commandMs: run.startMs },
          candidate: { pointId, reason: 'restarted by a person' },
          ...{ networks: options.networks ?? {}, probes: options.probes, signal: options.signal },
        };
        return this.#bringUp(request, branch, new Stopwatch(this.#tools.clock));
      });
      run.add(attempt);
    } finally {
      if (purpose === 'failover') this.#startingMachines.delete(machineId);
    }
    return run.report(await this.#about(replica, purpose === 'test' ? 'test' : 'unplanned', { pointId }));
  }

  async #checkEnded(replica: Replica, branchId: string): Promise<void> {
    const [processId] = await processesOfRun(runDirectoryOf(this.#tools, branchId));
    if (processId === undefined) return;
    const said = `branch ${branchId} of ${replica.record.machineName} runs already`;
    throw failoverFailure('FAILOVER_RUNS_ALREADY', said, { context: { branchId, processId } });
  }

  async #checkNoneRuns(replica: Replica): Promise<void> {
    const { machineId, machineName } = replica.record;
    const running = (await this.list(replica)).find((view) => view.purpose === 'failover' && view.running);
    if (!running && !this.#startingMachines.has(machineId)) return;
    throw failoverFailure('FAILOVER_RUNS_ALREADY', `${machineName} has failed over to this site already`, {
      context: { machineId, branchId: running?.branchId },
    });
  }

  async #attempt(request: AttemptRequest): Promise<Attempt> {
    const { replica, candidate, purpose, keep, signal } = request;
    throwIfAborted(signal);
    const { clock, random, files } = this.#tools;
    const branchId = newId(clock, random);
    return this.#exclusively(branchId, async () => {
      const watch = new Stopwatch(clock);
      const branch = await watch.time('branch', async () => {
        const about = { branchId, pointId: candidate.pointId, purpose, createdAtMs: clock.wallMs() };
        try {
          const made = await createBranch(files, replica, about);
          await storeState(this.#tools, replica, branchId, { phase: 'created', keep });
          return made;
        } catch (error) {
          await removeBranch(files, replica, branchId);
          throw error;
        }
      });
      return this.#bringUp(request, branch, watch);
    });
  }

  /** Boots a branch and judges it; what happens to it then depends on the verdict and on what it is for. */
  async #bringUp(request: AttemptRequest, branch: BranchRecord, watch: Stopwatch): Promise<Attempt> {
    const { replica, purpose, keep } = request;
    const { branchId } = branch;
    let boot: Boot | undefined;
    let judged: BootVerdict;
    try {
      boot = await this.#boot(request, branch, watch);
      const { picture, nonce } = boot.screen;
      judged = verdictOf({
        probes: boot.probes,
        ...(nonce === 'not-asked' ? {} : { screen: { picture, nonce } }),
      });
    } catch (error) {
      if (!isFailure(error) || error.kind === 'cancelled' || request.signal?.aborted) {
        await this.#settle(request, branch, { reason: messageOf(error) });
        throw error;
      }
      // What hinders one point (a file that cannot be opened, say) may not hinder the next.
      judged = { verdict: 'failed', reasons: [messageOf(error)] };
    }
    const failed = judged.verdict === 'failed';
    const rtoMs = failed || boot?.lastPassedMs === undefined ? null : boot.lastPassedMs - request.commandMs;
    const seen = boot && { replica, purpose, branch, boot, judged, rtoMs };
    const picturePath = seen ? await keepEvidence(this.#tools, seen) : null;
    const runsOn = purpose === 'test' ? keep && boot !== undefined : !failed;
    await watch.time('clean-up', async () => {
      if (!runsOn) await this.#settle(request, branch, { reason: judged.reasons.join('; ') });
      else {
        const phase = failed ? 'failed' : 'probed';
        await storeState(this.#tools, replica, branchId, { phase, keep, ...reasonOf(judged.reasons) });
      }
    });
    const report: AttemptReport = {
      ...{ point: summaryOf(replica.point(branch.pointId)), reason: request.candidate.reason },
      ...{ branchId, kept: runsOn || staysAnyway(request), verdict: judged.verdict },
      ...{ reasons: judged.reasons, probes: boot?.probes ?? [], nonce: boot?.screen.nonce ?? 'not-asked' },
      ...{ picturePath, steps: watch.steps, assertions: boot?.assertions ?? [] },
      network: boot?.network ?? { kind: 'unplugged', reason: 'the machine was not started' },
    };
    return { report, rtoMs, runs: runsOn };
  }

  async #boot(request: AttemptRequest, branch: BranchRecord, watch: Stopwatch): Promise<Boot> {
    const { replica, purpose, keep, hasRun = false, probes, networks, signal } = request;
    const releaseLayers = await replica.holdLayers();
    let started = false;
    try {
      return await bootBranch(this.#tools, {
        ...{ replica, branch, keep, hasRun, probes, watch, signal },
        network: purpose === 'test' ? 'isolated' : networks,
        onStarted: (machine) => {
          started = true;
          this.#adopt(replica, branch.branchId, { machine, releaseLayers });
        },
      });
    } finally {
      if (!started) releaseLayers();
    }
  }

  /** Ends what was brought up: a test that is new is removed, of all else the files stay. */
  async #settle(
    request: AttemptRequest,
    { branchId }: BranchRecord,
    { reason }: { readonly reason: string },
  ): Promise<void> {
    const { replica } = request;
    if (staysAnyway(request)) {
      await storeState(this.#tools, replica, branchId, { phase: 'failed', keep: true, reason });
      await this.#end(branchId);
    } else {
      await this.#end(branchId);
      await removeBranch(this.#tools.files, replica, branchId);
    }
  }

  /**
   * Ends the machine of a branch and removes everything of it: process, namespace, taps, sockets, files. Whatever was
   * half made or half removed by an earlier process is removed too. Returns whether there was such a branch. Throws
   * FAILOVER_BRANCH_BUSY, MACHINE_END_FAILED.
   */
  async cleanup(replica: Replica, branchId: string): Promise<boolean> {
    if (!isId(branchId)) return false;
    return this.#exclusively(branchId, async () => {
      await this.#end(branchId);
      if ((await this.#tools.files.list(replica.layout.branch(branchId))) === undefined) return false;
      await removeBranch(this.#tools.files, replica, branchId);
      return true;
    });
  }

  async list(replica: Replica): Promise<readonly BranchView[]> {
    const views: BranchView[] = [];
    for (const { branchId, pointId, purpose, createdAtMs } of replica.branches) {
      const state = await loadState(this.#tools, replica, branchId);
      const runDirectory = runDirectoryOf(this.#tools, branchId);
      const [processId] = await processesOfRun(runDirectory);
      const paths = runPaths(runDirectory);
      views.push({
        ...{ branchId, pointId, purpose, createdAtMs, phase: state?.phase ?? 'created' },
        ...(state?.reason === undefined ? {} : { reason: state.reason }),
        running: processId !== undefined,
        ...(processId === undefined ? {} : { processId }),
        ...(processId === undefined
          ? {}
          : { sockets: { qmpPath: paths.qmpPath, agentPath: paths.agentPath } }),
      });
    }
    return views;
  }

  /**
   * To be called once, before anything else, when the site starts: connects to the branches that run, removes what was
   * half made, ends machines that failed. A branch that hinders this hinders no other; it is logged and left.
   */
  async recover(replicas: Iterable<Replica>): Promise<void> {
    for (const replica of replicas) {
      for (const branch of replica.branches) {
        try {
          await this.#recoverBranch(replica, branch);
        } catch (error) {
          if (!isFailure(error)) throw error;
          this.#tools.log.error('branch.not-recovered', {
            branchId: branch.branchId,
            reason: error.message,
          });
        }
      }
    }
  }

  async #recoverBranch(replica: Replica, { branchId, purpose }: BranchRecord): Promise<void> {
    const state = await loadState(this.#tools, replica, branchId);
    const runDirectory = runDirectoryOf(this.#tools, branchId);
    const running = (await processesOfRun(runDirectory)).length > 0;
    const keep = state?.keep ?? false;
    const recovery = recoveryOf({
      ...{ purpose, phase: state?.phase, keep, running, hasRun: state?.hasRun ?? false },
    });
    this.#tools.log.info('branch.recovery', { branchId, purpose, phase: state?.phase, running, recovery });
    if (recovery === 'remove') {
      await this.cleanup(replica, branchId);
      return;
    }
    if (recovery === 'keep-files') {
      await this.#end(branchId);
      if (state && state.phase !== 'failed') {
        await storeState(this.#tools, replica, branchId, { phase: 'stopped', keep });
      }
      return;
    }
    // Taken before anything can fail: the process reads the layers whether or not we can talk to it.
    const releaseLayers = await replica.holdLayers();
    const { qmpPath, agentPath } = runPaths(runDirectory);
    const machine = await this.#tools.hypervisor.attach({ qmpPath, agentPath });
    this.#adopt(replica, branchId, { machine, releaseLayers });
  }

  #adopt(replica: Replica, branchId: string, live: Live): void {
    this.#live.set(branchId, live);
    void live.machine.gone.then(() => this.#onGone(replica, branchId, live));
  }

  /** A machine has ended by itself: a guest that shut down, or a QEMU that died. */
  async #onGone(replica: Replica, branchId: string, live: Live): Promise<void> {
    // An act under way sees to the end by itself, or leaves the machine as one that runs.
    await this.#busy.get(branchId);
    if (this.#live.get(branchId) !== live) return;
    try {
      await this.#exclusively(branchId, async () => {
        await this.#end(branchId);
        const state = await loadState(this.#tools, replica, branchId);
        if (!state) return;
        const phase = state.phase === 'failed' ? 'failed' : 'stopped';
        await storeState(this.#tools, replica, branchId, { ...state, phase });
      });
    } catch (error) {
      this.#tools.log.error('branch.end-not-recorded', { branchId, reason: messageOf(error) });
    }
  }

  /** Ends the branch's machine, if there is one, and lets go of the layers that it read. */
  async #end(branchId: string): Promise<void> {
    const live = this.#live.get(branchId);
    this.#live.delete(branchId);
    await live?.machine.disconnect();
    await endBranchMachine(this.#tools, branchId);
    live?.releaseLayers();
  }

  async #exclusively<T>(branchId: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(branchId)) {
      throw failoverFailure('FAILOVER_BRANCH_BUSY', `something is being done with branch ${branchId}`, {
        context: { branchId },
      });
    }
    const ended = Promise.withResolvers<void>();
    this.#busy.set(branchId, ended.promise);
    try {
      return await work();
    } finally {
      this.#busy.delete(branchId);
      ended.resolve();
    }
  }

  async #about(replica: Replica, kind: FailoverReport['kind'], choice: PointChoice) {
    const { machineId, machineName, epoch } = replica.record;
    const { accelerator, reason } = await this.#tools.hypervisor.acceleration();
    return {
      ...{ kind, machine: { machineId, name: machineName }, epoch, accelerator },
      chosenBy: 'pointId' in choice ? ('person' as const) : ('selection' as const),
      slow: accelerator === 'tcg' ? (reason ?? 'no KVM') : undefined,
    };
  }

  /** Lets go of all machines; they run on, and `recover` finds them again. */
  async close(): Promise<void> {
    const all = [...this.#live.values()];
    this.#live.clear();
    for (const { machine, releaseLayers } of all) {
      await machine.disconnect();
      releaseLayers();
    }
  }
}

/** Whether the files of a branch outlive a machine that does not come up. */
function staysAnyway({ purpose, hasRun }: AttemptRequest): boolean {
  return purpose === 'failover' || hasRun === true;
}

function reasonOf(reasons: readonly string[]): { reason?: string } {
  return reasons.length === 0 ? {} : { reason: reasons.join('; ') };
}
