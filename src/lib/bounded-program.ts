import { spawn } from 'node:child_process';
import type { Clock } from './clock.ts';
import { spawnFailure } from './processes.ts';

/** How a program ended that was given a time to end in. */
export interface BoundedEnd {
  readonly outcome: 'ended' | 'out-of-time';
  /** 128 if a signal ended it. */
  readonly exitCode: number;
  /** The beginning of what it printed on either stream, in the order in which it came. */
  readonly output: string;
}

export interface BoundedOptions {
  readonly clock: Clock;
  /** All that it gets; nothing of this process's own. */
  readonly environment: Readonly<Record<string, string>>;
  readonly limitMs: number;
  readonly outputBytesMax: number;
  readonly signal?: AbortSignal;
}

/** What was left running may hold the pipes; it is not waited for longer than this after the program's own end by force. */
const PIPES_LIMIT_MS = 1_000;

/**
 * Runs a program of somebody's without a shell and without input. It is over when it has ended and nobody holds its output any more; when its
 * time is up, or `signal` is aborted, it is killed with all that it has started and that has not left its process group. Throws
 * TOOL_MISSING, PROCESS_FAILED if it cannot be started, and the signal's reason.
 */
export async function runBounded(
  command: string,
  args: readonly string[],
  { clock, environment, limitMs, outputBytesMax, signal }: BoundedOptions,
): Promise<BoundedEnd> {
  signal?.throwIfAborted();
  const child = spawn(command, args, {
    cwd: '/',
    env: { ...environment },
    // A process group of its own, so that what it starts can be ended with it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  const keep = (chunk: Buffer) => {
    if (sizeBytes < outputBytesMax) chunks.push(chunk.subarray(0, outputBytesMax - sizeBytes));
    sizeBytes += chunk.length;
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
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
    signal?.throwIfAborted();
    const kept = Buffer.concat(chunks).toString('utf8').toWellFormed();
    const output = sizeBytes > outputBytesMax ? `${kept}\n[cut off]` : kept;
    return { outcome: isOutOfTime ? 'out-of-time' : 'ended', exitCode, output };
  } finally {
    cancelTimer();
    signal?.removeEventListener('abort', endAll);
  }
}
