import { checkMachineConfiguration } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { Mutex } from '../lib/mutex.ts';
import { newId } from '../lib/random.ts';
import type { Probe } from '../probe/index.ts';
import { type BranchRecord, createBranch, removeBranch, type Trunk } from '../replica/index.ts';
import { type BranchChanges, changesOf, storeChanges, type WantedChanges } from './branch-changes.ts';
import { type Boot, bootBranch } from './branch-machine.ts';
import { storeState } from './branch-state.ts';
import type { Candidate } from './candidates.ts';
import { type KeptPicture, keepEvidence } from './evidence.ts';
import type { LiveBranches } from './live-branches.ts';
import type { NicMapping } from './network.ts';
import { preparedBranch } from './prepared.ts';
import { type AttemptReport, Stopwatch } from './report.ts';
import { type Attempt, summaryOf } from './run-under-way.ts';
import type { SharedTest } from './shared-tests.ts';
import { storeLimits, type TestLimits } from './test-limits.ts';
import type { FailoverTools } from './tools.ts';
import { type BootVerdict, verdictOf } from './verdict.ts';

export interface AttemptRequest {
  readonly replica: Trunk;
  readonly candidate: Candidate;
  readonly purpose: 'test' | 'failover';
  readonly keep: boolean;
  /** What people call the branch, if it is a new one. */
  readonly name?: string | undefined;
  /** How the machine of a new branch differs from the one that the point describes. */
  readonly changes?: WantedChanges | undefined;
  /** The same, decided before: of a branch that goes forward. */
  readonly formerChanges?: BranchChanges | undefined;
  /** What a new branch may take of this host. */
  readonly limits?: TestLimits | undefined;
  /** A new branch lies on the point itself, whatever has been prepared of it. */
  readonly asCut?: boolean;
  /** The branch was there before: its files hold somebody's work, and stay whatever becomes of this attempt. */
  readonly hasRun?: boolean;
  readonly probes?: readonly Probe[] | undefined;
  readonly networks: Readonly<Record<string, NicMapping>>;
  /** The test of several machines that it is part of. */
  readonly together?: SharedTest | undefined;
  readonly commandMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Of a failover: throws as soon as another site holds the machine by a higher claim. */
  readonly checkHeld?: (() => void) | undefined;
}

/** Brings branches up, one attempt at a time: made, booted, judged, and left as the verdict demands. */
export class BringUp {
  readonly #tools: FailoverTools;
  readonly #live: LiveBranches;
  /** Tests of one point may end at the same instant; a picture and the proof that names it are stored as a pair. */
  readonly #keeping = new Mutex();

  constructor(tools: FailoverTools, live: LiveBranches) {
    this.#tools = tools;
    this.#live = live;
  }

