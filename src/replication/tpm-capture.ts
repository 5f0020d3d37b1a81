import { join } from 'node:path';
import type { CutReport, DiskCut, Hypervisor, RunningMachine } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { type FileSystem, readSmallFile } from '../lib/files.ts';
import { TPM_STATE_BYTES_MAX, type TpmCopy } from '../recovery-point/index.ts';
import type { CutTogether, ReadyCut, SealedCut } from './cut-together.ts';

/**
 * What a TPM holds is in a file of its emulator and not in QEMU, so that no transaction takes it. The emulator writes the file aside
 * and renames it whenever a command has changed what outlives a loss of power, before it answers: what can be read at an
 * instant is what would be left if the power failed then.
 */

/** A guest stands still for some milliseconds; a storage that hangs must not hold it. */
const PAUSE_LIMIT_MS = 2_000;
const STATE_FILE = 'tpm2-00.permall';

export interface TpmTools {
  readonly files: FileSystem;
  readonly hypervisor: Pick<Hypervisor, 'whilePaused'>;
  readonly clock: Clock;
}

interface Seen {
  readonly state?: Buffer;
  /** There is a state, or may be, and it could not be read. */
  readonly isUnread?: true;
  readonly reason: string;
}

async function look(files: FileSystem, directory: string): Promise<Seen> {
  try {
    const state = await readSmallFile(files, join(directory, STATE_FILE), TPM_STATE_BYTES_MAX);
    return { ...(state ? { state } : {}), reason: `${directory} holds no state of a TPM` };
  } catch (error) {
    if (!isFailure(error)) throw error;
    return { reason: messageOf(error), isUnread: true };
  }
}

/** Of a machine that is off; one that was never started has a TPM that holds nothing yet. */
export async function tpmOfStopped(
  files: FileSystem,
  directory: string,
): Promise<Pick<SealedCut, 'tpm' | 'withoutTpm'>> {
  const { state, reason, isUnread } = await look(files, directory);
  if (state) return { tpm: asState('stopped', 0, state) };
  return isUnread ? { withoutTpm: without(reason) } : {};
}

/** Seals the disks of a machine, and copies what its TPM holds while it stands still. Throws as `RunningMachine.cut`. */
export async function sealedWithTpm(
  { files, hypervisor, clock }: TpmTools,
  directory: string,
  running: RunningMachine,
  disks: readonly DiskCut[],
): Promise<SealedCut> {
  const before = await look(files, directory);
  const prepared = await running.prepareCut(disks);
  let cutAtMs = clock.wallMs();
  let sealing: Promise<CutReport> | undefined;
  let held: Seen | undefined;
  const pause = await hypervisor.whilePaused([running], PAUSE_LIMIT_MS, async () => {
    cutAtMs = clock.wallMs();
    sealing = prepared.seal();
    await sealing;
    held = await look(files, directory);
  });
  const { pauseMs } = await (sealing ?? prepared.seal());
  const common = { cutAtMs, pauseMs: Math.max(pauseMs, pause.pausedMs) };
  if (pause.together && held) return { ...common, ...takenFrom(held, pause.pausedMs) };
  return { ...common, ...unlessChanged(before, await look(files, directory)) };
}

/** The same for one of several machines that are sealed together. */
export function sealingTogether(
  files: FileSystem,
  directory: string,
  together: CutTogether,
): { readonly ready: (ready: ReadyCut) => Promise<void>; readonly seal: () => Promise<SealedCut> } {
  let held: Seen | undefined;
  return {
    ready: (ready) =>
      together.ready({
        ...ready,
        held: async () => {
          held = await look(files, directory);
        },
      }),
    seal: async () => {
      const before = await look(files, directory);
      const sealed = await together.seal();
      const taken =
        sealed.group !== undefined && held !== undefined
          ? takenFrom(held, sealed.pauseMs)
          : unlessChanged(before, await look(files, directory));
      return { ...sealed, ...taken };
    },
  };
}

function takenFrom({ state, reason }: Seen, pauseMs: number): Pick<SealedCut, 'tpm' | 'withoutTpm'> {
  return state ? { tpm: asState('paused', pauseMs, state) } : { withoutTpm: without(reason) };
}

/** What is the same before and after was so at the instant between. */
function unlessChanged(before: Seen, after: Seen): Pick<SealedCut, 'tpm' | 'withoutTpm'> {
  if (!before.state || !after.state) return { withoutTpm: without(after.reason) };
  return before.state.equals(after.state)
    ? { tpm: asState('unchanged', 0, after.state) }
    : { withoutTpm: without('it changed during the cut, and the guest could not be held still') };
}

function without(reason: string): string {
  return `the point lacks what the TPM held: ${reason}`;
}

function asState(captured: TpmCopy['captured'], pauseMs: number, state: Buffer): TpmCopy {
  return { captured, pauseMs, state: state.toString('base64') };
}
