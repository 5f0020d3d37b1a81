import { dirname, resolve as resolvePath } from 'node:path';
import type { FileSystem } from '../lib/files.ts';
import { BACKING_NAME_BYTES_MAX, backingNameTrouble } from './backing-name.ts';
import { type QCOW2_ERRORS, qcow2Failure } from './errors.ts';
import {
  BACKING_FORMAT_EXTENSION,
  BITMAPS_EXTENSION,
  DATA_FILE_EXTENSION,
  INCOMPATIBLE_COMPRESSION_TYPE,
  INCOMPATIBLE_CORRUPT,
  INCOMPATIBLE_DATA_FILE,
  INCOMPATIBLE_DIRTY,
  INCOMPATIBLE_EXTENDED_L2,
  MAGIC,
} from './format.ts';

/** Header, extensions and backing name must lie within this, however large the clusters are. */
const HEADER_BYTES_MAX = 64 * 1024;

const V2_HEADER_BYTES = 72;
const V3_HEADER_BYTES = 104;
const CLUSTER_BITS_MIN = 9;
const CLUSTER_BITS_MAX = 21;
/** QEMU's own limits (block/qcow2.h): what is larger it refuses too, so we never ask it. */
const L1_BYTES_MAX = 32 * 2 ** 20;
const REFCOUNT_TABLE_BYTES_MAX = 8 * 2 ** 20;
const SNAPSHOTS_MAX = 65_536;
const EXTENSIONS_MAX = 64;

/** What an image says about itself, bounded and consistent. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly sizeBytes: number;
  readonly clusterBytes: number;
  /** The least guest range with its own allocation state: a sub-cluster with extended L2 entries, else a cluster. */
  readonly granularityBytes: number;
  readonly extendedL2: boolean;
  /** Refcounts may be stale because the image is open, or was not closed; QEMU repairs that on opening. */
  readonly dirty: boolean;
  readonly lazyRefcounts: boolean;
  readonly compression: 'zlib' | 'zstd';
  readonly encryption: 'none' | 'aes' | 'luks';
  readonly refcountBits: number;
  readonly snapshots: number;
  /** Whether the image carries persistent dirty bitmaps, and whether they are valid. */
  readonly bitmaps: 'none' | 'consistent' | 'inconsistent';
  /** A plain file name as it stands in the header; `format` null if the image does not tell it. Never probe. */
  readonly backing: { readonly name: string; readonly format: string | null } | null;
}

export interface HeaderContext {
  /** Names the image in messages. */
  readonly path: string;
  /** Size of the image file: all tables must begin within it. */
  readonly fileBytes: number;
  /** Images of QEMU before 1.7 and of some other tools are version 2; without this they are QCOW2_VERSION_OLD. */
  readonly allowVersion2?: boolean;
}

/**
 * Decodes the header of any qcow2 image, believing nothing. `bytes` is the beginning of the file: the first
 * 64 KiB, or all of a smaller file.
 *
 * Failures: QCOW2_BAD_MAGIC, QCOW2_VERSION_OLD, QCOW2_VERSION_UNKNOWN, QCOW2_FEATURE_UNKNOWN,
 * QCOW2_DATA_FILE, QCOW2_MARKED_CORRUPT, QCOW2_BACKING_REFUSED, and QCOW2_HEADER_INVALID for whatever is cut
 * off, out of bounds or contradicts itself. The context of each names the path and the field.
 */
