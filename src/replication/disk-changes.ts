import type { ImageFile, MachineConfiguration, MachineDisk, RunningMachine } from '../hypervisor/index.ts';
import type { Failure } from '../lib/errors.ts';
import { happened, presentOf, staleDisks } from './chain.ts';
import { replicationFailure } from './errors.ts';
import type { CutRecord, MachineRecord, ProtectedDisk } from './records.ts';

/** A disk that a machine has now, and had not when it was added. */
export interface NewDisk {
  readonly disk: Omit<ProtectedDisk, 'sinceOrdinal'>;
  readonly configuration: MachineConfiguration['disks'][number];
}

/**
 * The record of a machine with one disk more: the next cut is the first one that has it, and seals its owner's file, as the
 * first cut of all does. Pure. Throws PROTECTION_DISK_TAKEN.
 */
export function withDisk(
  record: MachineRecord,
  cuts: readonly CutRecord[],
  { disk, configuration }: NewDisk,
): MachineRecord {
  const { diskId, deviceName } = disk;
  const isIt = (known: { diskId: string; deviceName: string }) =>
    known.diskId === diskId || known.deviceName === deviceName;
  const taken = record.disks.find(isIt) ?? record.formerDisks?.find((former) => former.diskId === diskId);
  if (taken) {
    throw replicationFailure(
      'PROTECTION_DISK_TAKEN',
      `${record.name} has, or had, a disk ${taken.diskId} (${taken.deviceName})`,
      { context: { diskId, deviceName } },
    );
  }
  const last = happened(cuts).at(-1);
  const since = record.protection && last ? { sinceOrdinal: last.ordinal + 1 } : {};
  return {
    ...record,
    configuration: { ...record.configuration, disks: [...record.configuration.disks, configuration] },
    disks: [...record.disks, { ...disk, ...since }],
  };
}

/**
 * The record of a machine with one disk less: the next cut does not have it. Its layers stay as they are, `layers` of them,
 * until no copy needs them. Pure. Throws PROTECTION_DISK_LAST.
 */
export function withoutDisk(
  record: MachineRecord,
  diskId: string,
  o: { readonly untilOrdinal: number; readonly layers: readonly ImageFile[] },
): MachineRecord {
  const disk = record.disks.find((known) => known.diskId === diskId)!;
  if (presentOf(record.disks).every((known) => known === disk)) {
    throw replicationFailure('PROTECTION_DISK_LAST', `${diskId} is the only disk of ${record.name}`);
  }
  const { leaving: _before, ...stays } = disk;
  const leaving = { ...stays, leaving: { untilOrdinal: o.untilOrdinal, layers: [...o.layers] } };
  // What no cut has seen has nothing to give back.
  const disks = record.disks.flatMap((known) =>
    known !== disk ? [known] : o.layers.length > 0 ? [leaving] : [],
  );
  const { deviceName, chain } = disk;
  const former = { diskId, deviceName, path: chain.at(-1)!.path };
  return {
    ...noLongerGone(record, [diskId]),
    ...withDisks(record, disks),
    ...(record.protection ? { formerDisks: [...(record.formerDisks ?? []), former] } : {}),
  };
}

/** The record without doubt about these disks; one about others, or about the whole machine, stays. */
export function noLongerGone(record: MachineRecord, diskIds: readonly string[]): MachineRecord {
  const { gone, suspect, ...healthy } = record;
  const stillGone = gone?.filter((diskId) => !diskIds.includes(diskId)) ?? [];
  return {
    ...healthy,
    ...(suspect !== undefined && (!gone || stillGone.length > 0) ? { suspect } : {}),
    ...(stillGone.length > 0 ? { gone: stillGone } : {}),
  };
}

/** The machine must run on the very file that is to be protected. Throws PROTECTION_STALE_BASE. */
export async function checkRunsOn(running: RunningMachine, { disk }: NewDisk): Promise<void> {
  const [stale] = staleDisks([disk], [], await running.disks());
  if (stale)
    throw replicationFailure('PROTECTION_STALE_BASE', stale.said, { context: { diskId: disk.diskId } });
}

/** A running machine must have the recorded tips. Throws PROTECTION_DISK_GONE where it only lacks some, else PROTECTION_STALE_BASE. */
export function checkTips(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  found: readonly MachineDisk[],
): void {
  const stale = staleDisks(disks, cuts, found);
  if (stale.length === 0) return;
  if (stale.every(({ isGone }) => isGone)) throw goneFailure(stale);
  const said = stale.map((disk) => disk.said).join('; ');
  throw replicationFailure('PROTECTION_STALE_BASE', `the machine runs on another state: ${said}`, {
    context: { disks: stale.length },
  });
}

/** PROTECTION_DISK_GONE, with the ids of the disks. */
export function goneFailure(disks: readonly { readonly diskId: string; readonly said: string }[]): Error {
  const said = disks.map((disk) => disk.said).join('; ');
  const diskIds = disks.map(({ diskId }) => diskId).join(' ');
  return replicationFailure('PROTECTION_DISK_GONE', said, { context: { diskIds } });
}

function goneDisksOf({ context }: Failure): string[] {
  return String(context.diskIds).split(' ');
}

/** The disks of a machine whose protection has ended: those of the next one are all there from its beginning. */
export function ofOneAge(record: MachineRecord): Pick<MachineRecord, 'disks' | 'configuration'> {
  return withDisks(
    record,
    presentOf(record.disks).map(({ sinceOrdinal: _before, formerPaths: _there, ...disk }) => disk),
  );
}

/** These disks, and of the configuration those alone. */
export function withDisks(
  { configuration }: MachineRecord,
  disks: ProtectedDisk[],
): Pick<MachineRecord, 'disks' | 'configuration'> {
  const here = new Set(disks.map(({ diskId }) => diskId));
  return {
    disks,
    configuration: { ...configuration, disks: configuration.disks.filter(({ diskId }) => here.has(diskId)) },
  };
}

/** The record of a machine that was found on other disks, or without some: not forgotten when it stops. */
export function inDoubt(record: MachineRecord, failure: Failure): MachineRecord {
  const { gone: before, suspect = failure.message, ...rest } = record;
  const isGone = failure.code === 'PROTECTION_DISK_GONE' && (record.suspect === undefined || before);
  const gone = isGone ? [...new Set([...(before ?? []), ...goneDisksOf(failure)])] : undefined;
  const isKnown = record.suspect !== undefined && before?.join() === gone?.join();
  return isKnown ? record : { ...rest, suspect, ...(gone ? { gone } : {}) };
}

export function diskUnknown({ name }: MachineRecord, diskId: string): Error {
  return replicationFailure('PROTECTION_DISK_UNKNOWN', `${name} has no disk ${diskId}`, {
    context: { diskId },
  });
}
