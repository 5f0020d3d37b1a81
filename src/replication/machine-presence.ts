import type { RunningMachine, Standstill } from '../hypervisor/index.ts';
import { replicationFailure } from './errors.ts';
import type { CutRecord, MachineRecord } from './records.ts';

/** What the machine's process is doing, as far as this site can tell. */
export type MachinePresence =
  | {
      readonly state: 'running';
      readonly processId: number | undefined;
      /** Its guest stands still, as far as was seen when it was looked at last. */
      readonly standstill?: GuestStandstill;
    }
  | {
      readonly state: 'stopped';
      /** Nobody has looked yet: it may run. */
      readonly isUnseen?: true;
    }
  /** It runs on other disks than the recorded tips: nothing is cut, sent or merged. */
  | {
      readonly state: 'stale';
      readonly reason: string;
      /** It lacks disks, and the others are what they must be. */
      readonly isGone?: boolean;
    }
  /** Its socket is held by another client, or does not answer sensibly. */
  | { readonly state: 'unreachable'; readonly reason: string };

/** Why the guest of a process that runs does not; the disks are those that an I/O error is known to have happened to. */
export interface GuestStandstill {
  readonly why: Standstill['why'];
  readonly diskIds: readonly string[];
}

export function presenceOf(running: RunningMachine | undefined): MachinePresence {
  return running ? { state: 'running', processId: running.processId } : { state: 'stopped' };
}

/** Undefined: the guest runs, or its process does not. */
export function standstillOf(presence: MachinePresence): GuestStandstill | undefined {
  return presence.state === 'running' ? presence.standstill : undefined;
}

/** What a machine that is connected does, its guest included. */
export async function guestPresence(
  running: RunningMachine,
  { disks }: Pick<MachineRecord, 'disks'>,
): Promise<MachinePresence> {
  const found = await running.standstill();
  const { processId } = running;
  if (found === undefined) return { state: 'running', processId };
  const names = 'deviceNames' in found ? found.deviceNames : [];
  const diskIds = disks.filter(({ deviceName }) => names.includes(deviceName)).map(({ diskId }) => diskId);
  return { state: 'running', processId, standstill: { why: found.why, diskIds } };
}

/** Throws PROTECTION_STALE_BASE, PROTECTION_DISK_GONE for a machine whose chain must be left alone, as far as is known. */
export function checkHealthy({ name, suspect }: MachineRecord, presence: MachinePresence): void {
  if (presence.state === 'stale' || presence.state === 'unreachable') {
    const isGone = presence.state === 'stale' && presence.isGone;
    throw replicationFailure(
      isGone ? 'PROTECTION_DISK_GONE' : 'PROTECTION_STALE_BASE',
      `${name}: ${presence.reason}`,
      { context: { machine: name, state: presence.state } },
    );
  }
  if (suspect !== undefined) throw staleBase(`${name}: ${suspect}`);
}

function staleBase(message: string) {
  return replicationFailure('PROTECTION_STALE_BASE', message);
}

/**
 * A machine that is connected is not what it was when it was looked at last: it lacked disks, and has them again, because who has
 * taken them out has plugged them in. Or its guest was left standing still and could not be continued, or does not see the end of a
 * disk whose tip could not be grown: that is tried until it can.
 */
export async function mustBeLookedAt(
  { gone, disks, dissolving }: Pick<MachineRecord, 'gone' | 'disks' | 'dissolving'>,
  cuts: readonly CutRecord[],
  running: RunningMachine,
): Promise<boolean> {
  if (dissolving === 'pivoting' || cuts.at(-1)?.short) return true;
  if (!gone) return false;
  const there = new Set((await running.disks()).map(({ deviceName }) => deviceName));
  return disks.every(({ diskId, deviceName }) => !gone.includes(diskId) || there.has(deviceName));
}

/** Nobody has looked yet, since the site began, whether it runs. */
export function isUnseen(presence: MachinePresence): boolean {
  return presence.state === 'stopped' && presence.isUnseen === true;
}

/** A process that is not there writes nothing, whatever has become of its disks. */
export function hasEnded({
  presence,
  running,
}: {
  readonly presence: MachinePresence;
  readonly running: RunningMachine | undefined;
}): boolean {
  const isGone = presence.state === 'stale' && presence.isGone === true;
  return running === undefined && (presence.state === 'stopped' || isGone);
}
