import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../lib/clock.ts';
import { exitOf, spawnFailure } from '../lib/processes.ts';
import { qmpFailure } from './errors.ts';
import { PAUSE_GUARD_PROGRAM } from './pause-guard-main.ts';
import type { PauseOrder } from './pause-guard-process.ts';
import type { QmpClient } from './qmp-client.ts';
import { type Waiting, waitingFor } from './waiting.ts';

/** A process to start, on a host that may be busy. */
const START_TIMEOUT_MS = 20_000;
const EXIT_TIMEOUT_MS = 5_000;

/**
 * Sees to it that machines which are stopped run on: a process of its own, which continues them when the limit passes, when
 * this process is killed or stopped, and on SIGTERM, SIGINT and SIGHUP. For each pause a new guard: `start`, `arm`, the
 * pause, `release` or `continueAll`.
 *
 * It shares the connections of the clients it is started with, because QEMU serves one client a socket: so it is heard at
 * once, also while this process is stopped and holds them.
 */
export class PauseGuard {
  readonly #child: ChildProcess;
  readonly #orders: Writable;
  readonly #clock: Clock;

  private constructor(child: ChildProcess, orders: Writable, clock: Clock) {
    this.#child = child;
    this.#orders = orders;
    this.#clock = clock;
  }

  /** Throws QMP_PAUSE_GUARD_LOST; nothing watches then. */
  static async start(o: {
    clients: readonly QmpClient[];
    limitMs: number;
    clock: Clock;
  }): Promise<PauseGuard> {
    const sockets = o.clients.map((client) => client.shared);
    const paths = o.clients.map(({ path }) => path);
    const child = spawn(process.execPath, [PAUSE_GUARD_PROGRAM, String(o.limitMs), ...paths], {
      // Out of our process group, so that what ends the group does not end the guard.
      detached: true,
      // It needs nothing of our environment, which may hold secrets.
      env: {},
      stdio: ['pipe', 'pipe', 'ignore', ...sockets],
    });
    // What is handed over to a child is read no more by its parent, unless it is told to.
    for (const socket of sockets) socket.resume();
    const [orders, news] = child.stdio as [Writable, Readable, ...unknown[]];
    const ready: Waiting<void> = waitingFor({
      clock: o.clock,
      timeoutMs: START_TIMEOUT_MS,
      onTimeout: () => qmpFailure('QMP_PAUSE_GUARD_LOST', 'the pause guard was not ready in time'),
    });
    // The guard has ended: its exit tells more than EPIPE does.
    orders.on('error', () => undefined);
    news.once('data', () => ready.resolve());
    news.on('error', () => undefined);
    child.once('error', (error) => ready.reject(spawnFailure(process.execPath, error)));
    child.once('exit', () =>
      ready.reject(qmpFailure('QMP_PAUSE_GUARD_LOST', 'the pause guard ended before it was ready')),
    );
    try {
      await ready.promise;
      return new PauseGuard(child, orders, o.clock);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** From now on it continues the machines; to be called just before the first one is stopped. */
  arm(): void {
    this.#send({ order: 'arm' });
  }

  /** All machines have been continued. Resolves when the guard has ended and its part of the connections is closed. */
  async release(): Promise<void> {
    this.#send({ order: 'release' });
    if (!hasEnded(this.#child)) {
      const disarm = this.#clock.after(EXIT_TIMEOUT_MS, () => this.#child.kill('SIGKILL'));
      await exitOf(this.#child);
      disarm();
    }
    this.#letGo();
  }

  /** Some machine did not confirm that it runs: the guard goes on to try, with or without us, for up to a minute. */
  continueAll(): void {
    this.#send({ order: 'continue' });
    this.#letGo();
  }

  /** Whether it watches: one that has been ended from outside does not. */
  get isAlive(): boolean {
    return !hasEnded(this.#child);
  }

  #letGo(): void {
    this.#orders.end();
    this.#child.stdout?.destroy();
    this.#child.unref();
  }

  #send(order: PauseOrder): void {
    if (!this.#orders.writableEnded) this.#orders.write(`${JSON.stringify(order)}\n`);
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
