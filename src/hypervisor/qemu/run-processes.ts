import { readdir, readFile } from 'node:fs/promises';
import { type Clock, sleep } from '../../lib/clock.ts';
import { systemCodeOf } from '../../lib/errors.ts';
import { hypervisorFailure } from '../errors.ts';
import { monitorOption } from './command-line.ts';
import { tpmControlOption } from './tpm.ts';

/** QEMU closes its files on SIGTERM; a storage that hangs can hold it up. */
const ORDERLY_END_MS = 10_000;
const FORCED_END_MS = 5_000;
const LOOK_AGAIN_MS = 20;

/**
 * The processes of this host that were started for a run directory, found by their command line and not by a
 * recorded id: an id may have been given to another process since, and a machine may have been started by a process
 * of ours that died before it could record anything.
 */
export function processesOfRun(runDirectory: string): Promise<number[]> {
  return processesWith([monitorOption(runDirectory)]);
}

/** Those that have one of these among their arguments. */
async function processesWith(marks: readonly string[]): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const args = (await commandLineOf(name)).split('\0');
    if (marks.some((mark) => args.includes(mark))) found.push(Number(name));
  }
  return found;
}

async function commandLineOf(pid: string): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/cmdline`, 'utf8');
  } catch (error) {
    // Processes come and go while they are listed; another user's may be hidden.
    if (['ENOENT', 'ESRCH', 'EACCES'].includes(systemCodeOf(error) ?? '')) return '';
    throw error;
  }
}

/**
 * Ends the machine that was started with this run directory, whoever started it: in order (its files are flushed and
 * closed) if it heeds that, else by force. Resolves when no such process is left; at once if there was none.
 * Throws MACHINE_END_FAILED.
 */
export function endRun(runDirectory: string, clock: Clock): Promise<void> {
  return endProcesses(runDirectory, [monitorOption(runDirectory), tpmControlOption(runDirectory)], clock);
}

/** Ends the emulator of a TPM whose machine has ended or never began, as `endRun`: it holds the directory of the state. */
export function endTpm(runDirectory: string, clock: Clock): Promise<void> {
  return endProcesses(runDirectory, [tpmControlOption(runDirectory)], clock);
}

async function endProcesses(runDirectory: string, marks: readonly string[], clock: Clock): Promise<void> {
  for (const [signal, limitMs] of [
    ['SIGTERM', ORDERLY_END_MS],
    ['SIGKILL', FORCED_END_MS],
  ] as const) {
    for (const pid of await processesWith(marks)) signalProcess(pid, signal);
    // Node tells of the end of children only, and these are not ours.
    const deadlineMs = clock.monotonicMs() + limitMs;
    for (;;) {
      if ((await processesWith(marks)).length === 0) return;
      if (clock.monotonicMs() > deadlineMs) break;
      await sleep(clock, LOOK_AGAIN_MS);
    }
  }
  const pids = (await processesWith(marks)).join(', ');
  throw hypervisorFailure('MACHINE_END_FAILED', `the machine of ${runDirectory} does not end (${pids})`, {
    context: { runDirectory, pids },
  });
}

function signalProcess(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It has gone by itself between being found and now.
    if (systemCodeOf(error) !== 'ESRCH') throw error;
  }
}
