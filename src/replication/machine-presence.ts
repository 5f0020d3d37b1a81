import type { RunningMachine } from '../hypervisor/index.ts';

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
