import type { PlanRun } from '../../api/index.ts';
import type { BootClock } from '../../lib/boot-clock.ts';
import type { Clock } from '../../lib/clock.ts';

/** Clocks of a host. None of them tells alone how long a site was away: one may be set, the other begins anew with the host. */
export interface AbsenceClocks {
  readonly clock: Pick<Clock, 'wallMs'>;
  readonly bootClock: Pick<BootClock, 'bootId' | 'monotonicMs'>;
}

/** A site that was away for longer asks before it goes on to bring machines up on a person's word. */
const AWAY_MOST_MS = 600_000;

/** What a run keeps of the moment in which something of it was recorded last. */
export function touchedNow(o: AbsenceClocks): Required<Pick<PlanRun, 'touchedAtMs' | 'touchedInBoot'>> {
  const { clock, bootClock } = o;
  return {
    touchedAtMs: clock.wallMs(),
    touchedInBoot: { bootId: bootClock.bootId(), sinceBootMs: bootClock.monotonicMs() },
  };
}

/**
 * Why what a person said before, of the other site, need not be true any more: the run was left for long, or nobody knows for how long. A host
 * that lost its power may have lost the time with it, so that one that was started again is never taken for one that was away for a moment.
 * Undefined where the run was left for a moment.
 */
export function absenceOf(run: PlanRun, o: AbsenceClocks): string | undefined {
  const { touchedAtMs, touchedInBoot } = run;
  const now = touchedNow(o);
  if (touchedAtMs === undefined || touchedInBoot === undefined)
    return 'this site does not know how long it was away';
  if (touchedInBoot.bootId !== now.touchedInBoot.bootId)
    return 'the host of this site was started again in the middle of the run';
  const byWallMs = now.touchedAtMs - touchedAtMs;
  if (byWallMs < 0) return 'the clock of this site was set back, and how long it was away is not known';
  // A host that is a virtual machine itself may have stood still: then its clock on the wall alone has gone on.
  const awayMs = Math.max(byWallMs, now.touchedInBoot.sinceBootMs - touchedInBoot.sinceBootMs);
  if (awayMs <= AWAY_MOST_MS) return undefined;
  return `this site was away for ${Math.round(awayMs / 60_000)} minutes`;
}
