import { join } from 'node:path';
import { runCommand } from '../../src/lib/processes.ts';
import type { Protection } from '../../src/replication/index.ts';
import { copyAndSend, inGuest, type LabSites, labSites } from '../../test/support/lab-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../test/support/temporary.ts';

const MIB = 1024 * 1024;

/** A third disk of the lab guest, which its own programs leave alone. */
export const WRITTEN_DISK = { device: '/dev/vdc', spanBytes: 64 * MIB } as const;

/** A protected lab guest with that disk, full of random bytes (nothing is allocated for the first time below the overlays), and delivered. */
export async function labWithWrittenDisk(
  scope: CleanUp,
  protection: Partial<Protection> = {},
): Promise<{ readonly lab: LabSites; readonly agentPath: string }> {
  const { device, spanBytes } = WRITTEN_DISK;
  const path = join(await temporaryDirectory(scope), 'written.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(spanBytes)]);
  const extraDisks = [{ diskId: 'written', path, sizeBytes: spanBytes }];
  const lab = await labSites(scope, { extraDisks, protection });
  const agentPath = lab.machine.record.sockets.agentPath!;
  await inGuest(agentPath, `labtool fill --device ${device} --pattern random --bytes ${spanBytes}`);
  await copyAndSend(lab.machine, lab.sites.target);
  return { lab, agentPath };
}
