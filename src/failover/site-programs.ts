import { dirname, join } from 'node:path';
import { type BoundedEnd, runBounded } from '../lib/bounded-program.ts';
import type { Clock } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import { guardOf, type PathGuard } from '../lib/host-files.ts';
import { failoverFailure } from './errors.ts';

/** How a program of the site is run. */
export interface SiteProgramRun {
  readonly arguments?: readonly string[];
  /** What it is told beside where programs are found; names begin with `WARMSITE_`. */
  readonly environment: Readonly<Record<string, string>>;
  readonly limitMs: number;
  /** What is kept of much output; its beginning if absent. */
  readonly keeps?: 'beginning' | 'end';
  /** The network namespace that it is run in; this host's own if absent. */
  readonly namespace?: string | undefined;
  readonly signal?: AbortSignal;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const OUTPUT_BYTES_MAX = 4096;
/**
 * It begins only as a child of this process, and the kernel kills it when that dies, whatever of (prctl(2), PR_SET_PDEATHSIG): what is run again by
 * the next process must not meet itself. What it has started goes on.
 */
const AS_OUR_CHILD = [
  ...['setpriv', '--pdeathsig', 'KILL', '--'],
  ...['sh', '-c', 'test "$PPID" = "$0" && exec "$@"', String(process.pid)],
];
const ROOT = 0;
const WRITABLE_BY_OTHERS = 0o022;

/**
 * Programs of the operator at this site, which plans name: files in one directory that root, or whoever the site runs as, alone can write.
 * Nothing gets there over the API or from the other site: who can put a plan cannot have this host run what he likes.
 */
export class SitePrograms {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #ownId: number;

  /** `ownId`: the user of this process. */
  constructor(o: { readonly directory: string; readonly clock: Clock; readonly ownId: number }) {
    this.#directory = o.directory;
    this.#clock = o.clock;
    this.#ownId = o.ownId;
  }

  /** The path of a program. Throws FAILOVER_PROGRAM_UNKNOWN, FAILOVER_PROGRAM_UNSAFE. */
  async find(name: string): Promise<string> {
    const path = join(this.#directory, name);
    const file = NAME.test(name) ? await guardOf(path) : undefined;
    if (!file) {
      const said = `there is no program ${name} in ${this.#directory}`;
      throw failoverFailure('FAILOVER_PROGRAM_UNKNOWN', said, { context: { name } });
    }
    const directory = await guardOf(dirname(path));
    const why =
      objectionTo(file, 'file', this.#ownId) ??
      (directory && objectionTo(directory, 'directory', this.#ownId)) ??
      ((file.mode & 0o100) === 0 ? 'it may not be executed' : undefined);
    if (why === undefined) return path;
    throw failoverFailure('FAILOVER_PROGRAM_UNSAFE', `${path} is not run: ${why}`, { context: { name } });
  }

  /** Why a program could not be run; undefined if it could. */
  async lackOf(name: string): Promise<string | undefined> {
    try {
      await this.find(name);
      return undefined;
    } catch (error) {
      if (!isFailure(error)) throw error;
      return error.message;
    }
  }

  /** Throws as `find` and `runBounded`. */
  async run(name: string, o: SiteProgramRun): Promise<BoundedEnd> {
    const path = await this.find(name);
    const inside = o.namespace === undefined ? [] : ['ip', 'netns', 'exec', o.namespace];
    const [command, ...args] = [...AS_OUR_CHILD, ...inside, path, ...(o.arguments ?? [])];
    return runBounded(command!, args, {
      ...{ clock: this.#clock, limitMs: o.limitMs, outputBytesMax: OUTPUT_BYTES_MAX },
      environment: { PATH, LANG: 'C.UTF-8', ...o.environment },
      ...(o.keeps ? { keeps: o.keeps } : {}),
      ...(o.signal ? { signal: o.signal } : {}),
    });
  }
}

/** Pure. */
function objectionTo(
  { kind, ownerId, mode }: PathGuard,
  expected: PathGuard['kind'],
  ownId: number,
): string | undefined {
  const what = expected === 'directory' ? 'its directory' : 'it';
  if (kind !== expected) return `${what} is no ${expected === 'file' ? 'regular file' : 'directory'}`;
  if (ownerId !== ROOT && ownerId !== ownId) return `${what} belongs to another user (${ownerId})`;
  return (mode & WRITABLE_BY_OTHERS) === 0 ? undefined : `others than its owner may write to ${what}`;
}
