import type { PlanDocument, PlanFinding } from '../api/index.ts';
import { findingsOf } from './check.ts';
import { formFindingsOf } from './form.ts';
import { needsOf, wavesOf } from './order.ts';

/*
 * What the package exports as `warmsite/plan`, for the code of a plan's owner; docs/plans.md, «In your own repository». The types that
 * other compilers see are in `types/plan.d.ts`, written from this file by `npm run docs`.
 */

/** A recovery plan: the same for a rehearsal, a planned move and a disaster, and for both sites. */
export type RecoveryPlan = PlanDocument;

/** What is known of a plan without a site. */
export interface CheckedPlan {
  /** Machines in the order in which they may begin; those of one list together. Empty where they wait for each other. */
  readonly order: readonly (readonly string[])[];
  /** What is wrong with it; a plan with none is carried out. What a site lacks is said by `warmsite plan check` there. */
  readonly findings: readonly PlanFinding[];
}

/** Looks at a plan by itself: its form, its order, what its gates ask. Throws nothing, touches nothing, and needs no site. */
export function checkPlan(plan: unknown): CheckedPlan {
  const flaws = formFindingsOf(plan);
  if (flaws.length > 0) return { order: [], findings: flaws };
  const document = plan as RecoveryPlan;
  const order = wavesOf(needsOf(document)) ?? [];
  return { order, findings: findingsOf(document) };
}
