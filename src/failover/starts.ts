import { throwIfAborted } from '../lib/clock.ts';
import type { Replica, Trunk } from '../replica/index.ts';
import { checkNotAdopted, lackOfRight, runsAlready } from './right.ts';
import type { FailoverTools } from './tools.ts';

type Here = Pick<FailoverTools, 'siteId'>;

/** Of each machine one act at a time that starts what failovers bring up of it, or must not be met by such a start. */
export class Starts {
  readonly #here: Here;
  readonly #underWay = new Map<string, Start>();

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

  /** To be called when something may have been heard of who may run a machine: what is started against that ends at once. */
  look({ record: { machineId } }: Pick<Trunk, 'record'>): void {
    this.#underWay.get(machineId)?.look();
  }
}

/** An act that starts a machine here. It lasts as long as its guest takes to come up; another site may take the machine meanwhile. */
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

  look(): void {
    // Before, others held the machine, and that is about to change.
    if (!this.#isHeld) return;
    const lack = lackOfRight(this.#here, this.#replica);
    if (lack) this.#over.abort(lack);
  }

  /** With what a boot that is part of this gives up: because of a higher claim, or because of `signal`. */
  heeded(signal?: AbortSignal): { readonly signal: AbortSignal; readonly checkHeld: () => void } {
    const { signal: over } = this.#over;
    return { signal: signal ? AbortSignal.any([signal, over]) : over, checkHeld: () => this.check() };
  }
}
