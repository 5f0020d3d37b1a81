import type { Trigger } from './copy-schedule.ts';

/** What the last acknowledged copy tells of change rate and link. */
export interface Transfer {
  /** From the cut until the acknowledgement. */
  readonly tookMs: number;
  readonly bytes: number;
  /** The time whose changes it held: from the cut before it to its own. */
  readonly coversMs: number;
}

/** A copy has its price (a pause, digests, a proof, a record at both sites), which less than this is not worth. */
const WORTH_BYTES = 1024 * 1024;
/** No more than this share of the time goes into sending. */
const SHARE = 2;

/**
 * How long after the last copy the next one is worth while: when as much has probably changed as a copy is worth, and when
 * the link has been idle for as long as the last copy took; never sooner than the minimum, never later than the maximum.
 * Pure. Before anything is known: the minimum.
 */
export function variableIntervalMs(
  { minimumMs, maximumMs }: Extract<Trigger, { kind: 'variable' }>,
  last: Transfer | undefined,
): number {
  if (!last) return minimumMs;
  const untilWorthMs =
    last.bytes > 0 ? (WORTH_BYTES / last.bytes) * Math.max(1, last.coversMs) : Number.POSITIVE_INFINITY;
  return Math.min(maximumMs, Math.max(minimumMs, SHARE * last.tookMs, untilWorthMs));
}
