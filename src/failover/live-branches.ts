import type { RunningMachine } from '../hypervisor/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { BranchRecord, Trunk } from '../replica/index.ts';
import { endBranchMachine } from './branch-machine.ts';
import { loadState, storeState } from './branch-state.ts';
import { failoverFailure } from './errors.ts';
import type { FailoverTools } from './tools.ts';

/** A branch whose machine this process is connected to. */
export interface LiveBranch {
  readonly replica: Trunk;
  readonly branch: BranchRecord;
  readonly machine: RunningMachine;
  readonly releaseLayers: () => void;
}

/** The branches that run, and who does something with which of them: one act at a time on each. */
export class LiveBranches {
  readonly #tools: FailoverTools;
  readonly #live = new Map<string, LiveBranch>();
  /** Branches on which an act is under way, with its end. */
  readonly #busy = new Map<string, Promise<void>>();

  constructor(tools: FailoverTools) {
    this.#tools = tools;
  }

  get all(): readonly LiveBranch[] {
    return [...this.#live.values()];
  }

  get(branchId: string): LiveBranch | undefined {
    return this.#live.get(branchId);
  }

  isBusy(branchId: string): boolean {
    return this.#busy.has(branchId);
  }

  /** Resolves when nothing is being done with a branch. */
  async whenIdle(branchId: string): Promise<void> {
    for (let act = this.#busy.get(branchId); act; act = this.#busy.get(branchId)) await act;
  }

  adopt(live: LiveBranch): void {
    this.#live.set(live.branch.branchId, live);
    void live.machine.gone.then(() => this.#onGone(live));
  }

  /** A machine has ended by itself: a guest that shut down, or a QEMU that died. */
  async #onGone(live: LiveBranch): Promise<void> {
    const { replica, branch } = live;
    const { branchId } = branch;
    // An act under way sees to the end by itself, or leaves the machine as one that runs.
    await this.#busy.get(branchId);
    if (this.#live.get(branchId) !== live) return;
    try {
      await this.exclusively(branchId, async () => {
        await this.end(branchId);
        await recordEnd(this.#tools, replica, branchId);
      });
    } catch (error) {
      this.#tools.log.error('branch.end-not-recorded', { branchId, reason: messageOf(error) });
    }
  }

  /** Ends the branch's machine, if there is one, and lets go of the layers that it read. */
  async end(branchId: string): Promise<void> {
    const live = this.#live.get(branchId);
    this.#live.delete(branchId);
    await live?.machine.disconnect();
    await endBranchMachine(this.#tools, branchId);
    live?.releaseLayers();
  }

  /** Lets go of one machine, which runs on; whoever takes it up sees to its layers. */
  async letGo(branchId: string): Promise<void> {
    const live = this.#live.get(branchId);
    this.#live.delete(branchId);
    await live?.machine.disconnect();
    live?.releaseLayers();
  }

  /** Throws FAILOVER_BRANCH_BUSY. */
  async exclusively<T>(branchId: string, work: () => Promise<T>): Promise<T> {
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

  /** Lets go of all machines; they run on. */
  async close(): Promise<void> {
    const all = this.all;
    this.#live.clear();
    for (const { machine, releaseLayers } of all) {
      await machine.disconnect();
      releaseLayers();
    }
  }
}

/** The machine of a branch has ended and its files stay: durable on return. What failed keeps its reason. */
export async function recordEnd(tools: FailoverTools, replica: Trunk, branchId: string): Promise<void> {
  const state = await loadState(tools, replica, branchId);
  if (!state) return;
  const phase = state.phase === 'failed' ? 'failed' : 'stopped';
  await storeState(tools, replica, branchId, { ...state, phase });
}
