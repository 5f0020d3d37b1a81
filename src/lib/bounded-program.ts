import { spawn } from 'node:child_process';
import { type Clock, throwIfAborted } from './clock.ts';
import { spawnFailure } from './processes.ts';

/** How a program ended that was given a time to end in. */
export interface BoundedEnd {
  readonly outcome: 'ended' | 'out-of-time';
  /** 128 if a signal ended it. */
  readonly exitCode: number;
  /** The beginning, or the end, of what it printed on either stream, in the order in which it came. */
  readonly output: string;
}

export interface BoundedOptions {
  readonly clock: Clock;
  /** All that it gets; nothing of this process's own. */
  readonly environment: Readonly<Record<string, string>>;
  readonly limitMs: number;
  readonly outputBytesMax: number;
  /** What is kept of more output than that; its beginning if absent. */
  readonly keeps?: 'beginning' | 'end';
  readonly signal?: AbortSignal;
}

/** What was left running may hold the pipes; it is not waited for longer than this after the program's own end by force. */
const PIPES_LIMIT_MS = 1_000;

/**
 * Runs a program of somebody's without a shell and without input. It is over when it has ended and nobody holds its output any more; when its
 * time is up, or `signal` is aborted, it is killed with all that it has started and that has not left its process group. Throws
 * TOOL_MISSING, PROCESS_FAILED if it cannot be started, and what an aborted `signal` stands for: CANCELLED, if it says nothing else.
 */
export async function runBounded(
  command: string,
  args: readonly string[],
  { clock, environment, limitMs, outputBytesMax, keeps, signal }: BoundedOptions,
): Promise<BoundedEnd> {
  throwIfAborted(signal);
  const child = spawn(command, args, {
    cwd: '/',
    env: { ...environment },
    // A process group of its own, so that what it starts can be ended with it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const kept = new KeptOutput(outputBytesMax, keeps ?? 'beginning');
  child.stdout.on('data', (chunk: Buffer) => kept.add(chunk));
  child.stderr.on('data', (chunk: Buffer) => kept.add(chunk));
  let isOutOfTime = false;
  const endAll = () => {
    if (child.pid === undefined) return;
    // What has left the group may keep the pipes open: then they are closed on this side.
    clock.after(PIPES_LIMIT_MS, () => {
      child.stdout.destroy();
      child.stderr.destroy();
    });
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended, and nothing that it has started is left in its group.
    }
  };
  const cancelTimer = clock.after(limitMs, () => {
    isOutOfTime = true;
    endAll();
  });
  signal?.addEventListener('abort', endAll, { once: true });
  try {
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', (error) => reject(spawnFailure(command, error)));
      child.once('close', (code) => resolve(code ?? 128));
    });
    throwIfAborted(signal);
    return { outcome: isOutOfTime ? 'out-of-time' : 'ended', exitCode, output: kept.text };
  } finally {
    cancelTimer();
    signal?.removeEventListener('abort', endAll);
  }
}

/** What a program has printed, as far as it is kept. */
class KeptOutput {
  readonly #bytesMax: number;
  readonly #keeps: 'beginning' | 'end';
  #bytes = Buffer.alloc(0);
  #sizeBytes = 0;

  constructor(bytesMax: number, keeps: 'beginning' | 'end') {
    this.#bytesMax = bytesMax;
    this.#keeps = keeps;
  }

  add(chunk: Buffer): void {
    this.#sizeBytes += chunk.length;
    const isFull = this.#keeps === 'beginning' && this.#bytes.length === this.#bytesMax;
    if (isFull) return;
    const all = Buffer.concat([this.#bytes, chunk]);
    this.#bytes = this.#keeps === 'end' ? all.subarray(-this.#bytesMax) : all.subarray(0, this.#bytesMax);
  }

  get text(): string {
    const text = this.#bytes.toString('utf8').toWellFormed();
    if (this.#sizeBytes <= this.#bytesMax) return text;
    return this.#keeps === 'end' ? `[cut off]\n${text}` : `${text}\n[cut off]`;
  }
}
