import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../lib/clock.ts';
import { exitOf, spawnFailure } from '../lib/processes.ts';
import { qmpFailure } from './errors.ts';
import { type Waiting, waitingFor } from './waiting.ts';

/** A process to start, on a host that may be busy. */
const START_TIMEOUT_MS = 20_000;
const EXIT_TIMEOUT_MS = 5_000;

/**
 * A guard as its parent has it: a process of its own, which says a word when it is ready, takes orders on its standard input, a
 * JSON object a line, and takes the end of that for the end of its parent.
 */
export class GuardChild {
  readonly #child: ChildProcess;
  readonly #orders: Writable;
  readonly #clock: Clock;

  private constructor(child: ChildProcess, orders: Writable, clock: Clock) {
    this.#child = child;
    this.#orders = orders;
    this.#clock = clock;
  }

  /** `sockets` are its file descriptors from 3 on. Throws QMP_PAUSE_GUARD_LOST; nothing watches then. */
  static async start(o: {
    program: string;
    arguments: readonly string[];
    sockets: readonly Socket[];
    clock: Clock;
  }): Promise<GuardChild> {
    const child = spawn(process.execPath, [o.program, ...o.arguments], {
      // Out of our process group, so that what ends the group does not end the guard.
      detached: true,
      // It needs nothing of our environment, which may hold secrets.
      env: {},
      stdio: ['pipe', 'pipe', 'ignore', ...o.sockets],
    });
    // What is handed over to a child is read no more by its parent, unless it is told to.
    for (const socket of o.sockets) socket.resume();
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
      return new GuardChild(child, orders, o.clock);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  send(order: object): void {
    if (!this.#orders.writableEnded) this.#orders.write(`${JSON.stringify(order)}\n`);
  }

  /** Waits for its end, which the last order has asked for. */
  async end(): Promise<void> {
    if (this.isAlive) {
      const disarm = this.#clock.after(EXIT_TIMEOUT_MS, () => this.#child.kill('SIGKILL'));
      await exitOf(this.#child);
      disarm();
    }
    this.letGo();
  }

  /** It goes on by itself; for the guard this is the end of its parent. */
  letGo(): void {
    this.#orders.end();
    this.#child.stdout?.destroy();
    this.#child.unref();
  }

  /** Whether it watches: one that has been ended from outside does not. */
  get isAlive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }
}
