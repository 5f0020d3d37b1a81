import { NOTHING_RECEIVED } from '../delta/index.ts';
import { observed } from '../lib/streams.ts';
import type { SignedStatement } from '../recovery-point/index.ts';
import { seedHeader } from '../replica/index.ts';
import { chainUpTo, isThereAt, readable } from './chain.ts';
import type { Delivered, DeliveryTools } from './delivery.ts';
import type { CutRecord, TargetRecord } from './records.ts';
import {
  exportedAs,
  removePartialSeed,
  type SeedExported,
  type SeedExportOptions,
  seedPath,
  writeSeed,
} from './seed-export.ts';
import { HEADER_DEFAULTS, SendSession, type SentDelta } from './send-session.ts';
import type { ReplicationTarget } from './target.ts';

/**
 * Writes another seed for a target that awaits one: of the point that it has acknowledged last, as it was signed then. The
 * target is told first, so that it keeps the point. Throws REPLICATION_SEED_CHANGED if the files here do not read as signed.
 */
export async function exportAgain(
  tools: DeliveryTools,
  { record, cuts }: Delivered,
  { acknowledged }: TargetRecord,
  { target, signed, path }: { target: ReplicationTarget; signed: SignedStatement; path: string },
  o: SeedExportOptions,
): Promise<SeedExported> {
  const { images } = tools;
  const { machineId, machineName, pointId, sequence } = signed.statement;
  const { file, known } = await seedPath(tools.files, path, { machineName, sequence, pointId });
  await target.seeds.keep(machineId, pointId, o.signal);
  if (known) return exportedAs(file, known);
  const { ordinal } = acknowledged!;
  const disks = record.disks.filter((disk) => isThereAt(disk, ordinal));
  await using sending = await SendSession.open({
    ...{ images, said: { signed }, trees: new Map() },
    header: { ...seedHeader({ signed }), granularityBytes: HEADER_DEFAULTS.granularityBytes },
    chains: Object.fromEntries(disks.map((disk) => [disk.diskId, chainUpTo(disk, cuts, ordinal)])),
    ...(o.signal ? { signal: o.signal } : {}),
  });
  const { bytes } = await writeSeedOf(tools, sending, file, o);
  return { path: file, pointId, sequence, bytes };
}

/** The cut that the first seed of a machine is of. */
export function firstOf({ cuts }: Delivered, { seed }: TargetRecord): CutRecord | undefined {
  const exported = seed?.state === 'exported' ? seed.cutId : undefined;
  return cuts.find(({ cutId }) => cutId === exported) ?? readable(cuts)[0];
}

/** Removes what an export to this path has left of the seed that would be written now. */
export async function dropSeed(
  { files }: Pick<DeliveryTools, 'files'>,
  delivered: Delivered,
  target: TargetRecord,
  path: string,
): Promise<void> {
  const first = firstOf(delivered, target);
  if (target.seed?.state === 'awaited') await removePartialSeed(files, path, target.seed.signed.statement);
  else if (first)
    await removePartialSeed(files, path, {
      ...{ machineName: delivered.record.name, sequence: 1, pointId: first.cutId },
    });
}

/** The stream of an opened cut as a seed file; what it was found to be is what was signed. */
export async function writeSeedOf(
  { files, clock }: DeliveryTools,
  sending: SendSession,
  file: string,
  o: SeedExportOptions,
): Promise<{ readonly bytes: number; readonly sent: SentDelta }> {
  const stream = sending.stream(NOTHING_RECEIVED, true);
  const counted = observed(stream, () => o.onProgress?.(sending.progress));
  const signed = (): SignedStatement => sending.sent!.signed;
  const bytes = await writeSeed(files, file, counted, {
    ...{ signed, exportedAtMs: clock.wallMs(), signal: o.signal },
  });
  return { bytes, sent: sending.sent! };
}
