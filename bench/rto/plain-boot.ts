import { type LabDisk, startLabMachine } from '../../lab/index.ts';
import { connectGuest } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';

/** What a person would do by hand: QEMU on these images, with the devices that the machine has. Resolves with what it took until the agent answered. */
export async function bootDisks(directory: string, disks: readonly LabDisk[]): Promise<number> {
  const nic = ['-netdev', 'hubport,id=lan,hubid=1', '-device', 'virtio-net-pci,netdev=lan'];
  const startMs = systemClock.monotonicMs();
  await using machine = await startLabMachine({ directory, disks, extraArgs: nic });
  await machine.agentReady();
  const { qmpPath, agentPath } = machine;
  await using guest = await connectGuest({ qmpPath, agentPath }, { clock: systemClock, timeoutMs: 10_000 });
  await guest.ping();
  return systemClock.monotonicMs() - startMs;
}
