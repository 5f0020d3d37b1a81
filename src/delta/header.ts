import type { Json } from '../lib/canonical-json.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  DISK_BYTES_MAX,
  DISKS_MAX,
  GRANULARITY_BYTES_MIN,
  isPowerOfTwo,
} from './format.ts';

/** What a delta is about; the first frame of every stream. See docs/format.md, «Header». */
export interface DeltaHeader {
  readonly session: string;
  readonly machineId: string;
  /** The point that this delta makes. */
  readonly pointId: string;
  readonly sequence: number;
  readonly epoch: number;
  /** The point that the delta lies upon; null if the delta is complete by itself. */
  readonly parent: { readonly pointId: string; readonly statementDigest: string } | null;
  /** In the order of the disk index; sizes at the cut. */
  readonly disks: readonly DeltaDisk[];
  /** Block size of the digest trees. */
  readonly blockBytes: number;
  /** Every piece begins and ends on a multiple of this, or ends with its disk. */
  readonly granularityBytes: number;
  readonly digest: 'sha256';
  /** Number of the first data or zero frame of this stream; 0 unless it resumes an earlier one. */
  readonly firstFrame: number;
}

export interface DeltaDisk {
  readonly diskId: string;
  readonly sizeBytes: number;
}

/** The end of a stream; its sums are those of the whole delta, also in a resumed stream. */
export interface DeltaTrailer {
  /** Data and zero frames. */
  readonly frames: number;
  readonly dataBytes: number;
  readonly zeroBytes: number;
  /** The signed point statement, opaque here; at most 4 MiB of canonical JSON. */
  readonly statement: Json;
}

const HEADER_MEMBERS = [
  'session',
  'machineId',
  'pointId',
  'sequence',
  'epoch',
  'parent',
  'disks',
  'blockBytes',
  'granularityBytes',
  'digest',
  'firstFrame',
];
const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;
const DIGEST = /^[0-9a-f]{64}$/;

/** Names the first thing wrong with a header, or undefined for a good one. Exact members, no others. */
export function headerFault(value: Json): string | undefined {
  if (!isObject(value) || !hasExactly(value, HEADER_MEMBERS)) return 'its members are not those of version 1';
  for (const name of ['session', 'machineId', 'pointId']) {
    if (!isName(value[name])) return `${name} is not a name`;
  }
  for (const count of ['sequence', 'epoch', 'firstFrame']) {
    if (!isCount(value[count])) return `${count} is not a whole number`;
  }
  if (value.digest !== 'sha256') return 'its digest is not sha256';
  const { blockBytes, granularityBytes } = value;
  if (typeof blockBytes !== 'number' || !isPowerOfTwo(blockBytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)) {
    return 'blockBytes is not an allowed power of two';
  }
  if (
    typeof granularityBytes !== 'number' ||
    !isPowerOfTwo(granularityBytes, GRANULARITY_BYTES_MIN, blockBytes)
  ) {
    return 'granularityBytes is not an allowed power of two';
  }
  return parentFault(value.parent) ?? disksFault(value.disks);
}

/** The same for a trailer, whose sums are checked elsewhere. */
export function trailerFault(value: Json): string | undefined {
  if (!isObject(value) || !hasExactly(value, ['frames', 'dataBytes', 'zeroBytes', 'statement'])) {
    return 'its members are not those of version 1';
  }
  for (const count of ['frames', 'dataBytes', 'zeroBytes']) {
    if (!isCount(value[count])) return `${count} is not a whole number`;
  }
  return undefined;
}

function parentFault(parent: Json | undefined): string | undefined {
  if (parent === null) return undefined;
  const good =
    isObject(parent) &&
    hasExactly(parent, ['pointId', 'statementDigest']) &&
    isName(parent.pointId) &&
    typeof parent.statementDigest === 'string' &&
    DIGEST.test(parent.statementDigest);
  return good ? undefined : 'parent is neither null nor a point with its digest';
}

function disksFault(disks: Json | undefined): string | undefined {
  if (!Array.isArray(disks) || disks.length < 1 || disks.length > DISKS_MAX) {
    return `disks is not a list of 1 to ${DISKS_MAX}`;
  }
  const seen = new Set<Json>();
  for (const disk of disks as readonly Json[]) {
    if (!isObject(disk) || !hasExactly(disk, ['diskId', 'sizeBytes'])) return 'a disk has other members';
    if (!isName(disk.diskId) || seen.has(disk.diskId)) return 'a diskId is not a name or is there twice';
    if (!isCount(disk.sizeBytes) || disk.sizeBytes < 1 || disk.sizeBytes > DISK_BYTES_MAX) {
      return `the size of disk ${disk.diskId} is out of range`;
    }
    seen.add(disk.diskId);
  }
  return undefined;
}

type JsonObject = { readonly [key: string]: Json | undefined };

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function hasExactly(value: JsonObject, members: readonly string[]): boolean {
  return Object.keys(value).length === members.length && members.every((name) => Object.hasOwn(value, name));
}

function isName(value: Json | undefined): value is string {
  return typeof value === 'string' && NAME.test(value);
}

function isCount(value: Json | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
