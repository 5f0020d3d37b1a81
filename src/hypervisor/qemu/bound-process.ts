import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { type Clock, sleep } from '../../lib/clock.ts';
import { libFailure } from '../../lib/errors.ts';
import { type CommandResult, runCommand, spawnFailure } from '../../lib/processes.ts';

/** Above the niceness of this process. Linux derives the priority of disk accesses from it as well (ioprio_set(2)). */
const TOOL_NICENESS = 10;

/**
 * Begins only as a child of the process it is told. The kernel's promise holds from prctl(2) on: a parent that died between
 * fork and prctl is not noticed by it, and the tool would hold its files until somebody finds it.
 */
const AS_CHILD_OF = 'test "$PPID" = "$0" && exec "$@"';

/**
 * The command line of a tool that works for `parentId` alone and must not outlive it: what it holds locked, the next process
 * of ours needs. `setpriv` (util-linux) has the kernel kill it when its parent dies, whatever that dies of (prctl(2),
 * PR_SET_PDEATHSIG). Tools work beside guests, which have the processors first: a copy may wait, a guest's write may not.
 * Both of it outlives the exec of one program by the other, and the process id stays the same.
 */
function boundTo(parentId: number, command: string, args: readonly string[]): string[] {
  const tool = ['nice', '-n', String(TOOL_NICENESS), command, ...args];
  return ['--pdeathsig', 'KILL', '--', 'sh', '-c', AS_CHILD_OF, String(parentId), ...tool];
}

/** What `setpriv` and `nice` end with when there is no such program. */
const NOT_FOUND = 127;

/** As `runCommand`, for a program that ends with this process. */
export async function runBound(
  command: string,
  args: readonly string[],
  { input }: { readonly input?: string } = {},
): Promise<CommandResult> {
  const result = await runCommand('setpriv', boundTo(process.pid, command, args), {
    allowExit: [NOT_FOUND],
    ...(input === undefined ? {} : { input }),
  });
  if (result.exitCode !== NOT_FOUND) return result;
  throw libFailure('TOOL_MISSING', `${command} is not installed or not on the path`, {
    context: { command },
  });
}

/** A server that ends with this process. */
export async function startBound(command: string, args: readonly string[]): Promise<BoundServer> {
  const child = spawn('setpriv', boundTo(process.pid, command, args), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => reject(spawnFailure('setpriv', error)));
  });
  return new BoundServer(child);
}

const WORDS_MAX = 4096;
/** Between two looks whether a server that was just started listens already. */
const LISTEN_PAUSE_MS = 2;

export class BoundServer {
  /** Settles when the process has gone and let go of its files, with what it last said. */
  readonly gone: Promise<string>;
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.#child = child;
    let words = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      words = (words + text).slice(-WORDS_MAX);
    });
    this.gone = new Promise((resolve) => child.once('close', () => resolve(words.trim())));
  }

  /**
   * Connects as soon as the server listens at `path`. What `mayCome` is tried again; when the server ends instead, `ended` makes a
   * failure of its last words.
   */
  async connected<C>(o: {
    readonly clock: Clock;
    readonly path: string;
    readonly connect: () => Promise<C>;
    readonly mayCome: (error: unknown) => boolean;
    readonly ended: (words: string, cause: unknown) => Error;
  }): Promise<C> {
    const pause = () => sleep(o.clock, LISTEN_PAUSE_MS).then(() => undefined);
    let words: string | undefined;
    // A look costs a hundredth of a vain attempt to connect, of which a start would take twenty.
    while (words === undefined && !existsSync(o.path)) words = await Promise.race([this.gone, pause()]);
    for (;;) {
      try {
        return await o.connect();
      } catch (error) {
        if (!o.mayCome(error)) throw error;
        words ??= await Promise.race([this.gone, pause()]);
        if (words !== undefined) throw o.ended(words, error);
      }
    }
  }

  /** It only reads: nothing is lost when it is ended at once. */
  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.gone;
  }
}
