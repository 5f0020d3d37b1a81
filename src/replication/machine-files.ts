import { dirname, join } from 'node:path';
import type { FileSystem } from '../lib/files.ts';
import { KeptRecord } from '../lib/kept-record.ts';
import type { Log } from '../lib/log.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { replicationFailure } from './errors.ts';
import type { ProtectedLayout } from './layout.ts';
import { CUT_RECORD, type CutRecord, MACHINE_RECORD, type MachineRecord, machineKind } from './records.ts';

/** Makes the directory of a machine. Durable on return. */
export async function createMachineFiles(
  files: FileSystem,
  layout: ProtectedLayout,
  record: MachineRecord,
): Promise<void> {
  await files.makeDirectory(layout.targets);
  await storeMachine(files, layout, record);
  await files.syncDirectory(dirname(layout.directory));
}

/** Throws PROTECTION_MACHINE_UNKNOWN. */
export async function openMachineFiles(files: FileSystem, layout: ProtectedLayout): Promise<MachineRecord> {
  const record = await loadRecord(files, layout.record, MACHINE_RECORD);
  if (!record)
    throw replicationFailure('PROTECTION_MACHINE_UNKNOWN', `there is no machine in ${layout.directory}`);
  // As with the cuts: layers are merged on the word of these records.
  await files.makeDirectory(layout.targets);
  await files.syncDirectory(layout.targets);
  await files.syncDirectory(layout.directory);
  return record;
}

/** The cuts that a machine has records of, in ascending order. */
export async function loadCuts(files: FileSystem, layout: ProtectedLayout): Promise<CutRecord[]> {
  const cuts: CutRecord[] = [];
  for (const name of (await files.list(layout.cuts)) ?? []) {
    const cut = name.endsWith('.json')
      ? await loadRecord(files, join(layout.cuts, name), CUT_RECORD)
      : undefined;
    if (cut) cuts.push(cut);
  }
  return cuts.sort((a, b) => a.ordinal - b.ordinal);
}

/** When the newest state was cut that a machine has a record of; undefined where there is none. */
export async function newestCutMs(files: FileSystem, layout: ProtectedLayout): Promise<number | undefined> {
  const cuts = await loadCuts(files, layout);
  return cuts.length === 0 ? undefined : Math.max(...cuts.map(({ cutAtMs }) => cutAtMs));
}

function storeMachine(files: FileSystem, layout: ProtectedLayout, record: MachineRecord): Promise<void> {
  return storeRecord(files, layout.record, machineKind(record), record);
}

/** `record` is what has just been read. */
export function keptMachine(
  { files, log }: { readonly files: FileSystem; readonly log: Log },
  layout: ProtectedLayout,
  record: MachineRecord,
): KeptRecord<MachineRecord> {
  const store = (changed: MachineRecord) => storeMachine(files, layout, changed);
  const load = () => loadRecord(files, layout.record, MACHINE_RECORD);
  return new KeptRecord({ store, load, log }, record);
}
