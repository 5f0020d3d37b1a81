import type { PrepareRequest } from '../../api/index.ts';
import type { JobArgs } from '../base/jobs.ts';

/** So long a guest may take to shut down before its power is cut. */
export const GRACE_MS = 60_000;

/** What a job needs that prepares a point. */
export function preparationArgs(
  pointId: string,
  { graceMs = GRACE_MS, ...others }: Omit<PrepareRequest, 'point'>,
): JobArgs {
  return { pointId, ...others, graceMs };
}
