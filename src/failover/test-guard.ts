import { isFailure, messageOf } from '../lib/errors.ts';
import type { Trunk } from '../replica/index.ts';
import { failoverFailure } from './errors.ts';
import type { LiveBranch, LiveBranches } from './live-branches.ts';
import { loadLimits } from './test-limits.ts';
import type { FailoverTools } from './tools.ts';

/** What the tests of a site may take together. */
export interface TestRules {
  /** So many tests run at once. */
  readonly mostRunning: number;
  /** With less space than this no test is started, and those that run stand still; failovers never do. */
  readonly freeFloorBytes: number;
  /** After this time a test is cleaned up by itself unless it was given another; never, if absent. */
  readonly lifetimeMs?: number | undefined;
}

/** Paused tests go on when there is so much more than the floor, so that they do not stop again at once. */
const HEADROOM = 1.1;

/**
 * Admits tests, and holds those that run while the disk of the site is nearly full. What the hypervisor has stopped because the disk is full,
 * failovers too, goes on when there is room.
 */
export class TestGuard {
  readonly #tools: FailoverTools;
  readonly #live: LiveBranches;
  #starting = 0;
  /** Tests that stand still for want of space. */
  readonly #paused = new Set<string>();

  constructor(tools: FailoverTools, live: LiveBranches) {
    this.#tools = tools;
    this.#live = live;
  }

  /**
   * Starts a test within `work`, if one more may run; `except` is one that gives way to it. Throws FAILOVER_TESTS_TOO_MANY,
   * FAILOVER_SPACE_LOW before anything is done.
   */
  async admit<T>(work: () => Promise<T>, except?: string): Promise<T> {
    const { mostRunning } = this.#tools.testRules();
    await this.#checkSpace();
    const others = this.#tests.filter(({ branch }) => branch.branchId !== except);
    // Those being started are counted by #starting, also when their machine has a process already.
    const settled = others.filter(({ branch }) => !this.#live.isBusy(branch.branchId));
    const running = settled.length + this.#starting;
    if (running >= mostRunning) {
      const said = `${running} tests run or start, and no more than ${mostRunning} may`;
      throw failoverFailure('FAILOVER_TESTS_TOO_MANY', said, { context: { running, mostRunning } });
    }
    this.#starting += 1;
    try {
      return await work();
    } finally {
      this.#starting -= 1;
    }
  }

  /** Cleans up tests whose time has come; with which something is being done is looked at the next time, and what cannot be done is logged. */
  async endOverdue(
    replicas: Iterable<Trunk>,
    cleanUp: (replica: Trunk, branchId: string) => Promise<unknown>,
  ): Promise<void> {
    const { clock, log } = this.#tools;
    for (const replica of replicas) {
      for (const { branchId, purpose } of replica.branches) {
        if (purpose === 'failover' || this.#live.isBusy(branchId)) continue;
        const { endsAtMs } = await loadLimits(this.#tools, replica, branchId);
        if (endsAtMs === undefined || clock.wallMs() < endsAtMs) continue;
        log.info('test.time-is-over', { branchId });
        try {
          await cleanUp(replica, branchId);
        } catch (error) {
          if (!isFailure(error)) throw error;
          log.error('test.not-cleaned-up', { branchId, reason: error.message });
        }
      }
    }
  }

  isPaused(branchId: string): boolean {
    return this.#paused.has(branchId);
  }

  /**
   * Looks at the space that is left, pauses the tests or lets them go on. Those with which something is being done are looked
   * at the next time. Returns the failure that people are to be told of while machines stand still.
   */
  async hold(): Promise<ReturnType<typeof failoverFailure> | undefined> {
    const { freeFloorBytes } = this.#tools.testRules();
    const freeBytes = await this.#tools.freeBytes();
    const stopped = await this.#continueStopped(freeBytes >= freeFloorBytes * HEADROOM);
    const ids = new Set(this.#tests.map(({ branch }) => branch.branchId));
    for (const branchId of this.#paused) if (!ids.has(branchId)) this.#paused.delete(branchId);
    const wanted = freeBytes < freeFloorBytes ? 'paused' : 'running';
    // Between the two, what runs runs and what stands still stands still.
    const decided = wanted === 'paused' || freeBytes >= freeFloorBytes * HEADROOM;
    await this.#each(decided ? this.#tests : [], (live) => this.#bring(live, wanted));
    if (stopped.length > 0) {
      const said = `no space is left for ${stopped.join(', ')}, which stand still: ${inMiB(freeBytes)} are free`;
      return failoverFailure('FAILOVER_NO_SPACE', said);
    }
    if (this.#paused.size === 0) return undefined;
    return spaceLow(`${this.#paused.size} tests stand still: ${inMiB(freeBytes)} are free`);
  }

  /** Those with which nothing is being done, one after the other; what cannot be done is logged. */
  async #each(all: readonly LiveBranch[], act: (live: LiveBranch) => Promise<void>): Promise<void> {
    for (const live of all) {
      const { branchId } = live.branch;
      if (this.#live.isBusy(branchId)) continue;
      try {
        await act(live);
      } catch (error) {
        if (!isFailure(error)) throw error;
        this.#tools.log.warn('test.not-held', { branchId, reason: messageOf(error) });
      }
    }
  }

  /** Machines that were stopped because their layers could not grow go on when there is room. Returns the branches that do not. */
  async #continueStopped(hasRoom: boolean): Promise<string[]> {
    const stopped: string[] = [];
    await this.#each(this.#live.all, async ({ branch: { branchId }, machine }) => {
      if ((await machine.standstill())?.why !== 'no-space') return;
      if (!hasRoom) return void stopped.push(branchId);
      this.#tools.log.info('branch.continued', { branchId });
      await this.#live.exclusively(branchId, () => machine.resume());
    });
    return stopped;
  }

  async #bring({ branch, machine }: LiveBranch, wanted: 'paused' | 'running'): Promise<void> {
    const { branchId } = branch;
    const state = await machine.state();
    if (state !== wanted && (state === 'paused' || state === 'running')) {
      this.#tools.log.info('test.held', { branchId, wanted });
      await this.#live.exclusively(branchId, () =>
        wanted === 'paused' ? machine.pause() : machine.resume(),
      );
    }
    if (wanted === 'paused') this.#paused.add(branchId);
    else this.#paused.delete(branchId);
  }

  async #checkSpace(): Promise<void> {
    const { freeFloorBytes } = this.#tools.testRules();
    const freeBytes = await this.#tools.freeBytes();
    if (freeBytes >= freeFloorBytes) return;
    throw spaceLow(`${inMiB(freeBytes)} are free, and tests must leave ${inMiB(freeFloorBytes)}`);
  }

  get #tests(): LiveBranch[] {
    return this.#live.all.filter(({ branch }) => branch.purpose !== 'failover');
  }
}

function spaceLow(said: string) {
  return failoverFailure('FAILOVER_SPACE_LOW', said);
}

function inMiB(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)} MiB`;
}
