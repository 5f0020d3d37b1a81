import type { Failure } from '../lib/errors.ts';
import { isId } from '../lib/random.ts';
import { checkProbes, type Probe, type ProbeResult } from '../probe/index.ts';
import {
  type BranchRecord,
  checkBranchName,
  findBranch,
  freeBranchName,
  Replica,
  type Trunk,
} from '../replica/index.ts';
import { adoptBranch, type NewHome } from './adoption.ts';
import { loadChanges } from './branch-changes.ts';
import { type BranchTools, endAndRemove, recoverBranches } from './branch-recovery.ts';
import { type BranchView, viewOf } from './branch-view.ts';
import { type AttemptRequest, BringUp } from './bring-up.ts';
import { candidatesOf, type PointChoice, pointProofs } from './candidates.ts';
import { type ConnectedMachine, checkTogether, type NetworksHere } from './connections.ts';
import { isolatedTest } from './isolated-test.ts';
import { LiveBranches } from './live-branches.ts';
import { namedAmong } from './nic-checks.ts';
import type {
  ForwardOptions,
  RestartOptions,
  StartOptions,
  StopOptions,
  TakeOptions,
  TestOptions,
} from './options.ts';
import { Precedence } from './precedence.ts';
import { checkNotPrepared, type PrepareOptions, prepareBranch, purposeOf } from './prepared.ts';
import { probeAgain } from './probe-again.ts';
import { type FailoverReport, Stopwatch } from './report.ts';
import {
  checkEnded,
  checkNotAdopted,
  checkNotFenced,
  checkNotTaken,
  holdBy,
  offeredPoint,
  type Right,
  rightUpon,
  runningBranch,
  runsAlready,
  takeRight,
  warningsBefore,
  warningsOf,
  writtenBefore,
} from './right.ts';
import { discardLeft, rollForward } from './roll-forward.ts';
import { type Attempt, headOf, RunUnderWay } from './run-under-way.ts';
import { SharedTests } from './shared-tests.ts';
import { type AskedAhead, checkAhead, type StartCheck, startable } from './start-check.ts';
import { type Start, Starts } from './starts.ts';
import { type BranchEnd, stopBranch } from './stop-branch.ts';
import { TestGuard } from './test-guard.ts';
import { loadLimits } from './test-limits.ts';
import type { FailoverTools } from './tools.ts';
import { type UndoReport, undoFailover } from './undo.ts';

/** The branches of a site that are, or are being, brought to life. One object per site process. */
export class Failovers {
  readonly #tools: FailoverTools;
  readonly #live: LiveBranches;
  readonly #bringUp: BringUp;
  readonly #guard: TestGuard;
  readonly #precedence: Precedence;
  /** Tests of several machines that see each other. */
  readonly together: Pick<SharedTests, 'open' | 'close'>;
  readonly #shared: SharedTests;
  readonly #starts: Starts;

  constructor(tools: FailoverTools) {
    this.#tools = tools;
    this.#live = new LiveBranches(tools);
    this.#bringUp = new BringUp(tools, this.#live);
    this.#guard = new TestGuard(tools, this.#live);
    this.#precedence = new Precedence(tools.clock);
    this.#shared = new SharedTests(tools, this.#live);
    this.together = this.#shared;
    this.#starts = new Starts(tools);
  }

  /** A failover is under way, and what gives way to it does not begin. */
  get isUrgent(): boolean {
    return this.#precedence.isUrgent;
  }

