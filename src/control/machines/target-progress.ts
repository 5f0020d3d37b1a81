import type { ProtectedMachine, TargetProgress } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';

/** How far one target of a machine is. Throws MACHINE_NOT_THERE for a site that it is not replicated to, or not any more. */
export function targetProgress(
  { record, targets }: Pick<ProtectedMachine, 'record' | 'targets'>,
  siteId: string,
): TargetProgress {
  const found = targets.find((target) => target.siteId === siteId);
  if (found) return found;
  const { machineId, name } = record;
  throw controlFailure('MACHINE_NOT_THERE', `${name} is not replicated to site ${siteId}`, {
    context: { machineId, siteId },
  });
}
