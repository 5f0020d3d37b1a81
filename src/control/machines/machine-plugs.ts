import { basename, dirname } from 'node:path';
import type { BranchNetworks } from '../../failover/index.ts';
import type { StartRequest } from '../../hypervisor/index.ts';
import type { MachineRecord } from '../../replication/index.ts';

type Plugged = Pick<MachineRecord, 'networks' | 'sockets' | 'configuration'>;

/** Makes the taps of a machine that this site starts, on the bridges that its record names. Throws PROCESS_FAILED. */
export async function plugIn(here: BranchNetworks, record: Plugged): Promise<StartRequest['networks']> {
  const { networks, configuration } = record;
  if (!networks) return undefined;
  return (await here.connect(ownerOf(record), configuration.nics, networks)).attachments;
}

/** Removes them; may be repeated. */
export async function unplug(here: BranchNetworks, record: Plugged): Promise<void> {
  if (record.networks) await here.remove(ownerOf(record));
}

/** Taps are named after the branch that the machine was, and so is its run directory. */
function ownerOf({ sockets }: Plugged): string {
  return basename(dirname(sockets.qmpPath));
}
