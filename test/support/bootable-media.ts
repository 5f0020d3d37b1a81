import { Buffer } from 'node:buffer';

/**
 * What firmware starts from: a CD and the first sector of a disk, with a program of sixteen bits in each that says on the serial console
 * where it was started from, and what text the first disk holds.
 */

const SECTOR = 2048;
const LOADED_AT = 0x7c00;
/** Where the first sector of the disk is read to. */
const READ_TO = 0x8000;
/** Of the text in the first sector of a disk; behind it lie 62 bytes up to the table of partitions. */
const TEXT_AT = 0x180;
const TEXT_BYTES_MAX = 61;

const word = (value: number): [number, number] => [value & 0xff, value >> 8];
const text = (said: string): number[] => [...Buffer.from(said, 'latin1'), 0];

/** `print`: writes the text at DS:SI to the first serial port, and returns at its zero. */
const PRINT = [
  ...[0xac, 0x84, 0xc0, 0x74, 0x12], // next: lodsb; test al, al; jz done
  ...[0x88, 0xc4, 0xba, ...word(0x3fd)], // mov ah, al; mov dx, the line status
  ...[0xec, 0xa8, 0x20, 0x74, 0xfb], // full: in al, dx; test al, 0x20; jz full
  ...[0x88, 0xe0, 0xba, ...word(0x3f8), 0xee], // mov al, ah; mov dx, the data; out dx, al
  ...[0xeb, 0xe9, 0xc3], // jmp next; done: ret
];

/** Says `said`, and the text of the first disk, or that there is none; then the processor waits for ever. */
function program(said: string): Buffer {
  const start = [
    ...[0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0], // cli; cld; ds, es, ss := 0
    ...[0xbc, ...word(LOADED_AT), 0xfb], // mov sp; sti
  ];
  const read = [
    ...[0xb8, ...word(0x0201), 0xbb, ...word(READ_TO)], // one sector, to es:bx,
    ...[0xb9, ...word(1), 0xba, ...word(0x80), 0xcd, 0x13], // the first one of the first disk
  ];
  // Each is a mov of three bytes, and a call of three.
  const sayAt = (address: number) => [0xbe, ...word(address), 0xe8];
  const skipped = [0x73, 0x03]; // jnc past the mov that follows
  const rest = [0xf4, 0xeb, 0xfd]; // wait: hlt; jmp wait
  const printAt = start.length + 6 + read.length + 3 + skipped.length + 6 + 6 + rest.length;
  const saidAt = LOADED_AT + printAt + PRINT.length;
  const noneAt = saidAt + text(said).length;
  const endAt = noneAt + text('no disk').length;
  const code: number[] = [...start];
  const call = (address: number) => {
    code.push(...sayAt(address));
    code.push(...word((printAt - code.length - 2) & 0xffff));
  };
  call(saidAt);
  code.push(...read, 0xbe, ...word(READ_TO + TEXT_AT), ...skipped);
  call(noneAt);
  call(endAt);
  code.push(...rest, ...PRINT, ...text(said), ...text('no disk'), ...text('\r\n'));
  return Buffer.from(code);
}

/** The first sector of a disk that says «started from the disk: » and then the text. */
export function bootSector(held: string): Buffer {
  const sector = Buffer.alloc(512);
  program('started from the disk: ').copy(sector);
  if (held.length > TEXT_BYTES_MAX) throw new Error('the text does not fit');
  sector.write(held, TEXT_AT, 'latin1');
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

const [DESCRIPTOR, CATALOG, PROGRAM, ROOT, TABLES, SECTORS] = [16, 19, 20, 21, 22, 24] as const;

/**
 * A CD image (ISO 9660, ECMA-119) without files that firmware boots by El Torito, without emulation: what it starts says
 * «started from the CD: » and then the text of the first disk.
 */
export function bootableCd(): Buffer {
  const image = Buffer.alloc(SECTORS * SECTOR);
  const sector = (index: number) => image.subarray(index * SECTOR, (index + 1) * SECTOR);
  primary(sector(DESCRIPTOR));
  const boot = sector(DESCRIPTOR + 1);
  boot.write('\x00CD001\x01EL TORITO SPECIFICATION', 0, 'latin1');
  boot.writeUInt32LE(CATALOG, 0x47);
  sector(DESCRIPTOR + 2).write('\xffCD001\x01', 0, 'latin1');
  catalog(sector(CATALOG));
  program('started from the CD: ').copy(sector(PROGRAM));
  // The root directory holds itself and its parent, which it is.
  directory('\0').copy(sector(ROOT));
  directory('\x01').copy(sector(ROOT), directory('\0').length);
  for (const [index, isBigEndian] of [false, true].entries()) {
    const table = sector(TABLES + index);
    table[0] = 1;
    if (isBigEndian) {
      table.writeUInt32BE(ROOT, 2);
      table.writeUInt16BE(1, 6);
    } else {
      table.writeUInt32LE(ROOT, 2);
      table.writeUInt16LE(1, 6);
    }
  }
  return image;
}

/** The descriptor by which systems read it. */
function primary(sector: Buffer): void {
  sector.write('\x01CD001\x01', 0, 'latin1');
  sector.write(' '.repeat(32), 8);
  sector.write('BOOTS'.padEnd(32), 40);
  both32(sector, 80, SECTORS);
  for (const at of [120, 124]) both16(sector, at, 1);
  both16(sector, 128, SECTOR);
  both32(sector, 132, 10);
  sector.writeUInt32LE(TABLES, 140);
  sector.writeUInt32BE(TABLES + 1, 148);
  directory('\0').copy(sector, 156);
  sector.write(' '.repeat(623), 190);
  // Times that are not said: zeros as digits.
  for (const at of [813, 830, 847, 864]) sector.write('0'.repeat(16), at);
  sector[881] = 1;
}

/** A record of the root directory, which bears this name. */
function directory(name: string): Buffer {
  const record = Buffer.alloc(34);
  record[0] = record.length;
  both32(record, 2, ROOT);
  both32(record, 10, SECTOR);
  record[25] = 2;
  both16(record, 28, 1);
  record[32] = 1;
  record.write(name, 33, 'latin1');
  return record;
}

/** What firmware may start: one program of four sectors of 512 bytes, loaded where programs of disks are. */
function catalog(sector: Buffer): void {
  sector[0] = 1;
  sector.writeUInt16LE(0xaa55, 30);
  let sum = 0;
  for (let at = 0; at < 32; at += 2) sum += sector.readUInt16LE(at);
  sector.writeUInt16LE(-sum & 0xffff, 28);
  sector[32] = 0x88;
  sector.writeUInt16LE(SECTOR / 512, 38);
  sector.writeUInt32LE(PROGRAM, 40);
}

function both16(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt16LE(value, at);
  bytes.writeUInt16BE(value, at + 2);
}

function both32(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value, at);
  bytes.writeUInt32BE(value, at + 4);
}
