import type { ImageFile } from '../../../src/hypervisor/index.ts';
import { createEmptyLayer } from '../../../src/qcow2/index.ts';
import { hypervisorContract } from '../../contract/hypervisor.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { type FakeHost, FakeHypervisor } from '../../support/fake-hypervisor.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { FakeMachine } from '../../support/fake-machine.ts';

const SIZES = { one: 16 * 1024 * 1024, two: 1_053_184 };

hypervisorContract('FakeHypervisor', async () => {
  const files = new SimFiles(new SimDisk());
  const locks = new ImageLocks();
  await files.makeDirectory('/disks');
  let layers = 0;
  const sizes = new Map<string, number>();
  const newFile = async (sizeBytes: number, below: ImageFile | null): Promise<ImageFile> => {
    const path = `/disks/layer-${layers++}.qcow2`;
    const backing = below && { name: below.path, format: below.format };
    await createEmptyLayer(files, path, { sizeBytes, backing }, { sync: true });
    sizes.set(path, sizeBytes);
    return { path, format: 'qcow2' };
  };
  const host: FakeHost = {
    machines: new Map(),
    start: async ({ qmpPath }, disks) => {
      const machine = await FakeMachine.start({ files, locks, process: AT_ONCE, disks });
      host.machines.set(qmpPath, machine);
      return machine;
    },
  };
  const mishap = (command: string) => (command === 'freeze' ? ('refused' as const) : undefined);
  const hypervisor = new FakeHypervisor({ host, actor: AT_ONCE, mishap });
  const running = await hypervisor.start({
    configuration: {
      ...{ name: 'contract', uuid: '6a1c5a5e-0000-4000-8000-00000000000c', architecture: 'x86_64' },
      ...{ chipset: 'q35', firmware: 'bios', cpus: 1, memoryBytes: 2 ** 24, nics: [], guestAgent: false },
      disks: Object.entries(SIZES).map(([diskId, sizeBytes]) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
    },
    disks: { one: [await newFile(SIZES.one, null)], two: [await newFile(SIZES.two, null)] },
    runDirectory: '/run',
  });
  return {
    ...{ hypervisor, files, images: new FakeImages({ files, locks }), running },
    ...{ one: 'drive-one', two: 'drive-two' },
    newLayer: (below) => newFile(sizes.get(below.path)!, below),
    write: (deviceName, offset, length, fill) =>
      host.machines.get('/run/qmp')!.guestWrite(deviceName, offset, Buffer.alloc(length, fill)),
  };
});
