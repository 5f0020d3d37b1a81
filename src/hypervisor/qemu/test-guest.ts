/**
 * A guest of one boot sector that does what boot loaders and kernels do on their way up, each of which some nested KVM cannot do
 * for its guests: from real mode into protected mode, a return from an interrupt there, tables of pages, long mode. Then it
 * says its word on the debug console and ends its machine. Source of the steps: Intel 64 and IA-32 Software Developer's Manual,
 * volume 3, «Mode Switching».
 */

/** What the guest says when it has come through. */
export const TEST_GUEST_WORD = 'k';
/** Where it says it (isa-debugcon), and the port that ends its machine (isa-debug-exit). */
export const TEST_GUEST_PORTS = { word: 0xe9, exit: 0xf4 } as const;

const SECTOR_BYTES = 512;
const SIGNATURE = 0xaa55;

/** Loaded at 0x7c00. */
const CODE = [
  // Real mode.
  'fa', // cli
  '31 c0', // xor ax, ax
  '8e d8', // mov ds, ax
  '66 0f 01 16 b8 7c', // lgdt [0x7cb8]
  '0f 20 c0', // mov eax, cr0
  '0c 01', // or al, 1: protection
  '0f 22 c0', // mov cr0, eax
  'ea 18 7c 08 00', // jmp 0x08:0x7c18
  // Protected mode.
  '66 b8 10 00', // mov ax, 0x10
  '8e d8', // mov ds, ax
  '8e c0', // mov es, ax
  '8e d0', // mov ss, ax
  'bc 00 70 00 00', // mov esp, 0x7000
  '9c', // pushfd
  '6a 08', // push 0x08
  '68 30 7c 00 00', // push 0x7c30
  'cf', // iretd: to the next instruction
  // Tables at 0x1000, 0x2000 and 0x3000: the first 2 MiB are mapped to themselves.
  '31 c0', // xor eax, eax
  'bf 00 10 00 00', // mov edi, 0x1000
  'b9 00 0c 00 00', // mov ecx, 0xc00
  'f3 ab', // rep stosd
  'c6 05 00 10 00 00 03', // mov byte [0x1000], 0x03: present, writable
  'c6 05 01 10 00 00 20', // mov byte [0x1001], 0x20
  'c6 05 00 20 00 00 03', // mov byte [0x2000], 0x03
  'c6 05 01 20 00 00 30', // mov byte [0x2001], 0x30
  'c6 05 00 30 00 00 83', // mov byte [0x3000], 0x83: and a large page
  'b8 00 10 00 00', // mov eax, 0x1000
  '0f 22 d8', // mov cr3, eax
  'b8 20 00 00 00', // mov eax, 0x20
  '0f 22 e0', // mov cr4, eax: physical address extension
  'b9 80 00 00 c0', // mov ecx, 0xc0000080: EFER
  '0f 32', // rdmsr
  '0f ba e8 08', // bts eax, 8: long mode
  '0f 30', // wrmsr
  '0f 20 c0', // mov eax, cr0
  '0f ba e8 1f', // bts eax, 31: paging
  '0f 22 c0', // mov cr0, eax
  'ea 8f 7c 00 00 18 00', // jmp 0x18:0x7c8f
  // Long mode.
  'b0 6b', // mov al, 'k'
  'e6 e9', // out 0xe9, al
  'e6 f4', // out 0xf4, al
  'f4', // hlt
  'eb fd', // jmp to the hlt
  // The segments at 0x7c98: none, code of 32 bits, data, code of 64 bits.
  '00 00 00 00 00 00 00 00',
  'ff ff 00 00 00 9b cf 00',
  'ff ff 00 00 00 93 cf 00',
  'ff ff 00 00 00 9b af 00',
  // At 0x7cb8, for lgdt: how long they are, less one, and where.
  '1f 00 98 7c 00 00',
];

/** The guest as the boot sector of a disk, brought up by the machine's firmware. */
export function testGuestSector(): Buffer {
  const sector = Buffer.alloc(SECTOR_BYTES);
  bytesOf(CODE).copy(sector);
  sector.writeUInt16LE(SIGNATURE, SECTOR_BYTES - 2);
  return sector;
}

/** It stands at 0xf0000, and a processor begins 16 bytes before its end. */
const ROM_BYTES = 65_536;
const RESET_OFFSET = ROM_BYTES - 16;
const LOADER_OFFSET = SECTOR_BYTES;

/** In real mode: what a firmware does for a boot sector, and nothing else. */
const LOADER = [
  'fa', // cli
  'fc', // cld
  '8c c8', // mov ax, cs
  '8e d8', // mov ds, ax
  '31 f6', // xor si, si
  '31 c0', // xor ax, ax
  '8e c0', // mov es, ax
  'bf 00 7c', // mov di, 0x7c00
  'b9 00 01', // mov cx, 0x100
  'f3 a5', // rep movsw
  'ea 00 7c 00 00', // jmp 0x0000:0x7c00
];
const RESET = ['ea 00 02 00 f0']; // jmp 0xf000:0x0200, which is LOADER_OFFSET

/** The same guest in the place of the firmware. */
export function testGuestRom(): Buffer {
  const rom = Buffer.alloc(ROM_BYTES);
  testGuestSector().copy(rom);
  bytesOf(LOADER).copy(rom, LOADER_OFFSET);
  bytesOf(RESET).copy(rom, RESET_OFFSET);
  return rom;
}

function bytesOf(code: readonly string[]): Buffer {
  return Buffer.from(code.join('').replaceAll(' ', ''), 'hex');
}
