import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildLabGuest, copyLabGuest } from '../lab/index.ts';
import { runCommand } from '../src/lib/processes.ts';
import { systemRandom, uuidOf } from '../src/lib/random.ts';

export interface DemoMachine {
  /** What `vm add --from` reads. */
  readonly descriptionPath: string;
  /** The guest's ledger port: the demonstration's own ear in the guest, no site listens there. */
  readonly ledgerPath: string;
}

/** Builds the lab guest and describes a machine with its two disks, whose NIC is on a bridge of this host if one is named. */
export async function describeLabMachine(
  directory: string,
  name: string,
  { mac = '52:54:00:77:00:01', bridge }: { mac?: string; bridge?: string } = {},
): Promise<DemoMachine> {
  const guest = await copyLabGuest(await buildLabGuest(), directory);
  const ledgerPath = join(directory, 'ledger');
  const files = { system: guest.systemDisk, data: guest.dataDisk };
  const disks = await Promise.all(
    Object.entries(files).map(async ([diskId, path]) => ({
      diskId,
      path,
      sizeBytes: await virtualSize(path),
    })),
  );
  const description = {
    configuration: {
      name,
      uuid: uuidOf(systemRandom),
      architecture: 'x86_64',
      chipset: 'q35',
      firmware: 'bios',
      cpus: 1,
      memoryBytes: 256 * 1024 * 1024,
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
      nics: [{ nicId: 'net0', model: 'virtio-net-pci', mac, network: 'production' }],
      guestAgent: true,
    },
    disks: disks.map(({ diskId, path }) => ({ diskId, path, format: 'qcow2' })),
    ...(bridge ? { networks: { net0: { kind: 'bridge', bridge } } } : {}),
    extraArguments: [
      ...['-chardev', `socket,id=ledger,path=${ledgerPath},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=ledger,name=org.warmsite.ledger'],
    ],
  };
  const descriptionPath = join(directory, `${name}.json`);
  await writeFile(descriptionPath, JSON.stringify(description, null, 2));
  return { descriptionPath, ledgerPath };
}

async function virtualSize(path: string): Promise<number> {
  const { stdout } = await runCommand('qemu-img', ['info', '-f', 'qcow2', '--output=json', path]);
  return (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'];
}
