import { type DeltaHeader, type DeltaProgress, NOTHING_RECEIVED } from '../delta/index.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { hasDisk, type ReplicaDescription, type ReplicaPoint } from './description.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaRecord } from './records.ts';

export interface Offer {
  readonly header: DeltaHeader;
  /** Sender's clock minus ours, as measured in this session. */
  readonly skewMs: number;
}

/** Why a delta cannot be taken, with the evidence. There is no automatic way out of a conflict. */
export type OfferConflict =
  | { readonly why: 'epoch'; readonly held: number; readonly offered: number }
  | { readonly why: 'parent'; readonly newest: string | null; readonly offered: string | null }
  | { readonly why: 'sequence'; readonly expected: number; readonly offered: number }
  | { readonly why: 'disks'; readonly detail: string }
  /** The base is awaited, and the delta does not come in whole blocks: it could not be proven. */
  | { readonly why: 'seed'; readonly granularityBytes: number };

export type OfferAnswer =
  | {
      readonly kind: 'accept';
      readonly session: string;
      readonly progress: DeltaProgress;
      /** Disks of which there is an older copy: what it has need not come. */
      readonly older?: readonly string[];
    }
  | { readonly kind: 'already'; readonly newest: NonNullable<ReplicaDescription['newest']> }
  | { readonly kind: 'conflict'; readonly conflict: OfferConflict };

/**
 * Whether a delta may be laid on the replica: only on top of the newest point, with the next sequence number, in the
 * current epoch, with no disk smaller than it was. Of forwarded points some may be missing in between: they keep the numbers that
 * their source has given them. Disks may come and go, but none comes again: its layers would be taken for
 * those of the one before. A delta that makes the newest point is a repetition and already taken. Pure.
 */
export function answerOffer(
  header: DeltaHeader,
  replica: ReplicaDescription,
  disks: KnownDisks | undefined,
  { viaSiteId }: Pick<ReplicaRecord, 'viaSiteId'> = {},
): OfferAnswer {
  const { newest, epoch, incoming } = replica;
  if (header.epoch !== epoch) return conflict({ why: 'epoch', held: epoch, offered: header.epoch });
  if (newest && header.pointId === newest.pointId) return { kind: 'already', newest };
  const parent = header.parent;
  if (
    (parent?.pointId ?? null) !== (newest?.pointId ?? null) ||
    parent?.statementDigest !== newest?.statementDigest
  ) {
    return conflict({ why: 'parent', newest: newest?.pointId ?? null, offered: parent?.pointId ?? null });
  }
  const expected = (newest?.sequence ?? 0) + 1;
  const mayFollow = viaSiteId === undefined ? header.sequence === expected : header.sequence >= expected;
  if (!mayFollow) return conflict({ why: 'sequence', expected, offered: header.sequence });
  if (disks) {
    const difference = diskDifference(header, disks);
    if (difference) return conflict({ why: 'disks', detail: difference });
  }
  const { granularityBytes, blockBytes } = header;
  if (newest?.level === 'awaiting-seed' && granularityBytes !== blockBytes) {
    return conflict({ why: 'seed', granularityBytes });
  }
  const isResumed = incoming?.session === header.session && incoming.pointId === header.pointId;
  return {
    kind: 'accept',
    session: header.session,
    progress: isResumed ? incoming.progress : NOTHING_RECEIVED,
  };
}

interface DiskSize {
  readonly diskId: string;
  readonly sizeBytes: number;
}

/** The disks of the newest point, and the ids of those that any point has. */
interface KnownDisks {
  readonly now: readonly DiskSize[];
  readonly ever: readonly string[];
}

function diskDifference({ disks }: DeltaHeader, { now, ever }: KnownDisks): string | undefined {
  for (const { diskId, sizeBytes } of disks) {
    const known = now.find((disk) => disk.diskId === diskId);
    if (!known && ever.includes(diskId)) return `${diskId} is the id of a disk that was taken away`;
    if (known && sizeBytes < known.sizeBytes)
      return `${diskId} has ${known.sizeBytes} bytes here, and ${sizeBytes} are offered`;
  }
  return undefined;
}

/** The disks of a delta that the point below it does not have. */
export function beginning({ parent, disks }: DeltaHeader, newest: ReplicaPoint | undefined): string[] {
  if (parent === null || !newest) return [];
  return disks.map(({ diskId }) => diskId).filter((diskId) => !hasDisk(newest, diskId));
}

function conflict(conflict: OfferConflict): OfferAnswer {
  return { kind: 'conflict', conflict };
}

/** A stream must be the delta that was accepted, from the frame on that was promised. */
export function checkSameDelta(accepted: DeltaHeader, arrived: DeltaHeader, nextFrame: number): void {
  const textOf = (header: DeltaHeader) => canonicalJson({ ...header, firstFrame: 0 } as unknown as Json);
  const { session } = accepted;
  if (textOf(accepted) !== textOf(arrived)) {
    throw replicaFailure('REPLICA_DELTA_REFUSED', 'the stream is not the delta that was accepted', {
      context: { session },
    });
  }
  // An upload that comes late begins where the delta was at that time; what has come since then stays.
  const { firstFrame } = arrived;
  if (firstFrame === nextFrame) return;
  const said = `the stream begins at frame ${firstFrame}; frame ${nextFrame} is due`;
  throw replicaFailure('REPLICA_SESSION_OUTDATED', said, {
    context: { session, expectedFrame: nextFrame, firstFrame },
  });
}