export function parseHeader(bytes: Uint8Array, o: HeaderContext): Qcow2Header {
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const refuse: Refuse = (code, field, what) => {
    throw qcow2Failure(code, `${o.path}: ${what}`, { context: { path: o.path, field } });
  };
  const require: Require = (condition, field, what) => {
    if (!condition) refuse('QCOW2_HEADER_INVALID', field, what);
  };

  if (header.length < 8 || header.readUInt32BE(0) !== MAGIC) {
    refuse('QCOW2_BAD_MAGIC', 'magic', 'does not begin with the magic of qcow2');
  }
  const version = header.readUInt32BE(4);
  if (version === 2 && !o.allowVersion2) refuse('QCOW2_VERSION_OLD', 'version', 'is of qcow2 version 2');
  if (version !== 2 && version !== 3) {
    refuse('QCOW2_VERSION_UNKNOWN', 'version', `is of qcow2 version ${version}`);
  }
  const leastBytes = version === 2 ? V2_HEADER_BYTES : V3_HEADER_BYTES;
  require(header.length >=
    leastBytes, 'header_length', `ends within its header, after ${header.length} bytes`);

  const features = version === 2 ? V2_FEATURES : readFeatures(header, { refuse, require });

  const clusterBits = header.readUInt32BE(20);
  require(clusterBits >= (features.extendedL2 ? 14 : CLUSTER_BITS_MIN) &&
    clusterBits <= CLUSTER_BITS_MAX, 'cluster_bits', `has clusters of 2^${clusterBits} bytes`);
  const clusterBytes = 2 ** clusterBits;
  const areaBytes = Math.min(clusterBytes, HEADER_BYTES_MAX, header.length);
  require(features.headerLength % 8 === 0 &&
    features.headerLength >= leastBytes &&
    features.headerLength <= areaBytes, 'header_length', `claims a header of ${features.headerLength} bytes`);

  const cryptMethod = header.readUInt32BE(32);
  const encryption = (['none', 'aes', 'luks'] as const)[cryptMethod];
  if (encryption === undefined) {
    return refuse('QCOW2_FEATURE_UNKNOWN', 'crypt_method', `is encrypted by unknown method ${cryptMethod}`);
  }

  const { sizeBytes, snapshots } = readTables(header, {
    clusterBytes,
    l2EntryBytes: features.extendedL2 ? 16 : 8,
    fileBytes: o.fileBytes,
    require,
  });

  const name = readBackingName(header, { start: features.headerLength, areaBytes, refuse, require });
  const extensions = readExtensions(header, {
    start: features.headerLength,
    end: name === null ? areaBytes : name.offset,
    require,
  });
  if (extensions.dataFile) {
    refuse('QCOW2_DATA_FILE', 'extensions', 'names an external data file');
  }
  require(!features.bitmapsConsistent ||
    extensions.bitmaps, 'autoclear_features', 'claims consistent bitmaps and has none');

  return {
    version: version === 2 ? 2 : 3,
    sizeBytes,
    clusterBytes,
    granularityBytes: features.extendedL2 ? clusterBytes / 32 : clusterBytes,
    extendedL2: features.extendedL2,
    dirty: features.dirty,
    lazyRefcounts: features.lazyRefcounts,
    compression: features.compression,
    encryption,
    refcountBits: 2 ** features.refcountOrder,
    snapshots,
    bitmaps: !extensions.bitmaps ? 'none' : features.bitmapsConsistent ? 'consistent' : 'inconsistent',
    backing: name === null ? null : { name: name.text, format: extensions.backingFormat },
  };
}

/**
 * Reads and decodes the header of an image. Besides the failures of `parseHeader`: FILE_UNREADABLE, and
 * QCOW2_BACKING_REFUSED for an image that names itself as its backing file.
 */
export async function readHeader(
  files: FileSystem,
  path: string,
  o: { allowVersion2?: boolean } = {},
): Promise<Qcow2Header> {
  const file = await files.open(path, 'read');
  try {
    const fileBytes = await file.sizeBytes();
    const bytes = Buffer.alloc(Math.min(HEADER_BYTES_MAX, fileBytes));
    const got = await file.read(bytes, 0);
    const header = parseHeader(bytes.subarray(0, got), { path, fileBytes, allowVersion2: o.allowVersion2 });
    if (header.backing !== null && resolvePath(dirname(path), header.backing.name) === resolvePath(path)) {
      throw qcow2Failure('QCOW2_BACKING_REFUSED', `${path}: names itself as its backing file`, {
        context: { path, field: 'backing_file' },
      });
    }
    return header;
  } finally {
    await file.close();
  }
}

/**
 * How large the disk in an image is, and nothing else of it: also of images that `readHeader` refuses, which their owner may have
 * made in any way that QEMU knows. Undefined for a file that is no qcow2 image. Throws FILE_UNREADABLE.
 */
export async function readVirtualSize(files: FileSystem, path: string): Promise<number | undefined> {
  const file = await files.open(path, 'read');
  try {
    const header = Buffer.alloc(32);
    const got = await file.read(header, 0);
    if (got < header.length || header.readUInt32BE(0) !== MAGIC) return undefined;
    const sizeBytes = Number(header.readBigUInt64BE(24));
    return Number.isSafeInteger(sizeBytes) ? sizeBytes : undefined;
  } finally {
    await file.close();
  }
}

