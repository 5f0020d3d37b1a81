import type { MoveRequest } from '../../api/index.ts';
import type { ImageFile } from '../../hypervisor/index.ts';
import type { MachinePlace, MachineRecord } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';

/**
 * Where a person says that a machine is from now on, and the files that are new to it. What is not said stays as it was. Throws
 * MACHINE_PLACE_OURS: where the sockets of a machine lie that this site starts is the site's business.
 */
export function placeIn(
  { kind, name, sockets, disks }: MachineRecord,
  { qmpPath, agentPath, disks: moved = [] }: MoveRequest,
): { readonly place: MachinePlace; readonly disks: readonly { readonly chain: ImageFile[] }[] } {
  const files = Object.fromEntries(moved.map(({ diskId, path, format }) => [diskId, { path, format }]));
  const origins = new Map(disks.map(({ diskId, chain }) => [diskId, chain.at(-1)!.path]));
  const others = Object.entries(files).filter(([diskId, { path }]) => origins.get(diskId) !== path);
  const news = others.map(([, file]) => ({ chain: [file] }));
  if (qmpPath === undefined && agentPath === undefined) return { place: { files }, disks: news };
  if (kind === 'managed') {
    throw controlFailure('MACHINE_PLACE_OURS', `this site starts ${name}, and makes its sockets`);
  }
  const agent = agentPath === undefined ? sockets.agentPath : (agentPath ?? undefined);
  const at = { qmpPath: qmpPath ?? sockets.qmpPath, ...(agent === undefined ? {} : { agentPath: agent }) };
  return { place: { files, sockets: at }, disks: news };
}
