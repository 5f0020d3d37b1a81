import type { RunningMachine } from '../../src/hypervisor/index.ts';
import { pivot } from '../../src/hypervisor/pivot.ts';
import { PivotGuard } from '../../src/hypervisor/qemu/pivot-guard.ts';
import { PivotedQemu } from '../../src/hypervisor/qemu/pivoted-qemu.ts';
import { QemuMachine } from '../../src/hypervisor/qemu/qemu-machine.ts';
import { assert } from '../../src/lib/assert.ts';
import { systemClock as clock } from '../../src/lib/clock.ts';
import { nodeFiles as files } from '../../src/lib/node-files.ts';

/** How far a pivot has come when it hangs: which disks have changed over, and whether that is said. */
export const PIVOT_STEPS = ['none', 'one', 'all', 'said'] as const;
export type PivotStep = (typeof PIVOT_STEPS)[number];

/** From now on a pivot of the machine, with its real guard, stops at this step for ever and calls `hangs`. */
export function pivotHangsAt(running: RunningMachine, step: PivotStep, hangs: () => void): void {
  assert(running instanceof QemuMachine, 'a pivot of QEMU hangs');
  const { monitor, sockets } = running;
  const qemu = new PivotedQemu(monitor);
  running.pivot = (pivots, options) => {
    const last = pivots.at(-1)!.deviceName;
    const ended: Promise<void>[] = [];
    const hang = async (): Promise<never> => {
      await Promise.all(ended);
      hangs();
      return new Promise(() => undefined);
    };
    const machine = {
      state: () => qemu.state(),
      disks: () => qemu.disks(),
      pause: () => qemu.pause(),
      resume: () => (step === 'said' ? hang() : qemu.resume()),
      abandonCommit: (deviceName: string) => (step === 'all' ? hang() : qemu.abandonCommit(deviceName)),
      completeCommit: (deviceName: string) => {
        if (deviceName === last && (step === 'none' || step === 'one')) return hang();
        if (step === 'none') return new Promise<void>(() => undefined);
        const end = qemu.completeCommit(deviceName);
        ended.push(end);
        return end;
      },
    };
    const orders = { qmpPath: sockets.qmpPath, pivots, options };
    const guard = () => PivotGuard.start({ orders, clock });
    return pivot({ machine, pivots, files, clock, guard, options });
  };
}
