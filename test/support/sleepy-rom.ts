/** What goes to sleep as soon as its power comes, and, woken up, goes on for ever: a firmware and a guest in one, for q35. */

const ROM_BYTES = 64 * 1024;
/** Where a processor begins, and what it does there: it jumps to the first byte. */
const RESET = { at: ROM_BYTES - 16, code: [0xe9, 0x0d, 0x00] };

/** The I/O ports of power management, which the firmware is free to choose. */
const PM_BASE = 0x600;
/** SLP_EN with the type that QEMU has for S3 (ACPI 6.5, 4.8.4.2; QEMU hw/acpi/core.c). */
const SUSPEND = 0x2400;
const PCI_ADDRESS = 0xcf8;
const PCI_DATA = 0xcfc;
/** PMBASE and ACPI_CNTL of the LPC bridge, device 1f.0 (Intel ICH9 datasheet, 13.1). */
const PMBASE = 0x8000_f840;
const ACPI_CNTL = 0x8000_f844;

const low = (value: number) => [value & 0xff, (value >>> 8) & 0xff];
const all = (value: number) => [...low(value), ...low(value >>> 16)];
/** mov eax, imm32; mov dx, imm16; out dx, eax */
const out32 = (port: number, value: number) => [0x66, 0xb8, ...all(value), 0xba, ...low(port), 0x66, 0xef];
/** mov al, imm8; mov dx, imm16; out dx, al */
const out8 = (port: number, value: number) => [0xb0, value, 0xba, ...low(port), 0xee];
/** mov ax, imm16; mov dx, imm16; out dx, ax */
const out16 = (port: number, value: number) => [0xb8, ...low(value), 0xba, ...low(port), 0xef];

export function sleepyRom(): Buffer {
  const suspends = [
    // mov byte [0x500], 0xa5: memory outlives the sleep.
    ...[0xc6, 0x06, 0x00, 0x05, 0xa5],
    ...[...out32(PCI_ADDRESS, PMBASE), ...out32(PCI_DATA, PM_BASE | 1)],
    ...[...out32(PCI_ADDRESS, ACPI_CNTL), ...out8(PCI_DATA, 0x80)],
    ...out16(PM_BASE + 4, SUSPEND),
  ];
  const rom = Buffer.alloc(ROM_BYTES);
  rom.set([
    // xor ax, ax; mov ds, ax; cmp byte [0x500], 0xa5; je over what suspends
    ...[0x31, 0xc0, 0x8e, 0xd8, 0x80, 0x3e, 0x00, 0x05, 0xa5, 0x74, suspends.length],
    ...suspends,
    // jmp $
    ...[0xeb, 0xfe],
  ]);
  rom.set(RESET.code, RESET.at);
  return rom;
}
