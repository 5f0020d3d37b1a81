import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { assert } from '../lib/assert.ts';
import type { Clock } from '../lib/clock.ts';
import { type CodeEntry, Failure, type FailureRecord } from '../lib/errors.ts';
import { exitOf, spawnFailure } from '../lib/processes.ts';
import { systemRandom } from '../lib/random.ts';
import { qmpFailure } from './errors.ts';
import { GUARD_PROGRAM } from './freeze-guard-main.ts';
import {
  decodeNews,
  encodeLine,
  type GuardNews,
  type GuardOrder,
  type ThawCause,
} from './freeze-messages.ts';
import { LineReader } from './line-reader.ts';
import { thawGuest } from './thaw.ts';
import { type Waiting, waitingFor } from './waiting.ts';

const LIMIT_MS = 5000;
/** Windows ends a freeze after ten seconds by itself. */
const FREEZE_LIMIT_MS_MAX = 10_000;
/** A process to start, on a host that may be busy, and the agent's first answer (1 to 10 s). */
const START_TIMEOUT_MS = 20_000;
/** What the guard may need beyond the limit to tell that a freeze failed. */
const NEWS_SLACK_MS = 5000;
/** How long a thaw is awaited before the caller is told that the guest may still be frozen. */
const THAW_WAIT_MS = 30_000;
const EXIT_TIMEOUT_MS = 5000;
const ERROR_TEXT_MAX = 4096;

export interface FreezeGuardOptions {
  /** Path of the guest agent's socket; no other client may hold it. */
  readonly agentPath: string;
  /** Longest time in which the guest may be frozen, counted from the freeze; at most 10000, 5000 if left out. */
  readonly limitMs?: number;
  readonly clock: Clock;
}

export interface ThawResult {
  /** From the sending of the freeze to the confirmed thaw. */
  readonly frozenMs: number;
  /** The guest was frozen from the end of `freeze` to the call of `thaw`: only then is a cut consistent. */
  readonly inTime: boolean;
  /** Why it was thawed: `asked` when in time. */
  readonly cause: ThawCause;
}

/**
 * One freeze of one guest, held by a process of its own that thaws also when ours is killed, is stopped, or
 * forgets. For each freeze a new guard: `start`, `freeze`, the cut, `thaw`, `close`.
 *
 * The guard thaws when asked, when the limit passes, when its parent's pipe closes, and on SIGTERM, SIGINT and
 * SIGHUP; it then asks again until the guest says that it is thawed, for up to 10 minutes, even if
 * everybody else is gone. If the guard itself is killed, this process thaws in its stead.
 */
export class FreezeGuard implements AsyncDisposable {
  readonly #options: Required<FreezeGuardOptions>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ready: Waiting<void>;
  #frozen: Waiting<number> | undefined;
  /** Settled by the guard's news or, if it is lost, by the thaw done here. */
  readonly #thawed = Promise.withResolvers<ThawResult>();
  #freezeStartMs: number | undefined;
  #freezeSucceeded = false;
  #settled = false;
  #errorText = '';

