import type { RunningMachine } from '../hypervisor/index.ts';
import { replicationFailure } from './errors.ts';
import type { MachineRecord } from './records.ts';

/** What the machine's process is doing, as far as this site can tell. */
export type MachinePresence =
  | { readonly state: 'running'; readonly processId: number | undefined }
  | { readonly state: 'stopped' }
  /** It runs on other disks than the recorded tips: nothing is cut, sent or merged. */
  | { readonly state: 'stale'; readonly reason: string }
  /** Its socket is held by another client, or does not answer sensibly. */
  | { readonly state: 'unreachable'; readonly reason: string };

export function presenceOf(running: RunningMachine | undefined): MachinePresence {
  return running ? { state: 'running', processId: running.processId } : { state: 'stopped' };
}

/** Throws PROTECTION_STALE_BASE for a machine whose chain must be left alone, as far as is known. */
export function checkHealthy({ name, suspect }: MachineRecord, presence: MachinePresence): void {
  if (presence.state === 'stale' || presence.state === 'unreachable') {
    throw replicationFailure('PROTECTION_STALE_BASE', `${name}: ${presence.reason}`, {
      context: { machine: name, state: presence.state },
    });
  }
  if (suspect !== undefined) throw staleBase(`${name}: ${suspect}`);
}

export function staleBase(message: string) {
  return replicationFailure('PROTECTION_STALE_BASE', message);
}
