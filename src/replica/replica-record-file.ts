import { join } from 'node:path';
import type { FileSystem } from '../lib/files.ts';
import { KeptRecord } from '../lib/kept-record.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaLayout } from './layout.ts';
import { REPLICA_RECORD, type ReplicaRecord, replicaKind } from './records.ts';
import { isDecided } from './replica-tenure.ts';
import type { ReplicaTools } from './tools.ts';

/** Makes the directory of a replica without points; durable on return. */
export async function createReplicaFiles(
  files: FileSystem,
  layout: ReplicaLayout,
  record: ReplicaRecord,
): Promise<void> {
  for (const directory of [layout.disks, layout.points, layout.incoming, layout.intents, layout.branches]) {
    await files.makeDirectory(directory);
  }
  await storeReplica(files, layout, record);
  await files.syncDirectory(join(layout.directory, '..'));
}

/** Stores `replica.json`, in the oldest version that says all of it; durable on return. */
function storeReplica(files: FileSystem, layout: ReplicaLayout, record: ReplicaRecord): Promise<void> {
  return storeRecord(files, layout.record, replicaKind(record), record);
}

/** Throws REPLICA_UNKNOWN. */
export async function openReplicaRecord(
  { files, log }: Pick<ReplicaTools, 'files' | 'log'>,
  layout: ReplicaLayout,
): Promise<KeptRecord<ReplicaRecord>> {
  const store = (changed: ReplicaRecord) => storeReplica(files, layout, changed);
  const load = () => loadRecord(files, layout.record, REPLICA_RECORD);
  const record = await load();
  if (!record) throw replicaFailure('REPLICA_UNKNOWN', `there is no replica in ${layout.directory}`);
  // The process that has stored it may have been killed before that was durable, and a machine is started on the word of it.
  await files.syncDirectory(layout.directory);
  return new KeptRecord({ store, load, log }, record);
}

/** Durable on return. A change of who may run the machine counts also if it is not certain that it was not stored. */
export async function keepReplica(kept: KeptRecord<ReplicaRecord>, record: ReplicaRecord): Promise<void> {
  if (record === kept.now) return;
  await (isDecided(kept.now, record) ? kept.decide(record) : kept.store(record));
}

/**
 * No machine lies upon a branch of the replica. A mark that stays in the file means nothing: whether there is such a machine its own record
 * says, and when the replica is opened the mark is made to agree with that.
 */
export function withoutHome({ adopted: _branch, ...record }: ReplicaRecord): ReplicaRecord {
  return record;
}
