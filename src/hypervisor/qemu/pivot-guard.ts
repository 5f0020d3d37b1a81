import type { Clock } from '../../lib/clock.ts';
import { GuardChild } from '../../qmp/index.ts';
import type { Pivot, PivotOptions } from '../hypervisor.ts';
import { PIVOT_GUARD_PROGRAM } from './pivot-guard-main.ts';

/** What a pivot guard must know. */
export interface PivotOrders {
  readonly qmpPath: string;
  readonly pivots: readonly Pivot[];
  readonly options: PivotOptions;
}

/**
 * Sees to it that a guest which stands still for a pivot runs on, and not before it is durable on which files: a process of its
 * own, which settles the pivots when this process is killed. It needs the monitor to itself for that; while this process
 * lives and holds it, the guest stands still, however long that is.
 */
export class PivotGuard {
  readonly #child: GuardChild;

  private constructor(child: GuardChild) {
    this.#child = child;
  }

  /** Throws QMP_PAUSE_GUARD_LOST; nothing watches then. */
  static async start({ orders, clock }: { orders: PivotOrders; clock: Clock }): Promise<PivotGuard> {
    return new PivotGuard(
      await GuardChild.start({
        ...{ program: PIVOT_GUARD_PROGRAM, arguments: [JSON.stringify(orders)], sockets: [], clock },
      }),
    );
  }

  /** The pivots are settled. Resolves when the guard has ended. */
  async release(): Promise<void> {
    this.#child.send({ order: 'release' });
    await this.#child.end();
  }

  /** They are not: the guard tries for up to a minute, as soon as the monitor is free. */
  takeOver(): void {
    this.#child.letGo();
  }
}
