import { throwIfAborted } from '../lib/clock.ts';
import type { Replica, Trunk } from '../replica/index.ts';
import { checkNotAdopted, lackOfRight, runsAlready } from './right.ts';
import type { FailoverTools } from './tools.ts';

type Here = Pick<FailoverTools, 'siteId'>;

/** Of each machine one act at a time that starts what failovers bring up of it, or must not be met by such a start. */
export class Starts {
  readonly #here: Here;
  readonly #underWay = new Map<string, Start>();
  /** Acts beside those, which start nothing. */
  readonly #asking = new Set<Start>();

  constructor(here: Here) {
    this.#here = here;
  }

  /** Throws FAILOVER_RUNS_ALREADY, FAILOVER_ADOPTED. */
  async alone<T>(replica: Replica, work: (start: Start) => Promise<T>): Promise<T> {
    const { machineId } = replica.record;
    checkNotAdopted(replica);
    if (this.#underWay.has(machineId)) throw runsAlready(replica);
    const start = new Start(this.#here, replica);
    this.#underWay.set(machineId, start);
    try {
      return await work(start);
    } finally {
      this.#underWay.delete(machineId);
    }
  }

  /** Asks a machine that runs here, beside whatever else is done with it. Throws FAILOVER_FENCED, FAILOVER_GIVEN_UP. */
  async asking<T>(replica: Replica, work: (start: Start) => Promise<T>): Promise<T> {
    const start = new Start(this.#here, replica);
    start.check();
    this.#asking.add(start);
    try {
      const answer = await work(start);
      start.check();
      return answer;
    } finally {
      this.#asking.delete(start);
    }
  }

  /**
   * To be called when something may have been heard of who may run a machine: what is done against that ends at once. Whether there was
   * something, which may be about to end still.
   */
  look({ record: { machineId } }: Pick<Trunk, 'record'>): boolean {
    const asking = [...this.#asking].filter((start) => start.machineId === machineId);
    const underWay = this.#underWay.get(machineId);
    const ended = [...asking, ...(underWay ? [underWay] : [])].filter((start) => start.look());
    return ended.length > 0;
  }
}

/**
 * An act that starts a machine here, or asks one whose start nobody saw. It lasts as long as a guest takes to come up; another site may take
 * the machine meanwhile.
 */
export class Start {
  readonly #here: Here;
  readonly #replica: Replica;
  readonly #over = new AbortController();
  #isHeld = false;

  constructor(here: Here, replica: Replica) {
    this.#here = here;
    this.#replica = replica;
  }

  /**
   * To be called when the right is had, right before each guest runs, and when it has come up: from the first time on a higher claim ends
   * what is under way. Throws FAILOVER_FENCED, FAILOVER_GIVEN_UP.
   */
  check(): void {
    this.#isHeld = true;
    this.look();
    throwIfAborted(this.#over.signal);
  }

  get machineId(): string {
    return this.#replica.record.machineId;
  }

  /** Whether it is over. */
  look(): boolean {
    // Before, others held the machine, and that is about to change.
    if (!this.#isHeld) return false;
    const lack = lackOfRight(this.#here, this.#replica);
    if (lack) this.#over.abort(lack);
    return this.#over.signal.aborted;
  }

  /** With what a boot that is part of this gives up: because of a higher claim, or because of `signal`. */
  heeded(signal?: AbortSignal): { readonly signal: AbortSignal; readonly checkHeld: () => void } {
    const { signal: over } = this.#over;
    return { signal: signal ? AbortSignal.any([signal, over]) : over, checkHeld: () => this.check() };
  }
}
