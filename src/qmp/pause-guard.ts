import type { Clock } from '../lib/clock.ts';
import { GuardChild } from './guard-child.ts';
import { PAUSE_GUARD_PROGRAM } from './pause-guard-main.ts';
import type { PauseOrder } from './pause-guard-process.ts';
import type { QmpClient } from './qmp-client.ts';

/**
 * Sees to it that machines which are stopped run on: a process of its own, which continues them when the limit passes, when
 * this process is killed or stopped, and on SIGTERM, SIGINT and SIGHUP. For each pause a new guard: `start`, `arm`, the
 * pause, `release` or `continueAll`.
 *
 * It shares the connections of the clients it is started with, because QEMU serves one client a socket: so it is heard at
 * once, also while this process is stopped and holds them.
 */
export class PauseGuard {
  readonly #child: GuardChild;

  private constructor(child: GuardChild) {
    this.#child = child;
  }

  /** Throws QMP_PAUSE_GUARD_LOST; nothing watches then. */
  static async start(o: {
    clients: readonly QmpClient[];
    limitMs: number;
    clock: Clock;
  }): Promise<PauseGuard> {
    return new PauseGuard(
      await GuardChild.start({
        program: PAUSE_GUARD_PROGRAM,
        arguments: [String(o.limitMs), ...o.clients.map(({ path }) => path)],
        sockets: o.clients.map((client) => client.shared),
        clock: o.clock,
      }),
    );
  }

  /** From now on it continues the machines; to be called just before the first one is stopped. */
  arm(): void {
    this.#send({ order: 'arm' });
  }

  /** All machines have been continued. Resolves when the guard has ended and its part of the connections is closed. */
  async release(): Promise<void> {
    this.#send({ order: 'release' });
    await this.#child.end();
  }

  /** Some machine did not confirm that it runs: the guard goes on to try, with or without us, for up to a minute. */
  continueAll(): void {
    this.#send({ order: 'continue' });
    this.#child.letGo();
  }

  /** Whether it watches: one that has been ended from outside does not. */
  get isAlive(): boolean {
    return this.#child.isAlive;
  }

  #send(order: PauseOrder): void {
    this.#child.send(order);
  }
}
