import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildLabGuest, copyLabGuest } from '../../lab/index.ts';
import { runCommand } from '../../src/lib/processes.ts';
import type { TestApi } from './api.ts';
import { pairedSites } from './paired-sites.ts';
import { BY_HAND, verifiedCopy } from './site-of-box.ts';
import type { CleanUp } from './temporary.ts';

/** A machine of the shop: what its guest says is the text of `lab/guest/tier`. */
export interface ShopMachine {
  readonly name: string;
  /** With prefix length. */
  readonly address: string;
  /** Address of the one that it asks. */
  readonly behind?: string;
  readonly mac: string;
  /** Beside its system and its data. */
  readonly extraDisks?: readonly {
    readonly diskId: string;
    readonly path: string;
    readonly format: 'qcow2' | 'raw';
  }[];
}

export const SHOP_MACHINES = [
  { name: 'db', address: '10.77.0.2/24', mac: '52:54:00:77:02:01' },
  { name: 'web', address: '10.77.0.3/24', behind: '10.77.0.2', mac: '52:54:00:77:02:02' },
] as const satisfies readonly ShopMachine[];

/** Two sites, and machines of the first that are off, whose guests ask each other by TCP; the second one has a point of each. */
export async function sitesWithShop(context: CleanUp, machines: readonly ShopMachine[] = SHOP_MACHINES) {
  const sites = await pairedSites(context);
  await addShop(sites, machines);
  return sites;
}

/** The machines at the first of two paired sites, and a point of each at the second. */
export async function addShop(
  sites: { readonly directory: string; readonly homeApi: TestApi },
  machines: readonly ShopMachine[],
): Promise<void> {
  for (const [index, machine] of machines.entries()) {
    const { name, mac } = machine;
    const directory = join(sites.directory, `shop-${name}`);
    const { systemDisk, dataDisk } = await labDisksFor(directory, machine);
    const disks = [
      { diskId: 'system', path: systemDisk, format: 'qcow2' as const },
      { diskId: 'data', path: dataDisk, format: 'qcow2' as const },
      ...(machine.extraDisks ?? []),
    ];
    await sites.homeApi.call('vm.add', {
      body: {
        configuration: {
          ...{ name, uuid: `6f1f2c3e-0d2a-4b5e-8f7a-0123456780${10 + index}` },
          ...{ architecture: 'x86_64', chipset: 'q35', firmware: 'bios', cpus: 1 },
          ...{ memoryBytes: 256 * 1024 * 1024, guestAgent: true },
          disks: await Promise.all(
            disks.map(async ({ diskId, path, format }) => ({
              ...{ diskId, bus: 'virtio-blk' },
              sizeBytes: await virtualSize(path, format),
            })),
          ),
          nics: [{ nicId: 'lan', model: 'virtio-net-pci', mac, network: 'office' }],
        },
        disks,
      },
    });
    const of = { params: { machine: name } };
    await sites.homeApi.call('vm.protect', { ...of, body: BY_HAND });
    await verifiedCopy(sites.homeApi, of);
  }
}

/** Disks of a lab guest that knows who it is, without a boot. */
async function labDisksFor(directory: string, { name, address, behind }: ShopMachine) {
  await mkdir(directory);
  const guest = await copyLabGuest(await buildLabGuest(), directory);
  const raw = join(directory, 'data.raw');
  await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', guest.dataDisk, raw]);
  const { stdout } = await runCommand('sfdisk', ['-J', raw]);
  const parsed = JSON.parse(stdout) as { partitiontable: { partitions: { start: number }[] } };
  const offset = parsed.partitiontable.partitions[1]!.start * 512;
  const said = { hostname: name, network: address, ...(behind ? { behind } : {}) };
  for (const [file, text] of Object.entries(said)) {
    const path = join(directory, file);
    await writeFile(path, `${text}\n`);
    await runCommand('debugfs', ['-w', '-R', `write ${path} ${file}`, `${raw}?offset=${offset}`]);
  }
  await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, guest.dataDisk]);
  return guest;
}

async function virtualSize(path: string, format: string): Promise<number> {
  const { stdout } = await runCommand('qemu-img', ['info', '-f', format, '--output=json', path]);
  return (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'];
}
