import type { RecoveryPlans } from './acts/plan-acts.ts';
import { RehearsalActs } from './acts/rehearsal-acts.ts';
import type { Jobs } from './base/jobs.ts';
import { REHEARSING_ACTOR } from './plans/plan-runner.ts';
import { PlanRehearsals } from './plans/rehearsals.ts';
import type { Ground } from './site-ground.ts';

/** The loop that rehearses plans, and what people do with it. */
export function rehearsalWorksOf(
  ground: Ground,
  plans: RecoveryPlans,
  jobs: () => Jobs,
): { readonly loop: PlanRehearsals; readonly acts: RehearsalActs } {
  const { tools, alerts, audit, zones, plans: store, planRehearsals: rehearsals } = ground;
  const loop = new PlanRehearsals({
    ...{ ...tools, alerts, store, rehearsals, jobs },
    begin: (plan) => plans.run(REHEARSING_ACTOR, plan, { mode: 'test' }),
    inEarnest: (document) => plans.standing.inEarnest(document),
  });
  return { loop, acts: new RehearsalActs({ ...tools, store, rehearsals, loop, zones, audit }) };
}
