import { failoverFailure } from '../../../src/failover/errors.ts';
import type { BranchView, Failovers } from '../../../src/failover/index.ts';
import { newId } from '../../../src/lib/random.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import {
  branchChain,
  createBranch,
  findBranch,
  type Replica,
  tenureOfReplica,
} from '../../../src/replica/index.ts';
import type { SimFiles } from '../sim-files.ts';
import type { SimRandom } from '../sim-random.ts';
import type { SimProcess } from '../turns.ts';
import type { SimHost } from './sim-host.ts';

/** A guest that a failover has brought up. It outlives the process that started it, and nobody guards it: it needs no lease. */
export interface BranchGuest {
  readonly branchId: string;
  /** By which it was started. */
  readonly claim: Claim;
}

/** The machines of branches on one host, beneath those who act on them. */
export class BranchGuests {
  readonly #host: SimHost;
  #running: BranchGuest | undefined;
  #forget: () => void = () => undefined;

  constructor(host: SimHost) {
    this.#host = host;
  }

  get running(): BranchGuest | undefined {
    return this.#running;
  }

  start(guest: BranchGuest): void {
    if (this.#running) throw new Error(`branch ${this.#running.branchId} runs already`);
    this.#running = guest;
    this.#forget = this.#host.carries({ kill: () => this.end() });
  }

  end(): void {
    this.#running = undefined;
    this.#forget();
  }
}

/** What a process of the recovery site does with branches, in the place of `Failovers`: real branches, and guests that only run or do not. */
export class SimBranches {
  readonly #guests: BranchGuests;
  readonly #files: SimFiles;
  readonly #process: SimProcess;
  readonly #random: SimRandom;
  readonly #siteId: string;

  constructor(o: {
    readonly guests: BranchGuests;
    readonly files: SimFiles;
    readonly process: SimProcess;
    readonly random: SimRandom;
    readonly siteId: string;
  }) {
    this.#guests = o.guests;
    this.#files = o.files;
    this.#process = o.process;
    this.#random = o.random;
    this.#siteId = o.siteId;
  }

  get running(): BranchGuest | undefined {
    return this.#guests.running;
  }

  /** What fences need of failovers. */
  get asFailovers(): Pick<Failovers, 'list' | 'stop'> {
    return {
      list: async (replica) => {
        const running = await this.#process.turn('branches', () => this.#guests.running?.branchId);
        return replica.branches.map(
          ({ branchId, purpose }) => ({ branchId, purpose, running: branchId === running }) as BranchView,
        );
      },
      stop: (_replica, branchId) => this.stop(branchId),
    };
  }

  async stop(branchId: string): Promise<'shut-down' | 'not-running'> {
    if (this.#guests.running?.branchId !== branchId) return 'not-running';
    await this.#process.sleep(this.#random.between(1, 3_000));
    await this.#process.turn('branch ends', () => {
      if (this.#guests.running?.branchId === branchId) this.#guests.end();
    });
    return 'shut-down';
  }

  /** A branch upon the newest point, and its guest, which takes a while to come up. */
  async bringUp(replica: Replica): Promise<void> {
    const branchId = newId(this.#process.clock, this.#random);
    await createBranch(this.#files, replica, {
      ...{ branchId, purpose: 'failover', createdAtMs: this.#process.clock.wallMs() },
      pointId: replica.points.at(-1)!.statement.pointId,
    });
    await this.boot(replica, branchId);
  }

  async boot(replica: Replica, branchId: string): Promise<void> {
    await this.#process.sleep(this.#random.between(10, 2_000));
    const missing = await this.#missingOf(replica, branchId);
    if (missing !== undefined) throw failoverFailure('FAILOVER_WOULD_NOT_START', `${missing} is not there`);
    await this.#process.turn('branch starts', () => {
      const { claim } = tenureOfReplica(replica.record, this.#siteId);
      this.#guests.start({ branchId, claim });
    });
  }

  /** The last branch of a failover that has all of its files; the making of one may have been broken off. */
  async lastWhole(replica: Replica): Promise<string | undefined> {
    for (const { branchId, purpose } of replica.branches.toReversed())
      if (purpose === 'failover' && (await this.#missingOf(replica, branchId)) === undefined) return branchId;
    return undefined;
  }

  /** As QEMU opens what it starts from: what of that is not there. */
  async #missingOf(replica: Replica, branchId: string): Promise<string | undefined> {
    const branch = findBranch(replica, branchId);
    for (const diskId of branch.diskIds)
      for (const { path } of branchChain(replica, branch, diskId))
        if ((await this.#files.sizeOf(path)) === undefined) return path;
    return undefined;
  }
}
