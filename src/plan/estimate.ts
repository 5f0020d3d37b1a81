import type { PlanDocument, PlanEstimate } from '../api/index.ts';
import { needsOf, wavesOf } from './order.ts';
import { MOST_AT_ONCE, nextActs, type StepState } from './progress.ts';

/**
 * When each machine of a plan would be up if each took as long as it was measured and began as a run begins it: when all that it waits for are
 * up, and no more than so many are under way; pure. What was never measured keeps its place to the end. Hosts that are slower when they start
 * several at once make it longer.
 */
export function estimateOf(
  plan: PlanDocument,
  measuredMs: (machine: string) => number | undefined,
): PlanEstimate {
  const needs = needsOf(plan);
  const beginsAt = beginningsOf(needs, measuredMs);
  const machines = (wavesOf(needs) ?? []).flat().map((machine) => {
    const beginsAtMs = beginsAt.get(machine) ?? null;
    const took = measuredMs(machine) ?? null;
    const upAtMs = beginsAtMs === null || took === null ? null : beginsAtMs + took;
    return { machine, measuredMs: took, beginsAtMs, upAtMs };
  });
  const ends = machines.map(({ upAtMs }) => upAtMs);
  const totalMs = ends.includes(null) || ends.length === 0 ? null : Math.max(...ends.map(Number));
  return { plan: plan.plan, totalMs, machines };
}

/** Carries a plan out on paper. Those whose beginning cannot be told are absent. */
function beginningsOf(
  needs: ReturnType<typeof needsOf>,
  measuredMs: (machine: string) => number | undefined,
): ReadonlyMap<string, number> {
  const beginsAt = new Map<string, number>();
  const states = new Map<string, StepState>();
  const underWay = new Map<string, number>();
  for (let nowMs = 0; Number.isFinite(nowMs); ) {
    for (const machine of nextActs(needs, states).begin.slice(0, MOST_AT_ONCE - underWay.size)) {
      beginsAt.set(machine, nowMs);
      states.set(machine, 'starting');
      underWay.set(machine, nowMs + (measuredMs(machine) ?? Number.POSITIVE_INFINITY));
    }
    nowMs = Math.min(...underWay.values());
    for (const [machine, endsAtMs] of underWay) {
      if (endsAtMs > nowMs) continue;
      underWay.delete(machine);
      states.set(machine, 'done');
    }
  }
  return beginsAt;
}