  private constructor(options: Required<FreezeGuardOptions>, child: ChildProcessWithoutNullStreams) {
    this.#options = options;
    this.#child = child;
    this.#ready = waitingFor<void>({
      clock: options.clock,
      timeoutMs: START_TIMEOUT_MS,
      onTimeout: () => this.#lost(`it was not ready in ${START_TIMEOUT_MS} ms`),
    });
    this.#thawed.promise.catch(() => {
      // Whoever calls `thaw` or `close` gets it; until then it does not count as unhandled.
    });
  }

  /**
   * Starts the guard and lets it synchronise with the guest's agent; nothing is frozen yet.
   * QMP_FREEZE_LIMIT_INVALID; QMP_AGENT_UNREACHABLE, QMP_AGENT_NO_ANSWER: the guest cannot be frozen.
   */
  static async start(o: FreezeGuardOptions): Promise<FreezeGuard> {
    const limitMs = o.limitMs ?? LIMIT_MS;
    if (!(limitMs >= 1 && limitMs <= FREEZE_LIMIT_MS_MAX)) {
      throw qmpFailure('QMP_FREEZE_LIMIT_INVALID', `a freeze limit of ${limitMs} ms is not allowed`, {
        context: { limitMs, limitMsMax: FREEZE_LIMIT_MS_MAX },
      });
    }
    const child = spawn(process.execPath, [GUARD_PROGRAM, o.agentPath, String(limitMs)], {
      // Out of our process group, so that what ends the group does not end the guard before it has thawed.
      detached: true,
      // It needs nothing of our environment, which may hold secrets.
      env: {},
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const guard = new FreezeGuard({ ...o, limitMs }, child);
    guard.#attach();
    try {
      await guard.#ready.promise;
      return guard;
    } catch (error) {
      // Nothing is frozen yet, so it needs no care.
      child.kill('SIGKILL');
      if (child.pid !== undefined && !hasEnded(child)) await exitOf(child);
      throw error;
    }
  }

  /**
   * Freezes the guest's file systems; resolves with their number once all are frozen.
   *
   * QMP_FREEZE_FAILED, QMP_FREEZE_TIMEOUT, QMP_FREEZE_GUARD_LOST: the guest is not usefully frozen, and what
   * may have been frozen is being thawed; `close` waits for that.
   */
  async freeze(): Promise<{ fileSystems: number }> {
    assert(this.#freezeStartMs === undefined, 'a freeze guard freezes once');
    const { clock, limitMs } = this.#options;
    this.#freezeStartMs = clock.monotonicMs();
    const waiting = waitingFor<number>({
      clock,
      timeoutMs: limitMs + NEWS_SLACK_MS,
      onTimeout: () => this.#lost('it gave no news of the freeze'),
      onEnd: (how) => {
        // A guard that does not even report a timeout hangs itself: it must let go of the agent's socket.
        if (how === 'timeout') this.#child.kill('SIGKILL');
      },
    });
    this.#frozen = waiting;
    // A guard that had ended before could not tell any more.
    if (hasEnded(this.#child)) this.#onExit();
    else this.#send({ order: 'freeze' });
    const fileSystems = await waiting.promise;
    this.#freezeSucceeded = true;
    return { fileSystems };
  }

  /**
   * Thaws; to be called after a successful `freeze`. Resolves when the guest has confirmed. Calling it again
   * gives the same result.
   *
   * QMP_FREEZE_THAW_UNCONFIRMED: the guest may still be frozen after 30 s; the guard keeps trying.
   */
  async thaw(): Promise<ThawResult> {
    assert(this.#freezeSucceeded, 'thaw belongs to a freeze that succeeded');
    this.#send({ order: 'thaw' });
    return this.#confirmedThaw();
  }

  /**
   * Ends the guard; idempotent. If a freeze was begun and not yet thawed, it is thawed first, and what `thaw`
   * throws is thrown here too: a guest that may be frozen is never left in silence.
   */
  async close(): Promise<void> {
    try {
      this.#child.stdin.end();
      if (this.#freezeStartMs !== undefined) await this.#confirmedThaw();
      await this.#exited();
    } finally {
      // A guard that still tries to thaw goes on without us, and does not hold up the end of this process.
      this.#child.stdout.destroy();
      this.#child.stderr.destroy();
      this.#child.unref();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #confirmedThaw(): Promise<ThawResult> {
    const { agentPath } = this.#options;
    const waiting = waitingFor<ThawResult>({
      clock: this.#options.clock,
      timeoutMs: THAW_WAIT_MS,
      onTimeout: () =>
        qmpFailure(
          'QMP_FREEZE_THAW_UNCONFIRMED',
          `the guest behind ${agentPath} has not confirmed its thaw in ${THAW_WAIT_MS} ms`,
          { context: { agentPath } },
        ),
    });
    this.#thawed.promise.then(waiting.resolve, waiting.reject);
    return waiting.promise;
  }

  /** Its work is done, so it ends by itself now; if it hangs, it may be ended. */
  async #exited(): Promise<void> {
    if (hasEnded(this.#child)) return;
    const disarm = this.#options.clock.after(EXIT_TIMEOUT_MS, () => this.#child.kill('SIGKILL'));
    await exitOf(this.#child);
    disarm();
  }

  #attach(): void {
    const child = this.#child;
    const reader = new LineReader(
      { lineBytesMax: 64 * 1024 },
      {
        onLine: (line) => this.#onNews(decodeNews(line)),
        onTooLong: () => this.#onNews(undefined),
      },
    );
    child.stdout.on('data', (chunk: Buffer) => reader.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => {
      this.#errorText = (this.#errorText + chunk.toString('utf8')).slice(-ERROR_TEXT_MAX);
    });
    child.stdin.on('error', () => {
      // The guard has ended; its exit, or the news it gave before, tells more than EPIPE does.
    });
    child.once('error', (error) => this.#ready.reject(spawnFailure(process.execPath, error)));
    // `close` and not `exit`: by then the last news has been read.
    child.once('close', () => this.#onExit());
  }

  #send(order: GuardOrder): void {
    if (!this.#child.stdin.writableEnded) this.#child.stdin.write(encodeLine(order));
  }

  #onNews(news: GuardNews | undefined): void {
    switch (news?.news) {
      case 'ready':
        this.#ready.resolve();
        break;
      case 'unready':
        this.#ready.reject(failureOf(news.failure));
        break;
      case 'frozen':
        this.#frozen?.resolve(news.fileSystems);
        break;
      case 'unfrozen':
        this.#frozen?.reject(failureOf(news.failure));
        break;
      case 'thawed': {
        const { frozenMs, cause } = news;
        this.#settled = true;
        this.#thawed.resolve({ frozenMs, cause, inTime: cause === 'asked' });
        break;
      }
      case 'stuck':
        this.#settled = true;
        this.#thawed.reject(failureOf(news.failure));
        break;
      default:
        // It does not speak our language any more: end it, and do its work here.
        this.#child.kill('SIGKILL');
    }
  }

  /** The guard is gone. If it has left a freeze behind, this process thaws. */
  #onExit(): void {
    const lost = this.#lost('it ended before its work was done');
    this.#ready.reject(lost);
    if (this.#freezeStartMs === undefined || this.#settled) return;
    this.#settled = true;
    this.#frozen?.reject(lost);
    const { agentPath, clock } = this.#options;
    const startMs = this.#freezeStartMs;
    thawGuest({
      agentPath,
      agent: undefined,
      clock,
      random: systemRandom,
      frozeBefore: this.#freezeSucceeded,
    }).then(
      () => {
        const frozenMs = Math.round(clock.monotonicMs() - startMs);
        this.#thawed.resolve({ frozenMs, cause: 'guard-gone', inTime: false });
      },
      (error: Error) => this.#thawed.reject(error),
    );
  }

  #lost(why: string): Failure {
    const said = this.#errorText.trim();
    return qmpFailure('QMP_FREEZE_GUARD_LOST', `the freeze guard is lost: ${why}${said ? `: ${said}` : ''}`, {
      context: { agentPath: this.#options.agentPath, pid: this.#child.pid },
    });
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** The failure that the guard met, as if it had been met here. */
function failureOf(record: FailureRecord): Failure {
  const entry: CodeEntry = { kind: record.kind, retry: record.retry, remedy: record.hint };
  return new Failure(record.code, entry, record.message, { context: record.context });
}
