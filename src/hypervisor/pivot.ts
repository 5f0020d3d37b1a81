import { dirname } from 'node:path';
import type { Clock } from '../lib/clock.ts';
import { Failure } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { hypervisorFailure } from './errors.ts';
import type { Pivot, PivotOptions, PivotReport, RunningMachine } from './hypervisor.ts';

/** Somebody who settles the pivots when this process cannot. */
export interface PivotWatch {
  /** They are settled. */
  release(): Promise<void>;
  /** They are not, and this process does not know what else to do. */
  takeOver(): void;
}

/** What of a machine a pivot needs. */
export interface PivotedMachine extends Pick<RunningMachine, 'state' | 'disks' | 'pause' | 'resume'> {
  /** The guest writes to the base of a commit that is level, from now on. Throws COMMIT_FAILED; its disks tell then. */
  completeCommit(deviceName: string): Promise<void>;
  /** Ends a commit of the disk wherever it has got to. On return there is none. */
  abandonCommit(deviceName: string): Promise<void>;
}

/** `RunningMachine.pivot` over any machine. */
export async function pivot<M extends PivotedMachine>(o: {
  readonly machine: M;
  readonly pivots: readonly Pivot[];
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly guard: () => Promise<PivotWatch>;
  readonly options: PivotOptions;
}): Promise<PivotReport> {
  const { clock, options } = o;
  let guard: PivotWatch;
  try {
    guard = await o.guard();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return { pausedMs: 0, failure: error };
  }
  const beginMs = clock.monotonicMs();
  // Whatever it ends with, the pivots are settled before that is told.
  const [changed] = await Promise.allSettled([changeOver(o)]);
  try {
    await settlePivots(o);
  } catch (error) {
    guard.takeOver();
    throw error;
  }
  const pausedMs = options.continues ? clock.monotonicMs() - beginMs : 0;
  await guard.release();
  if (changed.status === 'fulfilled') return { pausedMs };
  if (!(changed.reason instanceof Failure)) throw changed.reason;
  return { pausedMs, failure: changed.reason };
}

/** Stops the guest and changes its disks over. What has become of that, `settlePivots` finds out. */
async function changeOver({
  machine,
  pivots,
  options,
}: {
  readonly machine: PivotedMachine;
  readonly pivots: readonly Pivot[];
  readonly options: PivotOptions;
}): Promise<void> {
  if (options.continues) await machine.pause();
  else if ((await machine.state()) === 'running')
    throw hypervisorFailure('COMMIT_FAILED', 'the machine has been continued meanwhile');
  const ends = pivots.map(({ deviceName }) => machine.completeCommit(deviceName));
  // Each is waited for, so that none goes on behind the back of what comes next.
  await Promise.allSettled(ends);
  await Promise.all(ends);
}

/**
 * `RunningMachine.settlePivots` over any machine: what ends every pivot, whoever began it and however far it came. Commits that have
 * not been completed are given up first, so that no disk changes over behind our back; then the disks tell; and only when it
 * is durable which of them lie on their owner's files does the guest run again.
 */
export async function settlePivots({
  machine,
  pivots,
  files,
  options,
}: {
  readonly machine: PivotedMachine;
  readonly pivots: readonly Pivot[];
  readonly files: FileSystem;
  readonly options: PivotOptions;
}): Promise<void> {
  for (const { deviceName } of pivots) await machine.abandonCommit(deviceName);
  const disks = await machine.disks();
  const tipOf = (deviceName: string) =>
    disks.find((disk) => disk.deviceName === deviceName)?.chain.at(-1)?.path;
  const done = pivots.filter(({ deviceName, base }) => tipOf(deviceName) === base.path);
  await Promise.all(done.map((one) => giveBack(files, one)));
  if (options.continues && (await machine.state()) === 'paused') await machine.resume();
}

/** Makes durable that the guest writes to the base. What the tip holds must be durable there before. */
async function giveBack(files: FileSystem, { base, tip, givenBackPath }: Pivot): Promise<void> {
  const file = await files.open(base.path, 'read');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  if ((await files.sizeOf(tip.path)) !== undefined) await files.rename(tip.path, givenBackPath);
  await files.syncDirectory(dirname(tip.path));
}
