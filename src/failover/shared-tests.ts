import { join } from 'node:path';
import type { NicConfiguration } from '../hypervisor/index.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { Mutex } from '../lib/mutex.ts';
import { isId } from '../lib/random.ts';
import type { Trunk } from '../replica/index.ts';
import { endAndRemove } from './branch-recovery.ts';
import { failoverFailure } from './errors.ts';
import type { LiveBranches } from './live-branches.ts';
import { type BranchNetwork, sharedNetworks } from './network.ts';
import type { FailoverTools } from './tools.ts';

/** A network without a way out in which the machines of several tests see each other. */
export interface SharedTest {
  /** Plugs a branch in; without the right to make namespaces its cables stay unplugged, as in a test by itself. */
  plug(branchId: string, nics: readonly NicConfiguration[]): Promise<BranchNetwork>;
  /** The machine of a branch that has come up stays until the test has ended; false: it has ended, and nobody sees to the branch. */
  keep(replica: Trunk, branchId: string): boolean;
}

interface Open extends SharedTest {
  readonly members: Map<string, Trunk>;
}

const MARK = 'shared-';

/**
 * Tests of several machines in one isolated network. It has a mark below the run directory from before it is made until it has gone, so
 * that whatever ends this process, the next one finds it; its branches are tests that nobody asked to keep, which go by themselves then.
 */
export class SharedTests {
  readonly #tools: FailoverTools;
  readonly #live: LiveBranches;
  readonly #open = new Map<string, Open>();

  constructor(tools: FailoverTools, live: LiveBranches) {
    this.#tools = tools;
    this.#live = live;
  }

  /** Makes the network of a test; of what an earlier process has left of it nothing stays. */
  async open(testId: string): Promise<void> {
    await this.#remove(testId);
    await this.#tools.files.makeDirectory(this.#markOf(testId));
    let hindrance: string | undefined;
    try {
      await sharedNetworks.make(testId);
    } catch (error) {
      if (!isFailure(error, 'PROCESS_FAILED', 'TOOL_MISSING')) throw error;
      hindrance = `no isolated network could be made: ${messageOf(error)}`;
    }
    const members = new Map<string, Trunk>();
    const plugging = new Mutex();
    const bridges = new Map<string, string>();
    this.#open.set(testId, {
      members,
      plug: (branchId, nics) =>
        plugging.run(() => sharedNetworks.plug({ testId, branchId, nics, bridges, hindrance })),
      keep: (replica, branchId) => {
        if (!this.#open.has(testId)) return false;
        members.set(branchId, replica);
        return true;
      },
    });
  }

  /** Throws FAILOVER_TEST_OVER. */
  need(testId: string): SharedTest {
    const open = this.#open.get(testId);
    if (open) return open;
    const said = `the test ${testId} that this machine was to be part of has ended`;
    throw failoverFailure('FAILOVER_TEST_OVER', said, { context: { testId } });
  }

  /** Ends all machines of a test and removes everything of it; may be repeated. What cannot be removed is logged, and goes with the next start. */
  async close(testId: string): Promise<void> {
    const open = this.#open.get(testId);
    this.#open.delete(testId);
    for (const [branchId, replica] of open?.members ?? []) {
      try {
        await this.#live.whenIdle(branchId);
        await this.#live.exclusively(branchId, () =>
          endAndRemove({ tools: this.#tools, live: this.#live }, replica, branchId),
        );
      } catch (error) {
        if (!isFailure(error)) throw error;
        this.#tools.log.error('test.not-cleaned-up', { branchId, reason: error.message });
      }
    }
    await this.#remove(testId);
  }

  /** Removes the networks that an earlier process has left; its branches have gone before. May be called again while tests are open. */
  async recover(): Promise<void> {
    for (const name of (await this.#tools.files.list(this.#tools.runDirectory)) ?? []) {
      const testId = name.slice(MARK.length);
      if (!name.startsWith(MARK) || !isId(testId) || this.#open.has(testId)) continue;
      this.#tools.log.info('test.network-removed', { testId });
      await this.#remove(testId);
    }
  }

  async #remove(testId: string): Promise<void> {
    await sharedNetworks.remove(testId);
    await this.#tools.files.removeDirectory(this.#markOf(testId));
  }

  #markOf(testId: string): string {
    return join(this.#tools.runDirectory, `${MARK}${testId}`);
  }
}