  /** Makes a branch of the candidate and brings it up. */
  async onNewBranch(request: AttemptRequest): Promise<Attempt> {
    const { replica, candidate, purpose, keep, name, limits, asCut = false, signal } = request;
    throwIfAborted(signal);
    const { pointId } = candidate;
    const base = asCut ? undefined : await preparedBranch(this.#tools, replica, pointId);
    const { clock, random, files } = this.#tools;
    const branchId = newId(clock, random);
    return this.#live.exclusively(branchId, async () => {
      const watch = new Stopwatch(clock);
      const branch = await watch.time('branch', async () => {
        const about = {
          ...{ branchId, pointId, purpose, createdAtMs: clock.wallMs() },
          ...(name ? { name } : {}),
          ...(base ? { base } : {}),
        };
        try {
          const made = await createBranch(files, replica, about);
          if (limits) await storeLimits(this.#tools, replica, branchId, limits);
          const changes = this.#changesOf(request);
          if (changes) await storeChanges(this.#tools, replica, branchId, changes);
          await storeState(this.#tools, replica, branchId, { phase: 'created', keep });
          return made;
        } catch (error) {
          await removeBranch(files, replica, branchId);
          throw error;
        }
      });
      return this.onBranch(request, branch, watch);
    });
  }

  #changesOf({ replica, candidate, changes, formerChanges }: AttemptRequest): BranchChanges | undefined {
    const { configuration } = replica.point(candidate.pointId).statement;
    const decided = changes
      ? changesOf(changes, checkMachineConfiguration(configuration), this.#tools.random)
      : formerChanges;
    return decided && Object.keys(decided).length > 0 ? decided : undefined;
  }

  /** Boots a branch and judges it; what happens to it then depends on the verdict and on what it is for. */
  async onBranch(request: AttemptRequest, branch: BranchRecord, watch: Stopwatch): Promise<Attempt> {
    const { replica, purpose, keep, hasRun = false } = request;
    const { branchId } = branch;
    let boot: Boot | undefined;
    let judged: BootVerdict;
    try {
      boot = await this.#boot(request, branch, watch);
      request.checkHeld?.();
      const { picture, nonce } = boot.screen;
      judged = verdictOf({
        ...{ probes: boot.probes, notReaddressed: boot.addresses?.failure },
        ...(nonce === 'not-asked' ? {} : { screen: { picture, nonce } }),
      });
    } catch (error) {
      if (!isFailure(error) || error.kind === 'cancelled' || request.signal?.aborted) {
        const notes = new Notes(this.#tools.log, branchId);
        await this.#settle(request, branch, notes, { reason: messageOf(error) });
        throw error;
      }
      // What hinders one point (a file that cannot be opened, say) may not hinder the next.
      judged = { verdict: 'failed', reasons: [messageOf(error)] };
    }
    const failed = judged.verdict === 'failed';
    const rtoMs = failed || boot?.lastPassedMs === undefined ? null : boot.lastPassedMs - request.commandMs;
    const seen = boot && { replica, purpose, branch, boot, judged, rtoMs, hasRun };
    const notes = new Notes(this.#tools.log, branchId);
    const isUp = purpose === 'failover' && !failed;
    let kept: KeptPicture | null = null;
    let runsOn = isUp;
    try {
      if (seen) {
        const what = 'What was seen of the boot is not kept';
        const keepSeen = () => this.#keeping.run(() => keepEvidence(this.#tools, seen));
        kept = (await notes.unless(purpose === 'failover', what, keepSeen)) ?? null;
      }
      if (purpose === 'test') runsOn = boot !== undefined && stays(request, branchId, failed);
      if (runsOn) {
        const state = { phase: failed ? 'failed' : 'probed', keep, ...reasonOf(judged.reasons) } as const;
        const storeEnd = () => storeState(this.#tools, replica, branchId, state);
        const what = 'That the machine has come up is not recorded';
        await watch.time('clean-up', () => notes.unless(isUp, what, storeEnd));
      }
    } catch (error) {
      // What a test has shown is all that it is for: one of which that cannot be kept leaves nothing that runs.
      this.#tools.log.error('branch.not-recorded', { branchId, reason: messageOf(error) });
      if (!isUp) await this.#settle(request, branch, notes, { reason: messageOf(error) });
      throw error;
    }
    if (!runsOn) {
      const reason = judged.reasons.join('; ');
      await watch.time('clean-up', () => this.#settle(request, branch, notes, { reason }));
    }
    const report: AttemptReport = {
      ...{ point: summaryOf(replica.point(branch.pointId)), reason: request.candidate.reason },
      ...{ branchId, kept: runsOn || staysAnyway(request), verdict: judged.verdict },
      ...{ reasons: judged.reasons, probes: boot?.probes ?? [], nonce: boot?.screen.nonce ?? 'not-asked' },
      ...{ picturePath: kept?.path ?? null, steps: watch.steps, assertions: boot?.assertions ?? [] },
      ...(kept ? { pictureSha256: kept.sha256 } : {}),
      ...(notes.all.length > 0 ? { notRecorded: notes.all } : {}),
      ...(branch.base === undefined ? {} : { preparedBranchId: branch.base }),
      ...(boot?.addresses ? { addresses: boot.addresses } : {}),
      network: boot?.network ?? { kind: 'unplugged', reason: 'the machine was not started' },
    };
    return { report, rtoMs, runs: runsOn };
  }

  async #boot(request: AttemptRequest, branch: BranchRecord, watch: Stopwatch): Promise<Boot> {
    const { replica, purpose, keep, hasRun = false, probes, networks, together } = request;
    const { checkHeld, signal } = request;
    const releaseLayers = await replica.holdLayers();
    let started = false;
    try {
      return await bootBranch(this.#tools, {
        ...{ replica, branch, keep, hasRun, probes, together, watch, checkHeld, signal },
        network: purpose === 'test' ? 'isolated' : networks,
        onStarted: (machine) => {
          started = true;
          this.#live.adopt({ replica, branch, machine, releaseLayers });
        },
      });
    } finally {
      if (!started) releaseLayers();
    }
  }

  /** Ends what was brought up, whatever can be recorded of it: a test that is new is removed, of all else the files stay. */
  async #settle(
    request: AttemptRequest,
    { branchId }: BranchRecord,
    notes: Notes,
    { reason }: { readonly reason: string },
  ): Promise<void> {
    const { replica, hasRun = false } = request;
    if (staysAnyway(request)) {
      const state = { phase: 'failed', keep: true, reason, hasRun } as const;
      try {
        // First, so that a process that dies in between leaves nothing that the next one takes for a machine at work.
        await notes.unless(true, 'That the machine has not come up is not recorded', () =>
          storeState(this.#tools, replica, branchId, state),
        );
      } finally {
        await this.#live.end(branchId);
      }
    } else {
      await this.#live.end(branchId);
      await removeBranch(this.#tools.files, replica, branchId);
    }
  }
}

/** What could not be recorded of an attempt. */
class Notes {
  readonly all: string[] = [];
  readonly #log: Log;
  readonly #branchId: string;

  constructor(log: Log, branchId: string) {
    this.#log = log;
    this.#branchId = branchId;
  }

  /** Records something; where it `mayLack` and cannot be recorded, that is noted. */
  async unless<T>(mayLack: boolean, what: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!mayLack || !isFailure(error)) throw error;
      this.#log.error('branch.not-recorded', { branchId: this.#branchId, reason: error.message });
      this.all.push(`${what}: ${error.message}.`);
      return undefined;
    }
  }
}

/** Whether the machine of a test stays after its probes. */
function stays({ keep, together, replica }: AttemptRequest, branchId: string, failed: boolean): boolean {
  return keep || (!failed && together?.keep(replica, branchId) === true);
}

/** Whether the files of a branch outlive a machine that does not come up. */
function staysAnyway({ purpose, hasRun }: AttemptRequest): boolean {
  return purpose === 'failover' || hasRun === true;
}

function reasonOf(reasons: readonly string[]): { reason?: string } {
  return reasons.length === 0 ? {} : { reason: reasons.join('; ') };
}
