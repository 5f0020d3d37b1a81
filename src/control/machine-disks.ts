import type { ImageFile, MachineConfiguration } from '../hypervisor/index.ts';
import { messageOf } from '../lib/errors.ts';
import { runCommand } from '../lib/processes.ts';
import type { ProtectedDisk } from '../replication/index.ts';
import { controlFailure } from './errors.ts';

/**
 * The disks of a machine that this site starts itself, checked: each disk of the configuration has one file, and the file
 * is what it is said to be. Throws MACHINE_DISK_UNSUITABLE. A file with a backing file is refused and not followed: its
 * header is not ours to trust.
 */
export async function managedDisks(
  configuration: MachineConfiguration,
  files: readonly { readonly diskId: string; readonly path: string; readonly format: 'qcow2' | 'raw' }[],
): Promise<ProtectedDisk[]> {
  const unknown = files.find(({ diskId }) => !configuration.disks.some((disk) => disk.diskId === diskId));
  if (unknown) throw unsuitable(`the configuration has no disk ${unknown.diskId}`, unknown.path);
  const disks: ProtectedDisk[] = [];
  for (const { diskId, bus, sizeBytes } of configuration.disks) {
    const [file, second] = files.filter((candidate) => candidate.diskId === diskId);
    if (!file || second) throw unsuitable(`disk ${diskId} needs exactly one file`, file?.path ?? '');
    const image: ImageFile = { path: file.path, format: file.format };
    const actualBytes = await virtualSize(image);
    if (actualBytes !== sizeBytes) {
      throw unsuitable(`${diskId} has ${actualBytes} bytes and not ${sizeBytes}`, file.path);
    }
    disks.push({ diskId, deviceName: deviceNameOf(diskId, bus), chain: [image], sizeBytes });
  }
  return disks;
}

/** What QEMU calls the device that our command line makes for a disk: `query-block`, member `qdev`. */
function deviceNameOf(diskId: string, bus: MachineConfiguration['disks'][number]['bus']): string {
  return bus === 'virtio-blk' ? `/machine/peripheral/dev-${diskId}/virtio-backend` : `dev-${diskId}`;
}

async function virtualSize(image: ImageFile): Promise<number> {
  let info: Readonly<Record<string, unknown>>;
  try {
    const args = ['info', '--force-share', '--output=json', '-f', image.format, image.path];
    info = JSON.parse((await runCommand('qemu-img', args)).stdout) as Record<string, unknown>;
  } catch (error) {
    throw unsuitable(`${image.path} is not a ${image.format} image: ${messageOf(error)}`, image.path);
  }
  if (info['backing-filename'] !== undefined) {
    throw unsuitable(
      `${image.path} has a backing file`,
      image.path,
      'Make it whole first: `qemu-img convert`.',
    );
  }
  const size = info['virtual-size'];
  if (typeof size === 'number' && Number.isSafeInteger(size)) return size;
  throw unsuitable(`the size of ${image.path} is not known`, image.path);
}

function unsuitable(said: string, path: string, hint?: string) {
  return controlFailure('MACHINE_DISK_UNSUITABLE', said, { context: { path }, ...(hint ? { hint } : {}) });
}
