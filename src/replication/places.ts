import { happened, hasOwnLayer, nextToMerge } from './chain.ts';
import type { CutRecord, ProtectedDisk, TargetRecord } from './records.ts';

/**
 * What the chain of a machine may do, by where its targets are; pure.
 *
 * A layer goes down when every target has acknowledged it. A target that is behind by `KEPT_LAYERS_MAX` layers while another
 * one goes on is *outrun*: it gets a durable record of the ranges that these layers hold, and holds nothing up any more. What
 * is at no target, or kept while a target is read for, is joined beyond the same number. No file is written that is being read.
 */

/** So many sealed layers wait for a target that does not acknowledge. */
const KEPT_LAYERS_MAX = 8;

/** Where one target is, as far as it matters to the chain. */
export interface TargetPlace {
  readonly siteId: string;
  /** Ordinal of the cut that it acknowledged last; 0: none. */
  readonly acknowledged: number;
  /** Layers up to this ordinal were merged although it lacks them; 0: none. */
  readonly outrunThrough: number;
  /** A seed is made of what it acknowledged, or of a first cut: the layers above stay layers. */
  readonly needsLayers: boolean;
  /** The cut that is sent next, because its delta has begun. */
  readonly begun: string | undefined;
  /** The cut whose chain is being read right now. */
  readonly reading: string | undefined;
}

export function placeOf(record: TargetRecord, reading: string | undefined): TargetPlace {
  const { siteId, acknowledged, outrun, seed, session } = record;
  const exported = seed?.state === 'exported' ? seed.cutId : undefined;
  return {
    siteId,
    acknowledged: acknowledged?.ordinal ?? 0,
    outrunThrough: outrun?.throughOrdinal ?? 0,
    needsLayers: seed !== undefined && seed.state !== 'wanted',
    begun: exported ?? session?.cutId,
    reading,
  };
}

/** The cuts whose layers go down now, the oldest first. */
export function cutsToMerge(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  places: readonly TargetPlace[],
): CutRecord[] {
  const upTo = mergeBound(disks, cuts, places);
  const due: CutRecord[] = [];
  for (let left = cuts; ; ) {
    const next = nextToMerge(disks, left, upTo);
    if (!next) return due;
    due.push(next);
    left = left.map((cut) => (cut.cutId === next.cutId ? { ...cut, merged: true } : cut));
  }
}

/** Ordinal up to which no target needs a layer. */
function mergeBound(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  places: readonly TargetPlace[],
): number {
  const reached = reachedBy(places);
  return Math.min(reached, ...places.map((place) => floorOf(disks, cuts, place, reached)));
}

function reachedBy(places: readonly TargetPlace[]): number {
  return Math.max(0, ...places.map(({ acknowledged }) => acknowledged));
}

function floorOf(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  place: TargetPlace,
  reached: number,
): number {
  const { acknowledged, outrunThrough, needsLayers, reading, begun } = place;
  if (reading !== undefined) return 0;
  if (needsLayers) return acknowledged;
  const held = Math.max(acknowledged, outrunThrough);
  // Whoever has nothing takes whatever comes.
  if (held === 0 && begun === undefined) return Number.POSITIVE_INFINITY;
  const from = Math.max(held, ordinalOf(cuts, begun));
  const kept = openLayers(disks, cuts).filter(({ ordinal }) => ordinal > from && ordinal <= reached);
  return kept.length >= KEPT_LAYERS_MAX ? Number.POSITIVE_INFINITY : held;
}

function ordinalOf(cuts: readonly CutRecord[], cutId: string | undefined): number {
  return cuts.find((cut) => cut.cutId === cutId)?.ordinal ?? 0;
}

function openLayers(disks: readonly ProtectedDisk[], cuts: readonly CutRecord[]): CutRecord[] {
  return happened(cuts).filter((cut) => !cut.merged && hasOwnLayer(disks, cut));
}

/** Two neighbouring layers of which the younger one is to be committed into the older, so that not too many wait. */
export function nextToJoin(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  places: readonly TargetPlace[],
): { older: CutRecord; younger: CutRecord } | undefined {
  const interrupted = happened(cuts).find(({ state }) => state === 'absorbing');
  if (interrupted) {
    const younger = happened(cuts).find(({ ordinal }) => ordinal > interrupted.ordinal);
    return younger ? { older: interrupted, younger } : undefined;
  }
  const reached = reachedBy(places);
  const bound = mergeBound(disks, cuts, places);
  const open = openLayers(disks, cuts);
  const unsent = open.filter(({ ordinal }) => ordinal > reached);
  const kept = open.filter(({ ordinal }) => ordinal > bound && ordinal <= reached);
  return youngestPair(cuts, places, unsent) ?? youngestPair(cuts, places, kept);
}

function youngestPair(
  cuts: readonly CutRecord[],
  places: readonly TargetPlace[],
  waiting: readonly CutRecord[],
): { older: CutRecord; younger: CutRecord } | undefined {
  if (waiting.length <= KEPT_LAYERS_MAX) return undefined;
  const pairs = waiting.slice(1).map((younger, index) => ({ older: waiting[index]!, younger }));
  return pairs.findLast(({ older, younger }) =>
    places.every(({ acknowledged, begun, reading }) => {
      if (ordinalOf(cuts, reading) >= older.ordinal) return false;
      if (younger.ordinal <= acknowledged) return true;
      // Neither an acknowledged state nor a delta that has begun becomes another one.
      return older.ordinal > Math.max(acknowledged, ordinalOf(cuts, begun));
    }),
  );
}

/** Cuts whose records nobody needs any more. */
export function settledCuts(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  places: readonly TargetPlace[],
): CutRecord[] {
  const bound = mergeBound(disks, cuts, places);
  const needed = new Set(places.flatMap(({ begun, reading }) => [begun, reading]));
  const last = happened(cuts).at(-1);
  return happened(cuts).filter(
    (cut) =>
      cut !== last &&
      cut.ordinal <= bound &&
      (cut.merged || !hasOwnLayer(disks, cut)) &&
      !needed.has(cut.cutId),
  );
}