type Refuse = (code: keyof typeof QCOW2_ERRORS, field: string, what: string) => never;
type Require = (condition: boolean, field: string, what: string) => void;

interface Features {
  readonly headerLength: number;
  readonly dirty: boolean;
  readonly extendedL2: boolean;
  readonly compression: 'zlib' | 'zstd';
  readonly lazyRefcounts: boolean;
  readonly bitmapsConsistent: boolean;
  readonly refcountOrder: number;
}

const V2_FEATURES: Features = {
  headerLength: V2_HEADER_BYTES,
  dirty: false,
  extendedL2: false,
  compression: 'zlib',
  lazyRefcounts: false,
  bitmapsConsistent: false,
  refcountOrder: 4,
};

const KNOWN_INCOMPATIBLE =
  INCOMPATIBLE_DIRTY |
  INCOMPATIBLE_CORRUPT |
  INCOMPATIBLE_DATA_FILE |
  INCOMPATIBLE_COMPRESSION_TYPE |
  INCOMPATIBLE_EXTENDED_L2;

/** Bytes 72 to 111 of a version 3 header. */
function readFeatures(header: Buffer, { refuse, require }: { refuse: Refuse; require: Require }): Features {
  const incompatible = header.readBigUInt64BE(72);
  const unknown = incompatible & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n) {
    refuse(
      'QCOW2_FEATURE_UNKNOWN',
      'incompatible_features',
      `needs unknown features, bits 0x${unknown.toString(16)}`,
    );
  }
  if ((incompatible & INCOMPATIBLE_DATA_FILE) !== 0n) {
    refuse('QCOW2_DATA_FILE', 'incompatible_features', 'keeps its data in an external file');
  }
  if ((incompatible & INCOMPATIBLE_CORRUPT) !== 0n) {
    refuse('QCOW2_MARKED_CORRUPT', 'incompatible_features', 'is marked as corrupt');
  }
  // Unknown compatible and autoclear bits may be ignored by a reader; those known are read.
  const autoclear = header.readBigUInt64BE(88);
  const refcountOrder = header.readUInt32BE(96);
  require(refcountOrder <= 6, 'refcount_order', `has refcounts of 2^${refcountOrder} bits`);
  const headerLength = header.readUInt32BE(100);

  const typed = (incompatible & INCOMPATIBLE_COMPRESSION_TYPE) !== 0n;
  const type = headerLength > 104 && header.length > 104 ? header.readUInt8(104) : 0;
  require(typed === (type !== 0), 'compression_type', 'has a compression type that contradicts its features');
  if (type > 1) {
    refuse('QCOW2_FEATURE_UNKNOWN', 'compression_type', `compresses by unknown method ${type}`);
  }
  return {
    headerLength,
    dirty: (incompatible & INCOMPATIBLE_DIRTY) !== 0n,
    extendedL2: (incompatible & INCOMPATIBLE_EXTENDED_L2) !== 0n,
    compression: type === 1 ? 'zstd' : 'zlib',
    lazyRefcounts: (header.readBigUInt64BE(80) & 1n) !== 0n,
    bitmapsConsistent: (autoclear & 1n) !== 0n,
    refcountOrder,
  };
}

