import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Clock } from '../../lib/clock.ts';
import { type Failure, isFailure, systemCodeOf } from '../../lib/errors.ts';
import { QmpClient } from '../../qmp/index.ts';
import type { GuardedGuest } from '../lease-guard.ts';

/** What is asked of a guard, and what it answers: one JSON object a line. */
export type LeaseOrder = { readonly untilMs: number } | { readonly dismiss: true };
export interface LeaseReport {
  readonly guest: GuardedGuest;
}

export interface LeaseGuardOptions {
  /** The monitor that is this guard's alone. */
  readonly monitorPath: string;
  /** Where it takes orders. */
  readonly socketPath: string;
  /** There while the guest is stopped for want of a lease. */
  readonly markPath: string;
  /** Counts also while the host sleeps. */
  readonly clock: Clock;
  /** Ends the machine as by pulling its plug, where it does not heed its monitor. */
  readonly cutPower: () => Promise<void>;
  /** So long a guard that was just started waits for the first lease. */
  readonly patienceMs: number;
}

/** A guest that has not confirmed by then that it stands still loses its power. */
const STOP_LIMIT_MS = 1_000;
/** A timer knows nothing of a host that slept: the clock is looked at this often. */
const LOOK_EVERY_MS = 500;

/**
 * The life of a lease guard: it stops the guest when the lease is over, stops it again if somebody continues it, and continues it with
 * the next lease. It ends with the machine, or when it is dismissed; it outlives whoever started it.
 */
export class LeaseGuardProcess {
  readonly #o: LeaseGuardOptions;
  readonly #qmp: QmpClient;
  readonly #ended = Promise.withResolvers<void>();
  #untilMs: number;
  /** As far as is known: whether its processors run, or will without anybody's asking. */
  #isRunning = true;
  /** It stands still by this guard, also where that could not be marked. */
  #hasStopped = false;
  #work: Promise<unknown> = Promise.resolve();
  #lookNoMore: () => void = () => undefined;

  private constructor(o: LeaseGuardOptions, qmp: QmpClient) {
    this.#o = o;
    this.#qmp = qmp;
    this.#untilMs = o.clock.monotonicMs() + o.patienceMs;
  }

  /** Resolves with the guard's end. `onReady`: it takes orders. */
  static async run(o: LeaseGuardOptions, onReady: () => void): Promise<void> {
    const qmp = await QmpClient.connect({ path: o.monitorPath, clock: o.clock });
    const guard = new LeaseGuardProcess(o, qmp);
    qmp.subscribe(({ event }) => {
      if (event === 'STOP') guard.#isRunning = false;
      // A guest that has suspended itself wakes up without being resumed.
      if (event !== 'RESUME' && event !== 'WAKEUP') return;
      guard.#isRunning = true;
      guard.#look();
    });
    void qmp.closed.then(() => guard.#ended.resolve());
    // What an earlier guard has left at this path is nobody's: two cannot hold one monitor.
    rmSync(o.socketPath, { force: true });
    const server = createServer((socket) => guard.#serve(socket));
    server.listen(o.socketPath, onReady);
    if (guard.#isOver) guard.#look();
    guard.#keepLooking();
    await guard.#ended.promise;
    guard.#lookNoMore();
    server.close();
    rmSync(o.socketPath, { force: true });
    await qmp.close();
  }

  #keepLooking(): void {
    const leftMs = this.#untilMs - this.#o.clock.monotonicMs();
    const inMs = leftMs > 0 ? Math.min(leftMs, LOOK_EVERY_MS) : LOOK_EVERY_MS;
    this.#lookNoMore = this.#o.clock.after(inMs, () => {
      const isDue = this.#isOver && this.#isRunning;
      this.#keepLooking();
      if (isDue) this.#look();
    });
  }

  get #isOver(): boolean {
    return this.#o.clock.monotonicMs() >= this.#untilMs;
  }

  /** One act after the other, each for what is true when it begins. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#work.then(work, work);
    // Whoever asked for it hears of its failure; what comes next does not depend on it.
    this.#work = done.then(
      () => undefined,
      () => undefined,
    );
    return done;
  }

  /** Never fails: a guest that cannot be stopped loses its power. */
  #look(): void {
    this.#alone(() => this.#settle()).then(
      () => undefined,
      () => undefined,
    );
  }

  async #settle(): Promise<GuardedGuest> {
    if (this.#isOver) {
      await this.#stop();
      return 'stopped';
    }
    if (!this.#hasStopped && !existsSync(this.#o.markPath)) return 'runs';
    return (await this.#continue()) ? 'runs' : 'stopped';
  }

  async #stop(): Promise<void> {
    this.#mark();
    try {
      await this.#qmp.execute('stop', undefined, { timeoutMs: STOP_LIMIT_MS });
      const { status } = await this.#qmp.execute<{ status: string }>('query-status', undefined, {
        timeoutMs: STOP_LIMIT_MS,
      });
      // Before QEMU 9.0 `stop` changes nothing of a guest that has suspended itself: whatever wakes it sets it running.
      this.#isRunning = status === 'running' || status === 'suspended';
      this.#hasStopped = true;
    } catch (error) {
      if (!isFailure(error)) throw error;
      await this.#stopHard(error);
    }
  }

  async #stopHard({ code }: Failure): Promise<void> {
    if (code === 'QMP_DISCONNECTED') return;
    // The answer comes when everything has been written; its processors have stood still since the event.
    if (code === 'QMP_TIMEOUT' && !this.#isRunning) this.#hasStopped = true;
    else await this.#o.cutPower();
  }

  /** Before it stands still: whoever comes after knows why it does. */
  #mark(): void {
    const { markPath } = this.#o;
    try {
      if (!existsSync(markPath)) writeFileSync(markPath, '');
    } catch {
      // A host that cannot write this has a guest that a person must continue: better than one that runs on.
    }
  }

  /** Whether it runs: one that has crashed, say, does not. */
  async #continue(): Promise<boolean> {
    // Behind a `stop` that is still writing it would wait, and set the guest running when nobody looks for that any more.
    await this.#qmp.execute('query-status', undefined, { timeoutMs: STOP_LIMIT_MS });
    try {
      await this.#qmp.execute('cont', undefined, { timeoutMs: STOP_LIMIT_MS });
    } catch (error) {
      if (isFailure(error, 'QMP_COMMAND_FAILED')) return false;
      // It may still be carried out: the end of the lease stops the guest, or finds that it stands still.
      this.#isRunning = true;
      throw error;
    }
    rmSync(this.#o.markPath, { force: true });
    this.#hasStopped = false;
    return true;
  }

  async #obey(order: LeaseOrder): Promise<LeaseReport> {
    return this.#alone(async () => {
      this.#untilMs = 'dismiss' in order ? Number.POSITIVE_INFINITY : order.untilMs;
      const guest = await this.#settle();
      if ('dismiss' in order) this.#ended.resolve();
      return { guest };
    });
  }

  #serve(socket: Socket): void {
    // Whoever asked has gone: its order stands.
    socket.on('error', () => undefined);
    const lines = createInterface({ input: socket });
    // It tells again what the socket tells: unheard, that would be the end of this process.
    lines.on('error', () => undefined);
    lines.on('line', (line) => {
      void this.#answered(line).then((answer) => socket.write(`${answer}\n`));
    });
  }

  async #answered(line: string): Promise<string> {
    try {
      return JSON.stringify(await this.#obey(JSON.parse(line) as LeaseOrder));
    } catch (error) {
      return JSON.stringify({
        failure: isFailure(error) ? error.message : String(systemCodeOf(error) ?? error),
      });
    }
  }
}
