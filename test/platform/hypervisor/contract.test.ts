/** QEMU, in the part of a hypervisor. What a guest would write is written through QEMU's own `qemu-io`; nothing boots. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { endRun, type ImageFile, QemuHypervisor, QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { createEmptyLayer } from '../../../src/qcow2/index.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { hypervisorContract, type MachineUnderTest } from '../../contract/hypervisor.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const SIZES = { one: 16 * 1024 * 1024, two: 1_053_184 };

hypervisorContract('QemuHypervisor', makeMachine);

async function makeMachine(t: CleanUp): Promise<MachineUnderTest> {
  const directory = await temporaryDirectory(t);
  t.after(() => endRun(directory, clock));
  const hypervisor = new QemuHypervisor({ clock });
  let layers = 0;
  const sizes = new Map<string, number>();
  const newFile = async (sizeBytes: number, below: ImageFile | null): Promise<ImageFile> => {
    const path = join(directory, `layer-${layers++}.qcow2`);
    const backing = below && { name: below.path, format: below.format };
    await createEmptyLayer(nodeFiles, path, { sizeBytes, backing }, { sync: true });
    sizes.set(path, sizeBytes);
    return { path, format: 'qcow2' };
  };
  const monitorPath = join(directory, 'test-monitor');
  const running = await hypervisor.start({
    configuration: {
      ...{ name: 'contract', uuid: '6a1c5a5e-0000-4000-8000-00000000000c', architecture: 'x86_64' },
      ...{
        chipset: 'q35',
        firmware: 'bios',
        cpus: 1,
        memoryBytes: 16 * 1024 * 1024,
        nics: [],
        guestAgent: false,
      },
      disks: Object.entries(SIZES).map(([diskId, sizeBytes]) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
    },
    disks: { one: [await newFile(SIZES.one, null)], two: [await newFile(SIZES.two, null)] },
    runDirectory: directory,
    extraArguments: [
      ...['-chardev', `socket,id=test,path=${monitorPath},server=on,wait=off`],
      ...['-mon', 'chardev=test,mode=control'],
    ],
  });
  const monitor = await QmpClient.connect({ path: monitorPath, clock });
  t.after(() => monitor.close());
  const [one, two] = ['one', 'two'].map((id) => `/machine/peripheral/dev-${id}/virtio-backend`);
  return {
    ...{ hypervisor, files: nodeFiles, images: new QemuImages({ clock }), running, one: one!, two: two! },
    newLayer: (below) => newFile(sizes.get(below.path)!, below),
    async write(deviceName, offset, length, fill) {
      const command = `qemu-io -d ${deviceName} "write -P ${fill} ${offset} ${length}"`;
      const said = await monitor.execute<string>('human-monitor-command', { 'command-line': command });
      assert.doesNotMatch(said, /error|fail/i);
    },
  };
}
