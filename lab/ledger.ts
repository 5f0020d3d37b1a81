import { crc32 } from 'node:zlib';

/** Reads one striped area; offsets count from the beginning of the area. */
export interface AreaReader {
  /** Exactly `length` bytes at `offset`; the area is that long. */
  read(offset: number, length: number): Promise<Buffer>;
}

export interface LedgerCheck {
  /** The largest seq of a sound record, 0 for an empty ledger. */
  readonly last: number;
  /** Sound records seen. */
  readonly records: number;
  /** Whether the areas hold exactly one run of records ending in `last`, all sound, and nothing else. */
  readonly contiguous: boolean;
  /** The guest's wall clock in the last record. */
  readonly lastUnixMs?: number;
  /** The first thing that is wrong, in order of place. */
  readonly firstBad?: LedgerFault;
}

export interface LedgerFault {
  readonly device: number;
  readonly slot: number;
  readonly why: string;
}

export const RECORD_BYTES = 512;
const MAGIC = Buffer.from('WSLEDGR1');
const CRC_OFFSET = 508;
const CHUNK_BYTES = 1024 * 1024;
const EMPTY = Buffer.alloc(RECORD_BYTES);

export interface LedgerRecord {
  readonly seq: number;
  readonly unixMs: number;
  readonly devices: number;
}

/** One sector, as labtool.c describes it; undefined if any bit of it is not what the writer wrote. */
export function decodeLedgerRecord(sector: Buffer): LedgerRecord | undefined {
  if (sector.length !== RECORD_BYTES || !sector.subarray(0, 8).equals(MAGIC)) return undefined;
  if (sector.readUInt32LE(CRC_OFFSET) !== crc32(sector.subarray(0, CRC_OFFSET))) return undefined;
  const seq = sector.readBigUInt64LE(8);
  const unixMs = sector.readBigUInt64LE(16);
  const devices = sector.readUInt32LE(24);
  if (seq < 1n || seq > BigInt(Number.MAX_SAFE_INTEGER) || unixMs > BigInt(Number.MAX_SAFE_INTEGER))
    return undefined;
  return { seq: Number(seq), unixMs: Number(unixMs), devices };
}

/** The sector that holds a record. The filler is the checker's business only through the checksum. */
export function encodeLedgerRecord(record: LedgerRecord): Buffer {
  const sector = Buffer.alloc(RECORD_BYTES, record.seq & 0xff);
  MAGIC.copy(sector);
  sector.writeBigUInt64LE(BigInt(record.seq), 8);
  sector.writeBigUInt64LE(BigInt(record.unixMs), 16);
  sector.writeUInt32LE(record.devices, 24);
  sector.writeUInt32LE(crc32(sector.subarray(0, CRC_OFFSET)), CRC_OFFSET);
  return sector;
}

/**
 * The prefix property. The writer has one write under way at a time and goes round the areas as a ring, so at
 * any one instant they hold the newest min(k, room) of the records 1…k, each in its place, and a slot that was
 * never reached is all zero. A copy that holds anything else was not taken at one instant or lost a write.
 *
 * `readers` are the areas in the order of striping; `areaBytes` is the size of the smallest one, which bounds
 * the room used in each. Any bytes may be read; the verdict is returned, never thrown. What `read` throws is.
 */
export async function checkLedger(readers: readonly AreaReader[], areaBytes: number): Promise<LedgerCheck> {
  const slots = Math.floor(areaBytes / RECORD_BYTES);
  const devices = readers.length;
  const room = slots * devices;
  let last = 0;
  let lastUnixMs: number | undefined;
  let smallest = Number.POSITIVE_INFINITY;
  let records = 0;
  let firstBad: LedgerFault | undefined;
  const findFault = (device: number, slot: number, sector: Buffer): string | undefined => {
    if (sector.equals(EMPTY)) return undefined;
    const record = decodeLedgerRecord(sector);
    if (!record) return 'torn or foreign: magic or checksum is wrong';
    if (record.devices !== devices) return `written for ${record.devices} devices, checked over ${devices}`;
    records++;
    smallest = Math.min(smallest, record.seq);
    if (record.seq > last) {
      last = record.seq;
      lastUnixMs = record.unixMs;
    }
    const place = placeOf(record.seq, devices, slots);
    if (place.device !== device || place.slot !== slot) return `record ${record.seq} is in another's place`;
    return undefined;
  };
  for (const [device, reader] of readers.entries()) {
    await forEachSlot(reader, slots, (slot, sector) => {
      const why = findFault(device, slot, sector);
      if (why !== undefined) firstBad ??= { device, slot, why };
    });
  }
  // Each sound record is in the only place that its seq can have, and no two share one. If there are as many as
  // the run should hold and the oldest is the run's first, nothing is missing and nothing old is left.
  if (firstBad === undefined && last > 0) {
    const first = Math.max(1, last - room + 1);
    if (smallest < first || records !== last - first + 1) {
      firstBad = await findGap(readers, slots, first, last);
    }
  }
  return {
    last,
    records,
    contiguous: firstBad === undefined,
    ...(lastUnixMs === undefined ? {} : { lastUnixMs }),
    ...(firstBad === undefined ? {} : { firstBad }),
  };
}

