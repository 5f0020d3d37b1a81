import type { MachineConfiguration, RunningMachine } from '../hypervisor/index.ts';
import { happened, staleDisks } from './chain.ts';
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
  const taken = record.disks.find((known) => known.diskId === diskId || known.deviceName === deviceName);
  if (taken) {
    throw replicationFailure(
      'PROTECTION_DISK_TAKEN',
      `${record.name} has a disk ${taken.diskId} (${taken.deviceName}) already`,
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

/** The machine must run on the very file that is to be protected. Throws PROTECTION_STALE_BASE. */
export async function checkRunsOn(running: RunningMachine, { disk }: NewDisk): Promise<void> {
  const [stale] = staleDisks([disk], [], await running.disks());
  if (stale !== undefined)
    throw replicationFailure('PROTECTION_STALE_BASE', stale, { context: { diskId: disk.diskId } });
}

/** The disks of a machine whose protection has ended: those of the next one are all there from its beginning. */
export function ofOneAge(disks: readonly ProtectedDisk[]): ProtectedDisk[] {
  return disks.map(({ sinceOrdinal: _before, ...disk }) => disk);
}