  /**
   * Boots a point in isolation and looks whether it runs, while replication goes on. Each point that was booted gets a
   * signed proof. Nothing is left behind unless `keep`. A cancelled test is cleaned up before the failure is thrown.
   * Throws FAILOVER_NO_POINT, FAILOVER_PROBE_INVALID, FAILOVER_WOULD_NOT_START, FAILOVER_TESTS_TOO_MANY, FAILOVER_SPACE_LOW,
   * FAILOVER_LIMIT_UNAVAILABLE, FAILOVER_TEST_OVER, FAILOVER_GAVE_WAY, REPLICA_UNKNOWN; everything that happens to the guest is told
   * by the report.
   */
  test(replica: Replica, choice: PointChoice, options: TestOptions = {}): Promise<FailoverReport> {
    const candidates = async () => {
      const proofs = await pointProofs(this.#tools.files, replica);
      return { candidates: candidatesOf(replica, choice, proofs), warnings: proofs.warnings };
    };
    const work = (signal = options.signal) =>
      this.#test(replica, { choice, candidates }, signal ? { ...options, signal } : options);
    return options.givesWay ? this.#precedence.yielding(work, options.signal) : work();
  }

  /** As `test`, of what a machine wrote here before it was fenced: that is no point, and gets no proof. */
  testDiverged(trunk: Trunk, branchId: string, options: TestOptions = {}): Promise<FailoverReport> {
    const candidate = { pointId: branchId, reason: 'what was written here and no other site has' };
    const candidates = async () => ({ candidates: [candidate], warnings: [] });
    return this.#test(trunk, { choice: { pointId: branchId }, candidates }, options);
  }

  #test(
    replica: Trunk,
    chosen: Parameters<typeof isolatedTest>[2],
    options: TestOptions,
  ): Promise<FailoverReport> {
    const o = { tools: this.#tools, bringUp: this.#bringUp, guard: this.#guard, shared: this.#shared };
    return isolatedTest(o, replica, chosen, options);
  }

  /**
   * Makes a branch of a point from which tests and failovers of it start from then on, instead of from the point itself. It is the
   * guest's own work, done ahead: programs run in an isolated boot, which then shuts down. Throws as `test`.
   */
  async prepare(replica: Replica, pointId: string, options: PrepareOptions): Promise<FailoverReport> {
    checkProbes(options.probes ?? []);
    checkBranchName(replica, options.name);
    replica.checkUsable();
    const run = new RunUnderWay(this.#tools);
    run.warn((await startable(this.#tools.hypervisor, replica, [{ pointId }])).warnings);
    run.add(await this.#guard.admit(() => prepareBranch(this.#both, replica, pointId, options)));
    return run.report(await headOf(this.#tools, replica, 'prepare', { pointId }));
  }

  get #both(): BranchTools {
    return { tools: this.#tools, live: this.#live };
  }

  /**
   * Fails a machine over to this site without the other one's help. First of all the epoch is raised, durably, so that the old
   * source is refused from then on; where votes are asked for and this site holds the machine already, its witness agrees to that. Then the points are tried, the best first, until one passes its probes. The machine
   * of a point that fails is ended at once, so that no two of them ever share a network; its files are kept, because a
   * probe can be wrong and its disk may hold what people wrote meanwhile. If all fail, the report says so and none runs.
   *
   * Throws FAILOVER_UNCONFIRMED, FAILOVER_RUNS_ALREADY, FAILOVER_NO_POINT, FAILOVER_NIC_UNKNOWN, FAILOVER_PROBE_INVALID,
   * FAILOVER_WOULD_NOT_START before anything is changed, and what `fencing` does before anything is taken. Throws FAILOVER_FENCED as soon
   * as this site hears of a higher claim: nothing of it runs then.
   */
  async start(replica: Replica, choice: PointChoice, options: StartOptions): Promise<FailoverReport> {
    return this.#bringHere(replica, { kind: 'unplanned', right: rightUpon(options), choice, options });
  }

  /**
   * Takes over a machine whose right was offered to this site: it has ended at the other one, and its last state is the point that is
   * booted here. The right is taken, durably, before the machine starts; doing it again goes on from there. Throws FAILOVER_NOT_OFFERED,
   * FAILOVER_RUNS_ALREADY, FAILOVER_NIC_UNKNOWN, FAILOVER_PROBE_INVALID, FAILOVER_WOULD_NOT_START before anything is changed.
   */
  async take(replica: Replica, options: TakeOptions): Promise<FailoverReport> {
    const choice = { pointId: offeredPoint(replica), why: 'the last state of the machine' };
    // Looked at again where nobody else takes it meanwhile; here for who is to hear that and not that it runs.
    await checkNotTaken(this.#tools, replica);
    return this.#bringHere(replica, { kind: 'planned', right: takeRight, choice, options });
  }

  async #bringHere(
    replica: Replica,
    o: {
      readonly kind: 'unplanned' | 'planned';
      readonly right: Right;
      readonly choice: PointChoice;
      readonly options: TakeOptions;
    },
  ): Promise<FailoverReport> {
    const { kind, choice } = o;
    const { name, networks = {}, probes, changes, signal } = o.options;
    const hasNewMacs = changes?.mac === 'new';
    checkProbes(probes ?? []);
    checkBranchName(replica, name);
    const run = new RunUnderWay(this.#tools);
    const held = await this.#alone(replica, async (start, room) => {
      if (kind === 'planned') await checkNotTaken(this.#tools, replica);
      const earlierBranchIds = kind === 'planned' ? writtenBefore(replica) : undefined;
      const proofs = await pointProofs(this.#tools.files, replica);
      const chosen = candidatesOf(replica, choice, proofs);
      const { passedOver, warnings } = await this.#checkAhead({
        replica,
        networks,
        points: chosen,
        hasNewMacs,
        given: changes,
      });
      run.warn([...proofs.warnings, ...warnings]);
      const by = await run.watch.time('fence', () => holdBy(o.right, this.#tools, replica));
      run.warn([...warningsOf(by), ...warningsBefore(earlierBranchIds)]);
      start.check();
      const { epoch } = replica.record;
      await room;
      // Chosen again: a point may have arrived in the meantime; from here on none does.
      for (const candidate of candidatesOf(replica, choice, proofs)) {
        if (passedOver.has(candidate.pointId)) continue;
        start.check();
        const attempt = await this.#bringUp.onNewBranch({
          ...{ replica, purpose: 'failover', keep: true, commandMs: run.startMs },
          candidate,
          ...{ name: name && freeBranchName(replica, name), networks, probes, changes },
          ...start.heeded(signal),
        });
        if (run.add(attempt)) break;
      }
      return { heldBy: by, epoch, ...(earlierBranchIds ? { earlierBranchIds } : {}) };
    });
    return { ...run.report(await headOf(this.#tools, replica, kind, choice)), ...held };
  }

  /**
   * Boots a branch whose machine has ended on its own files again: after its host was restarted, or to look at several
   * futures of a point in turn. A test boots in isolation, a failover with the NICs that `networks` names. Its files stay,
   * also when it does not come up or the site ends meanwhile.
   *
   * Throws BRANCH_UNKNOWN, FAILOVER_RUNS_ALREADY, FAILOVER_NIC_UNKNOWN, FAILOVER_PROBE_INVALID, FAILOVER_WOULD_NOT_START,
   * FAILOVER_BRANCH_BUSY before anything is changed.
   */
  async restart(replica: Trunk, branchId: string, options: RestartOptions = {}): Promise<FailoverReport> {
    const { networks = {}, probes, signal, reason = 'restarted by a person' } = options;
    checkProbes(probes ?? []);
    const branch = findBranch(replica, branchId);
    checkNotPrepared(branch);
    // Whoever boots it again has chosen the branch, and not its point.
    const choice = { pointId: branch.pointId, why: 'that of the branch' };
    const purpose = purposeOf(branch);
    const run = new RunUnderWay(this.#tools);
    const given = await loadChanges(this.#tools, replica, branch.branchId);
    const asked = { replica, networks, points: [choice], hasNewMacs: given.macs !== undefined, given };
    run.warn((await this.#checkAhead(asked)).warnings);
    const head = await headOf(this.#tools, replica, purpose === 'test' ? 'test' : 'unplanned', choice);
    await this.#admitted(purpose, replica, async (start) => {
      const attempt = await this.#live.exclusively(branch.branchId, async () => {
        await checkEnded(this.#tools, replica, branch.branchId);
        await this.#live.end(branch.branchId);
        start?.check();
        const heeded = start?.heeded(signal) ?? { signal };
        return this.#bootAgain(branch, { replica, reason, networks, probes, run, ...heeded });
      });
      run.add(attempt);
    });
    return run.report(head);
  }

  /**
   * Ends the machine of a branch and keeps everything that was written in it: `restart` boots it on its files again. The guest
   * is asked to shut down first; one that does not in time loses its power. `not-running`: there was nothing to end. What is only being
   * brought up, or asked, and may not run here any more, is broken off at once. Throws BRANCH_UNKNOWN, FAILOVER_BRANCH_BUSY, MACHINE_END_FAILED.
   */
  async stop(replica: Trunk, branchId: string, options: StopOptions): Promise<BranchEnd> {
    const branch = findBranch(replica, branchId);
    checkNotAdopted(replica, branch.branchId);
    if (this.#starts.look(replica)) await this.#live.whenIdle(branch.branchId);
    return this.#live.exclusively(branch.branchId, () => stopBranch(this.#both, replica, branch, options));
  }

  /**
   * Ends what failovers have brought up here, as `stop` does, and gives up the right to run the machine: nobody holds it then, and what
   * was written stays in the branches. Doing it again changes nothing. Throws FAILOVER_ADOPTED, FAILOVER_FENCED, FAILOVER_NOT_BEGUN,
   * FAILOVER_NOT_DIRECT, FAILOVER_RUNS_ALREADY, FAILOVER_BRANCH_BUSY, MACHINE_END_FAILED; the right is held as before then.
   */
  undo(replica: Replica, options: StopOptions): Promise<UndoReport> {
    return this.#starts.alone(replica, () =>
      undoFailover(this.#tools, replica, ({ branchId }) => this.stop(replica, branchId, options)),
    );
  }

  /**
   * Lets a branch go forward to a later point of its replica, without a byte over the wire: its machine is ended, and a new child
   * of the later point is booted. What was written in the branch does not go along. It is kept as another future or
   * discarded; that only once the new machine is known to work, so that a later point that does not boot costs nothing.
   * Where the new machine can neither come up nor be ended (MACHINE_END_FAILED), the old one stays off.
   *
   * Throws BRANCH_UNKNOWN, BRANCH_NAME_TAKEN, FAILOVER_NOT_FORWARD, FAILOVER_RUNS_ALREADY, FAILOVER_NIC_UNKNOWN,
   * FAILOVER_PROBE_INVALID, FAILOVER_BRANCH_BUSY, FAILOVER_WOULD_NOT_START before anything is changed.
   */
  async forward(replica: Replica, branchId: string, options: ForwardOptions): Promise<FailoverReport> {
    const { to, networks = {}, probes, name, oldBranch, graceMs, signal } = options;
    checkProbes(probes ?? []);
    checkBranchName(replica, name);
    replica.checkUsable();
    const branch = findBranch(replica, branchId);
    checkNotPrepared(branch);
    const way = rollForward(replica, branch, to);
    const purpose = purposeOf(branch);
    const { pointId } = way.following.at(-1)!;
    const candidate = { pointId, reason: `follows point ${way.from.sequence} of branch ${branch.branchId}` };
    const formerChanges = await loadChanges(this.#tools, replica, branch.branchId);
    const hasNewMacs = formerChanges.macs !== undefined;
    const except = branch.branchId;
    const { warnings } = await this.#checkAhead({
      ...{ replica, networks, points: [candidate], except, hasNewMacs },
      // A later point may have lost a NIC.
      given: { ...formerChanges, addresses: undefined },
    });
    const limits = purpose === 'test' ? await loadLimits(this.#tools, replica, branch.branchId) : undefined;
    const run = new RunUnderWay(this.#tools);
    run.warn(warnings);
    const kind = purpose === 'test' ? 'test' : 'unplanned';
    const head = await headOf(this.#tools, replica, kind, to === undefined ? {} : { pointId });
    let back: Attempt | undefined;
    const remaining = await this.#live.exclusively(branch.branchId, () =>
      this.#admitted(
        purpose,
        replica,
        async (start) => {
          const ended = await stopBranch(this.#both, replica, branch, {
            graceMs,
            ...(signal ? { signal } : {}),
          });
          let verdict: Attempt['report']['verdict'] = 'failed';
          try {
            start?.check();
            const attempt = await this.#bringUp.onNewBranch({
              ...{ replica, candidate, purpose, keep: true, commandMs: run.startMs },
              ...{ name, networks, probes, limits, formerChanges, ...(start?.heeded(signal) ?? { signal }) },
            });
            run.add(attempt);
            ({ verdict } = attempt.report);
          } finally {
            // People work with it: neither a later point that does not come up nor a change of mind may cost them that.
            const isMissed = verdict === 'failed' && purpose === 'failover' && ended !== 'not-running';
            // Beside a machine that could not be ended it would be the second one on their network.
            if (isMissed && (await runningBranch(this.#tools, replica)) === undefined)
              back = await this.#bringBack(branch, { replica, networks, run, start });
          }
          if (back?.runs) return 'runs-again' as const;
          if (verdict === 'failed' || oldBranch === 'keep') return 'kept' as const;
          return discardLeft(this.#tools.files, replica, branch, { verdict, run });
        },
        branch.branchId,
      ),
    );
    return {
      ...run.report(head, back),
      ...(back?.runs ? { branchId: branch.branchId } : {}),
      forward: { ...way, branchId: branch.branchId, oldBranch: remaining },
    };
  }

  /** Boots a branch whose machine has ended on its own files. */
  #bootAgain(
    branch: BranchRecord,
    {
      reason,
      run,
      ...how
    }: Pick<AttemptRequest, 'replica' | 'networks' | 'probes' | 'signal' | 'checkHeld'> & {
      readonly reason: string;
      readonly run: RunUnderWay;
    },
  ): Promise<Attempt> {
    const request: AttemptRequest = {
      ...how,
      ...{ purpose: purposeOf(branch), keep: true, hasRun: true, commandMs: run.startMs },
      candidate: { pointId: branch.pointId, reason },
    };
    return this.#bringUp.onBranch(request, branch, new Stopwatch(this.#tools.clock));
  }

  /**
   * With the NICs that were named for the later point, as far as the machine had them then. Nothing is asked of its guest: it
   * was at work before, and no probe is to end it.
   */
  #bringBack(
    branch: BranchRecord,
    {
      start,
      ...o
    }: Pick<AttemptRequest, 'replica' | 'networks'> & {
      readonly run: RunUnderWay;
      readonly start: Start | undefined;
    },
  ): Promise<Attempt> {
    start?.check();
    const networks = namedAmong(o.networks, o.replica.point(branch.pointId).statement.configuration);
    const reason = 'the later point did not come up';
    return this.#bootAgain(branch, { ...o, networks, reason, probes: [], ...start?.heeded() });
  }

  /**
   * Makes what a failover has brought up the machine itself, at home here from now on; it runs on. What `home` creates decides: if that
   * fails, the branch is what it was. Throws FAILOVER_NOT_AT_WORK, FAILOVER_FENCED, FAILOVER_ADOPTED, FAILOVER_RUNS_ALREADY,
   * FAILOVER_BRANCH_BUSY, REPLICA_IN_USE.
   */
  adopt<T>(replica: Replica, branchId: string, home: NewHome<T>): Promise<T> {
    const branch = findBranch(replica, branchId);
    checkNotFenced(this.#tools, replica);
    const work = () => this.#live.exclusively(branchId, () => adoptBranch(this.#both, replica, branch, home));
    return this.#alone(replica, work, branchId);
  }

  /**
   * Asks the guest of a failover that runs; undefined if this site is not connected to it. Throws BRANCH_UNKNOWN, FAILOVER_BRANCH_BUSY, and
   * FAILOVER_FENCED, FAILOVER_GIVEN_UP as soon as it may not run here any more.
   */
  probeAgain(
    replica: Replica,
    branchId: string,
    probes: readonly Probe[] | undefined,
    signal: AbortSignal,
  ): Promise<readonly ProbeResult[] | undefined> {
    return this.#starts.asking(replica, (start) => {
      const heeded = start.heeded(signal).signal;
      return this.#live.exclusively(branchId, () =>
        probeAgain(this.#both, replica, branchId, probes, heeded),
      );
    });
  }

  /** Starts a machine within `work` as far as others let it; `except` is the branch that gives way to it. */
  async #admitted<T>(
    purpose: 'test' | 'failover',
    replica: Trunk,
    work: (start?: Start) => Promise<T>,
    except?: string,
  ): Promise<T> {
    // A failover is of a replica alone.
    if (purpose === 'test' || !(replica instanceof Replica)) return this.#guard.admit(() => work(), except);
    checkNotFenced(this.#tools, replica);
    return this.#alone(replica, (start, room) => room.then(() => work(start)), except);
  }

  /** No two machines of one replica's failovers run at a time; drills give way, until `room`. Throws FAILOVER_RUNS_ALREADY. */
  async #alone<T>(
    replica: Replica,
    work: (start: Start, room: Promise<void>) => Promise<T>,
    except?: string,
  ): Promise<T> {
    return this.#starts.alone(replica, async (start) => {
      await this.#checkNoneRuns(replica, except);
      return this.#precedence.urgently((room) => work(start, room));
    });
  }

  /** Whether machines could come up together; see `checkTogether`. What one of them lacks hinders no other. */
  async checkTogether(machines: readonly ConnectedMachine[]): Promise<void> {
    await checkTogether(this.#networksHere, machines);
  }

  #checkAhead(asked: AskedAhead): Promise<StartCheck> {
    return checkAhead(this.#tools.hypervisor, this.#networksHere, asked);
  }

  get #networksHere(): NetworksHere {
    return { branches: this.#live.all, machines: this.#tools.machinesHere() };
  }

  async #checkNoneRuns(replica: Replica, except?: string): Promise<void> {
    const running = await runningBranch(this.#tools, replica, except);
    if (running !== undefined) throw runsAlready(replica, running);
  }

  /**
   * Ends the machine of a branch and removes everything of it: process, namespace, taps, sockets, files. Whatever was
   * half made or half removed by an earlier process is removed too. Returns whether there was such a branch. Throws
   * FAILOVER_BRANCH_BUSY, MACHINE_END_FAILED.
   */
  async cleanup(replica: Trunk, branchId: string): Promise<boolean> {
    if (!isId(branchId)) return false;
    checkNotAdopted(replica, branchId);
    return this.#live.exclusively(branchId, () => endAndRemove(this.#both, replica, branchId));
  }

  list(replica: Trunk): Promise<readonly BranchView[]> {
    const isPaused = (branchId: string) => this.#guard.isPaused(branchId);
    return Promise.all(
      replica.branches.map((branch) => viewOf(this.#tools, replica, branch, isPaused(branch.branchId))),
    );
  }

  /**
   * To be called again and again: cleans up tests whose time has come, and holds those that run while there is too little space.
   * Returns the failure that people are to be told of as long as tests stand still.
   */
  async tendTests(replicas: Iterable<Trunk>): Promise<Failure | undefined> {
    await this.#guard.endOverdue(replicas, (replica, branchId) => this.cleanup(replica, branchId));
    return this.#guard.hold();
  }

  /**
   * To be called once, before anything else, when the site starts: connects to the branches that run, removes what was
   * half made, ends machines that failed. A branch that hinders this hinders no other; it is logged and left.
   */
  async recover(replicas: Iterable<Trunk>): Promise<void> {
    for (const replica of replicas) await recoverBranches(this.#both, replica);
    await this.#shared.recover();
  }

  /** Lets go of all machines; they run on, and `recover` finds them again. */
  close(): Promise<void> {
    return this.#live.close();
  }
}