function placeOf(seq: number, devices: number, slots: number): { device: number; slot: number } {
  return { device: (seq - 1) % devices, slot: Math.floor((seq - 1) / devices) % slots };
}

async function forEachSlot(
  reader: AreaReader,
  slots: number,
  visit: (slot: number, sector: Buffer) => void,
): Promise<void> {
  const step = CHUNK_BYTES / RECORD_BYTES;
  for (let from = 0; from < slots; from += step) {
    const count = Math.min(step, slots - from);
    const chunk = await reader.read(from * RECORD_BYTES, count * RECORD_BYTES);
    for (let i = 0; i < count; i++) {
      visit(from + i, chunk.subarray(i * RECORD_BYTES, (i + 1) * RECORD_BYTES));
    }
  }
}

/** The place, the first in order, that does not hold the one record of first…last that belongs there. */
async function findGap(
  readers: readonly AreaReader[],
  slots: number,
  first: number,
  last: number,
): Promise<LedgerFault | undefined> {
  const devices = readers.length;
  const room = slots * devices;
  let fault: LedgerFault | undefined;
  for (const [device, reader] of readers.entries()) {
    await forEachSlot(reader, slots, (slot, sector) => {
      if (fault) return;
      // The only seq of the last `room` ones that has this place.
      const position = slot * devices + device + 1;
      const expected = position + Math.floor((last - position) / room) * room;
      const seq = decodeLedgerRecord(sector)?.seq;
      const wanted = expected >= first && expected <= last ? expected : undefined;
      if (seq === wanted) return;
      const why =
        seq === undefined
          ? `record ${wanted} is missing though ${last} is there`
          : `record ${seq} is left over where ${wanted ?? 'nothing'} belongs`;
      fault = { device, slot, why };
    });
  }
  return fault;
}

/** A partition of an MBR disk in bytes; undefined if the table does not list it (index from 1 to 4). */
export async function partitionArea(
  read: (offset: number, length: number) => Promise<Buffer>,
  index: 1 | 2 | 3 | 4,
): Promise<{ offset: number; length: number } | undefined> {
  const sector = await read(0, 512);
  if (sector.length < 512 || sector.readUInt16LE(510) !== 0xaa55) return undefined;
  const entry = sector.subarray(446 + (index - 1) * 16, 446 + index * 16);
  const offset = entry.readUInt32LE(8) * 512;
  const length = entry.readUInt32LE(12) * 512;
  return entry[4] === 0 || length === 0 ? undefined : { offset, length };
}

/**
 * Checks the ledger of a machine by its whole disks, in the order of striping, each with the number of its
 * ledger partition (`LEDGER_AREAS` in build-guest.ts). A disk without that partition is a fault, too.
 */
export async function checkLedgerDisks(
  disks: readonly { read(offset: number, length: number): Promise<Buffer>; partition: 1 | 2 | 3 | 4 }[],
): Promise<LedgerCheck> {
  const readers: AreaReader[] = [];
  let areaBytes = Number.POSITIVE_INFINITY;
  for (const [device, disk] of disks.entries()) {
    const area = await partitionArea((offset, length) => disk.read(offset, length), disk.partition);
    if (!area) {
      const firstBad = { device, slot: 0, why: `the disk has no partition ${disk.partition}` };
      return { last: 0, records: 0, contiguous: false, firstBad };
    }
    areaBytes = Math.min(areaBytes, area.length);
    readers.push({ read: (offset, length) => disk.read(area.offset + offset, length) });
  }
  return checkLedger(readers, areaBytes);
}
