import type { PolicyRequest, ProtectRequest } from '../../api/index.ts';
import { pointFailure } from '../../recovery-point/index.ts';
import type { Protection } from '../../replication/index.ts';

/** The schedules that a request asks for; undefined if it speaks of none. Throws POLICY_CONTRADICTS. */
export function schedulesIn({
  every,
  schedules,
}: PolicyRequest | ProtectRequest): Protection['schedules'] | undefined {
  if (every && schedules) {
    throw pointFailure('POLICY_CONTRADICTS', 'give either `every` or `schedules`, not both');
  }
  return schedules ?? (every && schedulesOf(every));
}

export function schedulesOf(every: Readonly<Record<string, number>>): Protection['schedules'] {
  return Object.entries(every).map(([copyType, everyMs]) => ({
    copyType,
    triggers: [{ kind: 'interval', everyMs }],
  }));
}
