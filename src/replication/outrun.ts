import { BLOCK_BYTES_DEFAULT } from '../delta/index.ts';
import type { DiskImages } from '../hypervisor/index.ts';
import { alignOutward, type Extents, endOf, extentsOf, NO_EXTENTS, unionOf } from '../lib/extents.ts';
import { chainAt, happened, layersSince, sizeAt } from './chain.ts';
import { MISSED_MAX, missedOf, unlistedOf } from './missed.ts';
import type { CutRecord, Outrun, ProtectedDisk, TargetRecord, UnsureCut } from './records.ts';

/**
 * The durable record that takes the place of layers which a target lacks and the others do not: which ranges they held. It is
 * written before any of them is merged. Ranges that are too many cost bytes; one that is missing is a lost write.
 */

/** The record stays small: where the ranges are more, they are told in larger units. */
const RANGES_MAX = 65_536;
/** A delta that was on its way so many others ago does not arrive any more. */
const UNSURE_MAX = 16;
const WHY_OUTRUN = 'its target was behind the others; its changes are part of the next point';

/**
 * What the record of a target must say before the layers of `due` go down: undefined if it lacks none of them. `due` is in
 * ascending order and not merged yet, or not known to be.
 */
export async function outrunBy(
  images: Pick<DiskImages, 'open'>,
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  target: TargetRecord,
  due: readonly CutRecord[],
): Promise<Outrun | undefined> {
  const begun = happened(cuts).find(({ cutId }) => cutId === target.session?.cutId);
  const { acknowledged, outrun: before } = target;
  const known = unsureOf(before);
  const last = due.at(-1);
  // A target that has nothing takes whatever comes; one of which complete copies were on their way may turn out to have any of them.
  const states = [acknowledged, ...known, begun].flatMap((state) => state?.ordinal ?? []);
  if (states.length === 0 || last === undefined || last.ordinal <= (acknowledged?.ordinal ?? 0))
    return undefined;
  const from = Math.min(...states);
  const ranges: Record<string, number[]> = {};
  for (const disk of disks) {
    const found = await heldSince(images, disk, cuts, from, last);
    const all = unionOf(found, rangesOf(before, disk.diskId));
    ranges[disk.diskId] = flattened(all, sizeAt(disk, last), RANGES_MAX / disks.length);
  }
  const since = Math.max(from, before?.throughOrdinal ?? 0);
  const lost = happened(cuts).filter(({ ordinal }) => ordinal > since && ordinal <= last.ordinal);
  const missed = [
    ...(before?.missed ?? []),
    ...lost.flatMap((cut) => [...cut.missed, missedOf(cut, WHY_OUTRUN)]),
  ];
  const newest = begun ? unsureAs(begun) : known.at(-1);
  const older = known.filter(({ pointId }) => pointId !== newest?.pointId);
  return {
    throughOrdinal: last.ordinal,
    ranges,
    missed: missed.slice(-MISSED_MAX),
    unlisted: (before?.unlisted ?? 0) + unlistedOf(lost) + Math.max(0, missed.length - MISSED_MAX),
    ...(newest ? { unsure: newest } : {}),
    ...(older.length > 0 ? { unsureBefore: older.slice(-UNSURE_MAX) } : {}),
  };
}

function unsureAs({ cutId, ordinal, cutAtMs, sizes }: CutRecord): UnsureCut {
  return { pointId: cutId, ordinal, cutAtMs, ...(sizes ? { sizes } : {}) };
}

/** The cuts that the target may turn out to have, the newest last. */
export function unsureOf(outrun: Outrun | undefined): readonly UnsureCut[] {
  return [...(outrun?.unsureBefore ?? []), ...(outrun?.unsure ? [outrun.unsure] : [])];
}

async function heldSince(
  images: Pick<DiskImages, 'open'>,
  disk: ProtectedDisk,
  cuts: readonly CutRecord[],
  from: number,
  last: CutRecord,
): Promise<Extents> {
  const layers = layersSince(disk, cuts, from, last);
  if (layers === 0) return NO_EXTENTS;
  await using reader = await images.open(chainAt(disk, cuts, last));
  const { data, zero } = await reader.ownExtents(layers);
  return unionOf(data, zero);
}

/** Ranges in whole blocks, in larger ones where they are too many. */
function flattened(extents: Extents, sizeBytes: number, most: number): number[] {
  for (let unitBytes = BLOCK_BYTES_DEFAULT; ; unitBytes *= 2) {
    const aligned = alignOutward(extents, unitBytes, sizeBytes);
    if (aligned.length <= most) return aligned.flatMap(({ offset, length }) => [offset, length]);
  }
}

/** The ranges of a disk that a target lacks besides the layers that are still there. */
function rangesOf(outrun: Outrun | undefined, diskId: string): Extents {
  const flat = outrun?.ranges[diskId] ?? [];
  return extentsOf(
    Array.from({ length: Math.floor(flat.length / 2) }, (_, index) => ({
      offset: flat[2 * index]!,
      length: flat[2 * index + 1]!,
    })),
  );
}

/** The record once the target has turned out to have a point of which that was not known: none of the others any more. `also` changed as well. */
export function outrunSince(outrun: Outrun, found: UnsureCut, also: ReadonlyMap<string, Extents>): Outrun {
  const { unsure: _newest, unsureBefore: _older, missed, ranges, ...rest } = outrun;
  const told = missed.findIndex(({ pointId }) => pointId === found.pointId);
  const added = Object.entries(ranges).map(([diskId, flat]) => {
    const more = (also.get(diskId) ?? NO_EXTENTS).flatMap(({ offset, length }) => [offset, length]);
    return [diskId, [...flat, ...more]] satisfies [string, number[]];
  });
  return { ...rest, ranges: Object.fromEntries(added), missed: missed.slice(told + 1), unlisted: 0 };
}

/** The ranges as far as a disk of this size has them. */
export function rangesWithin(outrun: Outrun | undefined, diskId: string, sizeBytes: number): Extents {
  return rangesOf(outrun, diskId)
    .filter(({ offset }) => offset < sizeBytes)
    .map((extent) => ({ ...extent, length: Math.min(endOf(extent), sizeBytes) - extent.offset }));
}
