import type { FileSystem } from '../lib/files.ts';
import { storeRecord } from '../lib/records.ts';
import type { ReplicaLayout } from './layout.ts';
import { type ReplicaRecord, replicaKind } from './records.ts';

/** Stores `replica.json`, in the oldest version that says all of it; durable on return. */
export function storeReplica(files: FileSystem, layout: ReplicaLayout, record: ReplicaRecord): Promise<void> {
  return storeRecord(files, layout.record, replicaKind(record), record);
}
