import { type Failure, failuresOf } from '../../lib/errors.ts';
import { type MachinePresence, REPLICATION_ERRORS } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';

/** What is raised for a machine that is left alone because of what it runs on, or because it does not answer. */
export function presenceFailure(
  name: string,
  presence: Extract<MachinePresence, { state: 'stale' | 'unreachable' }>,
): Failure {
  const said = `${name}: ${presence.reason}`;
  return presence.state === 'stale'
    ? failuresOf(REPLICATION_ERRORS)(presence.isGone ? 'PROTECTION_DISK_GONE' : 'PROTECTION_STALE_BASE', said)
    : controlFailure('MACHINE_UNREACHABLE', said);
}
