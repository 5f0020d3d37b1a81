import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { type Clock, withTimeout } from '../../lib/clock.ts';
import { type Failure, isFailure, messageOf, systemCodeOf } from '../../lib/errors.ts';
import { Mutex } from '../../lib/mutex.ts';
import { exitOf } from '../../lib/processes.ts';
import { hypervisorFailure } from '../errors.ts';
import type { GuardedGuest, LeaseGuard, LeaseGuards } from '../lease-guard.ts';
import { runPaths } from './command-line.ts';
import { LEASE_GUARD_PROGRAM } from './lease-guard-main.ts';
import type { LeaseOrder, LeaseReport } from './lease-guard-process.ts';

const START_TIMEOUT_MS = 20_000;
const ANSWER_TIMEOUT_MS = 5_000;
/** A site process to start on a host that may be busy, and to ask the other sites. */
const PATIENCE_MS = 5_000;

/** Guards of machines that QEMU runs, each a process of its own at a monitor of its own. */
export class QemuLeaseGuards implements LeaseGuards {
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async expect(runDirectory: string): Promise<void> {
    await mkdir(runDirectory, { recursive: true });
    await writeFile(runPaths(runDirectory).leaseMarkPath, '');
  }

  async of(runDirectory: string, { goesOn = false } = {}): Promise<LeaseGuard> {
    const there = await this.#existing(runDirectory);
    if (there) return there;
    await this.#start(runDirectory, goesOn ? 0 : PATIENCE_MS);
    const started = await this.#existing(runDirectory);
    if (started) return started;
    throw unguarded('it ended after its start');
  }

  async release(runDirectory: string): Promise<void> {
    const there = await this.#existing(runDirectory);
    try {
      if (there) return await there.dismiss();
    } catch (error) {
      // It has ended meanwhile: that is looked at below.
      if (!isFailure(error, 'MACHINE_LEASE_UNGUARDED')) throw error;
    }
    // Without one there may still be what an earlier one has left: a guest that stands still.
    if (existsSync(runPaths(runDirectory).leaseMarkPath)) await (await this.of(runDirectory)).dismiss();
  }

  async #existing(runDirectory: string): Promise<LeaseGuard | undefined> {
    try {
      return new GuardConnection(await connected(runPaths(runDirectory).leasePath), this.#clock);
    } catch (error) {
      // None was started, or it was killed, or its machine has ended.
      if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR'].includes(systemCodeOf(error) ?? '')) return undefined;
      throw unguarded(messageOf(error));
    }
  }

  async #start(runDirectory: string, patienceMs: number): Promise<void> {
    const child = spawn(process.execPath, [LEASE_GUARD_PROGRAM, runDirectory, String(patienceMs)], {
      // It outlives us and what ends us.
      detached: true,
      // It needs nothing of our environment, which may hold secrets.
      env: {},
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    try {
      await withTimeout(
        this.#clock,
        START_TIMEOUT_MS,
        () =>
          new Promise<void>((resolve, reject) => {
            child.once('error', reject);
            child.stdout.once('data', () => resolve());
            void exitOf(child).then(() => reject(new Error('it ended at its start')));
          }),
        () => new Error('it was not ready in time'),
      );
    } catch (error) {
      child.kill('SIGKILL');
      throw unguarded(messageOf(error));
    }
    child.stdout.destroy();
    child.unref();
  }
}

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}

class GuardConnection implements LeaseGuard {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #asking = new Mutex();
  readonly #answers: AsyncIterator<string>;
  readonly gone: Promise<void>;

  constructor(socket: Socket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
    // What is wrong with it ends it, and that is told.
    socket.on('error', () => undefined);
    this.gone = new Promise((resolve) => socket.once('close', () => resolve()));
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  async lend(untilMs: number): Promise<GuardedGuest> {
    return (await this.#ask({ untilMs })).guest;
  }

  async dismiss(): Promise<void> {
    await this.#ask({ dismiss: true });
    this.disconnect();
  }

  disconnect(): void {
    this.#socket.destroy();
  }

  async #answerTo(order: LeaseOrder): Promise<LeaseReport> {
    let answer: LeaseReport | { readonly failure: string };
    try {
      this.#socket.write(`${JSON.stringify(order)}\n`);
      const { value, done } = await this.#answers.next();
      answer = done ? { failure: 'it has ended' } : JSON.parse(value);
    } catch (error) {
      // A connection that broke, or what is no answer: to whoever asks it is all the same.
      answer = { failure: messageOf(error) };
    }
    if ('failure' in answer) throw unguarded(answer.failure);
    return answer;
  }

  #ask(order: LeaseOrder): Promise<LeaseReport> {
    return this.#asking.run(() =>
      withTimeout(
        this.#clock,
        ANSWER_TIMEOUT_MS,
        () => this.#answerTo(order),
        () => unguarded('it does not answer'),
      ),
    );
  }
}

function unguarded(reason: string): Failure {
  return hypervisorFailure(
    'MACHINE_LEASE_UNGUARDED',
    `the guard of the machine’s lease is not there: ${reason}`,
  );
}