/** The disk's size and the tables: within the limits, aligned, within the file, apart from each other. */
function readTables(
  header: Buffer,
  o: { clusterBytes: number; l2EntryBytes: number; fileBytes: number; require: Require },
): { sizeBytes: number; snapshots: number } {
  const { clusterBytes, require } = o;
  const size = header.readBigUInt64BE(24);
  const l1Entries = header.readUInt32BE(36);
  const tableSpanBytes = BigInt((clusterBytes / o.l2EntryBytes) * clusterBytes);
  const l1EntriesNeeded = (size + tableSpanBytes - 1n) / tableSpanBytes;
  require(l1EntriesNeeded <= BigInt(L1_BYTES_MAX / 8) &&
    size <=
      BigInt(
        Number.MAX_SAFE_INTEGER,
      ), 'size', `claims a disk of ${size} bytes, more than its clusters can describe`);
  require(l1Entries * 8 <= L1_BYTES_MAX, 'l1_size', `has an L1 table of ${l1Entries} entries`);
  require(BigInt(l1Entries) >=
    l1EntriesNeeded, 'l1_size', `has an L1 table of ${l1Entries} entries where ${l1EntriesNeeded} are needed`);

  const refcountTableClusters = header.readUInt32BE(56);
  require(refcountTableClusters > 0 &&
    refcountTableClusters * clusterBytes <=
      REFCOUNT_TABLE_BYTES_MAX, 'refcount_table_clusters', `has a refcount table of ${refcountTableClusters} clusters`);
  const snapshots = header.readUInt32BE(60);
  require(snapshots <= SNAPSHOTS_MAX, 'nb_snapshots', `has ${snapshots} snapshots`);

  const tables = [
    { field: 'header', at: 0n, bytes: clusterBytes },
    { field: 'l1_table_offset', at: header.readBigUInt64BE(40), bytes: l1Entries * 8 },
    {
      field: 'refcount_table_offset',
      at: header.readBigUInt64BE(48),
      bytes: refcountTableClusters * clusterBytes,
    },
    // The length of the snapshot table is not in the header: its first cluster must lie apart at least.
    { field: 'snapshots_offset', at: header.readBigUInt64BE(64), bytes: snapshots > 0 ? clusterBytes : 0 },
  ]
    .filter(({ bytes }) => bytes > 0)
    .sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  let endOfLast = 0n;
  for (const { field, at, bytes } of tables) {
    require(at % BigInt(clusterBytes) === 0n, field, `has its ${field} at ${at}, not at a cluster`);
    require(at < BigInt(o.fileBytes), field, `has its ${field} at ${at}, behind its end`);
    require(at >= endOfLast, field, `has its ${field} at ${at}, within another table`);
    endOfLast = at + BigInt(bytes);
  }
  return { sizeBytes: Number(size), snapshots };
}

function readBackingName(
  header: Buffer,
  o: { start: number; areaBytes: number; refuse: Refuse; require: Require },
): { text: string; offset: number } | null {
  const at = header.readBigUInt64BE(8);
  if (at === 0n) return null; // The length is undefined then.
  const length = header.readUInt32BE(16);
  o.require(
    length > 0 && length <= BACKING_NAME_BYTES_MAX,
    'backing_file_size',
    `has a backing name of ${length} bytes`,
  );
  o.require(
    at >= BigInt(o.start) && at + BigInt(length) <= BigInt(o.areaBytes),
    'backing_file_offset',
    `has its backing name at ${at}, outside the header's cluster`,
  );
  const offset = Number(at);
  const raw = header.subarray(offset, offset + length);
  const text = raw.toString('utf8');
  // A name that is not UTF-8 would come out as another name.
  o.require(Buffer.from(text, 'utf8').equals(raw), 'backing_file', 'has a backing name that is not UTF-8');
  const trouble = backingNameTrouble(text);
  if (trouble !== undefined) {
    o.refuse('QCOW2_BACKING_REFUSED', 'backing_file', `has a backing name that ${trouble}`);
  }
  return { text, offset };
}

function readExtensions(
  header: Buffer,
  o: { start: number; end: number; require: Require },
): { backingFormat: string | null; bitmaps: boolean; dataFile: boolean } {
  const seen = new Set<number>();
  let backingFormat: string | null = null;
  for (let at = o.start; at + 8 <= o.end; ) {
    const type = header.readUInt32BE(at);
    if (type === 0) break;
    const length = header.readUInt32BE(at + 4);
    o.require(
      length <= o.end - at - 8,
      'extensions',
      `has an extension of ${length} bytes at ${at}, too long`,
    );
    o.require(!seen.has(type), 'extensions', `has extension 0x${type.toString(16)} twice`);
    o.require(seen.size < EXTENSIONS_MAX, 'extensions', `has more than ${EXTENSIONS_MAX} extensions`);
    seen.add(type);
    if (type === BACKING_FORMAT_EXTENSION) {
      backingFormat = header.toString('latin1', at + 8, at + 8 + length);
      o.require(
        /^[a-zA-Z0-9_.-]{1,32}$/.test(backingFormat),
        'extensions',
        'has a backing format that is no name',
      );
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return { backingFormat, bitmaps: seen.has(BITMAPS_EXTENSION), dataFile: seen.has(DATA_FILE_EXTENSION) };
}
