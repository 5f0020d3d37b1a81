import { chmodSync, mkdtempSync, readdirSync, readFileSync, statfsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sleep, systemClock } from '../src/lib/clock.ts';
import { systemCodeOf } from '../src/lib/errors.ts';

/** Helpers that end by themselves are given this long. */
const LEAVING_LIMIT_MS = 5_000;

const SHARED_MEMORY = '/dev/shm';
/** Two files of unit tests run at a time, and none has ever had a tenth of this. */
const ROOM_BYTES = 2 * 1024 ** 3;

/**
 * Where everything that one run of the tests makes is put: it becomes TMPDIR of the run. A test cleans up after itself, but
 * not when its process is killed, and machines that run by themselves would then go on for days. So at the end what still runs
 * out of this directory is ended, and the directory removed.
 */
export class RunDirectory {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static make(parent = tmpdir()): RunDirectory {
    // Short: names of sockets have 107 bytes, and tests make directories below this one.
    const path = mkdtempSync(join(parent, 'wt-'));
    // Programs that a test runs as another user find their way through, and see nothing.
    chmodSync(path, 0o711);
    return new RunDirectory(path);
  }

  /** One in memory, if this host has such a place and room in it. */
  static makeInMemory(): RunDirectory | undefined {
    try {
      const { bavail, bsize } = statfsSync(SHARED_MEMORY);
      return bavail * bsize >= ROOM_BYTES ? RunDirectory.make(SHARED_MEMORY) : undefined;
    } catch (error) {
      if (['ENOENT', 'EACCES'].includes(systemCodeOf(error) ?? '')) return undefined;
      throw error;
    }
  }

  /** Ends by force what was left running, and resolves with what it was. */
  async clear(limitMs = LEAVING_LIMIT_MS): Promise<readonly string[]> {
    const deadlineMs = systemClock.monotonicMs() + limitMs;
    let left = this.#processes();
    for (; left.length > 0 && systemClock.monotonicMs() < deadlineMs; left = this.#processes()) {
      await sleep(systemClock, 100);
    }
    for (const { pid } of left) end(pid);
    // What was killed a moment ago may still write its last file.
    await rm(this.path, { recursive: true, force: true, maxRetries: 10 });
    return left.map(({ pid, command }) => `${command} (${pid})`);
  }

  /** All processes that name a file of this directory among their arguments: nobody else knows its name. */
  #processes(): { pid: number; command: string }[] {
    const found: { pid: number; command: string }[] = [];
    for (const name of readdirSync('/proc')) {
      const pid = Number(name);
      if (!Number.isInteger(pid) || pid === process.pid) continue;
      const args = argumentsOf(pid);
      if (args.some((arg) => arg.includes(`${this.path}/`))) found.push({ pid, command: args[0] ?? '' });
    }
    return found;
  }
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemCodeOf(error) !== 'ESRCH') throw error;
  }
}

function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch (error) {
    // Processes come and go while they are listed; those of others may be hidden.
    if (['ENOENT', 'ESRCH', 'EACCES'].includes(systemCodeOf(error) ?? '')) return [];
    throw error;
  }
}
