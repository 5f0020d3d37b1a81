import { dirname } from 'node:path';
import type { BranchNetworks } from '../../failover/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { decideRemoval, isBeingRemoved } from '../../lib/removal.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import { unplug } from './machine-plugs.ts';

interface RemovalTools {
  readonly files: FileSystem;
  readonly networks: BranchNetworks;
}

/** That what the site has of a machine is another one by now, or nothing. */
export function changedMeanwhile({ record: { machineId, name } }: Pick<ProtectedMachine, 'record'>) {
  const said = `${name} is not what it was at this site when that was asked for`;
  return controlFailure('MACHINE_CHANGING', said, { context: { machineId } });
}

/** What a machine has beside its files goes, if it is stopped: its taps, sockets and logs. May be repeated. */
export async function letGoOf(
  { files, networks }: RemovalTools,
  machine: ProtectedMachine,
  isStopped: boolean,
): Promise<void> {
  const { sockets, kind } = machine.record;
  await machine.release();
  if (!isStopped || kind !== 'managed') return;
  await unplug(networks, machine.record);
  await files.removeDirectory(dirname(sockets.qmpPath));
}

/**
 * Decides that a machine which has ended goes with all its files, beside no other change of it, once nothing else is left of it; if it
 * throws, it is what it was. `check` throws unless it is still to go.
 */
export function decideGoing(
  tools: RemovalTools,
  machine: ProtectedMachine,
  check: () => void,
): Promise<void> {
  const { files } = tools;
  const { directory } = machine.layout;
  return machine.right.unchanged(async () => {
    check();
    await letGoOf(tools, machine, true);
    try {
      await decideRemoval(files, directory);
    } catch (error) {
      // One that may be there counts: the next process would go by it. The removal makes it durable before anything goes.
      if (!(await isBeingRemoved(files, directory))) throw error;
    }
  });
}
