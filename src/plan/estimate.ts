import type { PlanDocument, PlanEstimate } from '../api/index.ts';
import { needsOf, wavesOf } from './order.ts';

/**
 * When each machine of a plan would be up if each took as long as it was measured and all that may begin together did; pure. Hosts that
 * are slower when they start several at once make it longer.
 */
export function estimateOf(
  plan: PlanDocument,
  measuredMs: (machine: string) => number | undefined,
): PlanEstimate {
  const needs = needsOf(plan);
  const upAt = new Map<string, number | null>();
  const machines = (wavesOf(needs) ?? []).flat().map((machine) => {
    const before = [...needs.get(machine)!].map((other) => upAt.get(other) ?? null);
    const beginsAtMs = before.includes(null) ? null : Math.max(0, ...before.map(Number));
    const took = measuredMs(machine) ?? null;
    const upAtMs = beginsAtMs === null || took === null ? null : beginsAtMs + took;
    upAt.set(machine, upAtMs);
    return { machine, measuredMs: took, beginsAtMs, upAtMs };
  });
  const ends = machines.map(({ upAtMs }) => upAtMs);
  const totalMs = ends.includes(null) || ends.length === 0 ? null : Math.max(...ends.map(Number));
  return { plan: plan.plan, totalMs, machines };
}
