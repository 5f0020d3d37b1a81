import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, withTimeout } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { type CommandResult, runCommand } from '../../lib/processes.ts';
import { hypervisorFailure } from '../errors.ts';

/** The exit code of a machine that wrote 0x10 to the isa-debug-exit port: (0x10 << 1) | 1. */
const PROBE_EXIT_CODE = 33;
const PROBE_LIMIT_MS = 15_000;

/**
 * Whether guests run under KVM here, found out by running one: a boot sector of a few bytes that ends its
 * machine through QEMU's debug-exit port. `/dev/kvm` alone proves nothing: it may exist and refuse, or
 * accept and then stop every guest (nested hosts).
 */
export async function probeAcceleration(
  clock: Clock,
): Promise<{ accelerator: 'kvm' | 'tcg'; reason?: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-kvm-'));
  try {
    const disk = join(directory, 'boot');
    await writeFile(disk, bootSector());
    const { exitCode, stderr } = await withTimeout(
      clock,
      PROBE_LIMIT_MS,
      (signal) => runProbe(disk, signal),
      () =>
        hypervisorFailure(
          'MACHINE_START_FAILED',
          `a test guest under KVM said nothing for ${PROBE_LIMIT_MS} ms`,
        ),
    );
    if (exitCode === PROBE_EXIT_CODE) return { accelerator: 'kvm' };
    return {
      accelerator: 'tcg',
      reason: stderr.trim().split('\n').at(-1) || `a test guest ended with ${exitCode}`,
    };
  } catch (error) {
    return { accelerator: 'tcg', reason: messageOf(error) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function runProbe(disk: string, signal: AbortSignal): Promise<CommandResult> {
  return runCommand(
    'qemu-system-x86_64',
    [
      ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ['-machine', 'pc,accel=kvm', '-cpu', 'host', '-m', '16M'],
      ['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04'],
      ['-drive', `if=ide,format=raw,readonly=off,snapshot=on,file=${disk}`],
    ].flat(),
    { allowExit: [1, PROBE_EXIT_CODE, 134, 128], signal },
  );
}

/** mov al, 0x10; out 0xf4, al; hlt; jmp back to hlt; signature. */
function bootSector(): Buffer {
  const sector = Buffer.alloc(512);
  Buffer.from([0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]).copy(sector);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}
