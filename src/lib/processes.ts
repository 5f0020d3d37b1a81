import { type ChildProcess, spawn } from 'node:child_process';
import { libFailure, messageOf, systemCodeOf } from './errors.ts';

/** Bytes of output kept of a child; the rest is read and dropped. */
const OUTPUT_BYTES_MAX = 1024 * 1024;

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

/**
 * Runs a program to its end, without a shell. A non-zero exit is PROCESS_FAILED unless `allowExit` says so;
 * a program that is not installed is TOOL_MISSING.
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: {
    allowExit?: readonly number[];
    cwd?: string;
    input?: string;
    signal?: AbortSignal;
    /** What the program gets when `signal` is aborted; SIGTERM if absent. */
    killSignal?: NodeJS.Signals;
  } = {},
): Promise<CommandResult> {
  const child = spawn(command, args, {
    cwd: options.cwd,
    signal: options.signal,
    ...(options.killSignal ? { killSignal: options.killSignal } : {}),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin.on('error', () => {
    // The child may end before it has read its input; its exit code tells more than EPIPE does.
  });
  child.stdin.end(options.input ?? '');
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', (error) => reject(spawnFailure(command, error)));
    child.once('close', (code, signal) => resolve(code ?? (signal ? 128 : 1)));
  });
  const result = { stdout: stdout(), stderr: stderr(), exitCode };
  if (exitCode !== 0 && !options.allowExit?.includes(exitCode)) {
    const said = (result.stderr || result.stdout).trim().slice(-2000);
    throw libFailure('PROCESS_FAILED', `${command} ended with ${exitCode}: ${said}`, {
      context: { command, exitCode },
    });
  }
  return result;
}

export function spawnFailure(command: string, error: unknown): Error {
  if (systemCodeOf(error) === 'ENOENT') {
    return libFailure('TOOL_MISSING', `${command} is not installed or not on the path`, {
      context: { command },
    });
  }
  return libFailure('PROCESS_FAILED', `${command} could not be started: ${messageOf(error)}`, {
    cause: error,
  });
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < OUTPUT_BYTES_MAX) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8').slice(0, OUTPUT_BYTES_MAX);
}

/** Resolves when a child has gone; at once if it already has. */
export function exitOf(child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return Promise.resolve({ code: child.exitCode, signal: child.signalCode });
  }
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
}
