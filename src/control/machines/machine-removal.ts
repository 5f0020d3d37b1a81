import { dirname } from 'node:path';
import type { BranchNetworks } from '../../failover/index.ts';
import { isFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { decideRemoval, isBeingRemoved } from '../../lib/removal.ts';
import { claimElsewhere, hasEnded, type ProtectedMachine } from '../../replication/index.ts';
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

/**
 * To be asked, when it has been looked at, of a machine that is to be forgotten. `reach` throws SITE_PEER_UNKNOWN for a site that nobody can
 * tell anything. Throws MACHINE_STILL_PROTECTED, MACHINE_STILL_RUNS, MACHINE_CLAIM_UNTOLD.
 */
export function checkMayGo(
  machine: Pick<ProtectedMachine, 'record' | 'right' | 'presence' | 'running'>,
  reach: (siteId: string) => unknown,
): void {
  const { machineId, name, protection, adopted } = machine.record;
  if (protection) throw controlFailure('MACHINE_STILL_PROTECTED', `${name} is protected`);
  if (!hasEnded(machine)) {
    // Its process would be nobody's: the branch that it was knows nothing of it.
    if (adopted) throw stillRuns(machine, 'was a branch of its replica here');
    // And nobody would end it.
    const claim = claimElsewhere(machine.record);
    if (claim) throw stillRuns(machine, `site ${claim.siteId} holds it`);
  }
  const siteId = machine.right.untold.find((untold) => isReached(untold, reach));
  if (siteId === undefined) return;
  const said = `site ${siteId} has not heard yet that ${name} was taken back here`;
  throw controlFailure('MACHINE_CLAIM_UNTOLD', said, { context: { machineId, siteId } });
}

/** The site may not see whether it has ended: there is nothing to stop then, but what hinders it. */
function stillRuns(
  { record: { name, machineId }, presence }: Pick<ProtectedMachine, 'record' | 'presence'>,
  besides: string,
) {
  const why = 'reason' in presence ? `: ${presence.reason}` : '';
  const said = `${name} has not ended here, and ${besides}${why}`;
  const hint =
    presence.state === 'unreachable'
      ? 'The site cannot see whether it has ended: what hinders it is named, and ends with the process that uses its sockets or its disks. Look with `warmsite vm show`, and give the command again.'
      : undefined;
  return controlFailure('MACHINE_STILL_RUNS', said, {
    context: { machineId },
    ...(hint === undefined ? {} : { hint }),
  });
}

function isReached(siteId: string, reach: (siteId: string) => unknown): boolean {
  try {
    reach(siteId);
    return true;
  } catch (error) {
    if (isFailure(error, 'SITE_PEER_UNKNOWN')) return false;
    throw error;
  }
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
  return machine.right.letGo(changedMeanwhile(machine), async () => {
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
