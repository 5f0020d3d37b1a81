/**
 * Recovery plans: which machines come up in which order, when one counts as up, and where their NICs go. For people: docs/plans.md.
 *
 * A *plan* is a document of its owner's (`api/plans.ts`). A *tier* orders machines in groups, `after` single ones. A *gate* is a question
 * that a guest answers only when it runs as it should: who comes after it waits for the answer and for no time. A *run* is a plan being
 * carried out, machine by machine; its *steps* say how far it is. A machine that waits for one that has failed is *blocked*. A *hook* is a program of the
 * operator at a site, run before or after a machine or the run.
 *
 * Promised: no machine begins before all that it waits for are up; what does not come up holds back those that wait for it and nobody
 * else; every run ends, because each machine is done, failed or blocked at last; a plan whose machines wait for each other is refused
 * before anything begins. All here is pure, so that the same rules make a check in the repository of the plan's owner (`exported.ts`), an
 * estimate, a rehearsal and a recovery: whoever acts is in `control`.
 */
export { findingsAt, findingsOf, type KnownMachine } from './check.ts';
export { differenceOf } from './difference.ts';
export { directionOf, type HeldWhere } from './direction.ts';
export { estimateOf } from './estimate.ts';
export { checkPlan } from './exported.ts';
export { formFindingsOf } from './form.ts';
export { fencingOf, hooksOf, type NamedProgram, programsOf } from './hooks.ts';
export { machinesOf } from './machines.ts';
export { networksAt, type PlannedNic } from './networks.ts';
export { type Direction, type Needs, needsOf, wavesOf } from './order.ts';
export { MOST_AT_ONCE, type NextActs, nextActs, verdictOf } from './progress.ts';
export {
  afterRuns,
  checkRehearsalTimes,
  isCarriedOut,
  type KeptRehearsal,
  type RehearsalStanding,
  rehearsalsOf,
  standingOf,
} from './rehearsal.ts';
export { changesAt, forNicsOf, gateAnywhere, gatesAt } from './site-changes.ts';
export { STEP_STATES, type StepAct } from './step-states.ts';
export { afterHearing, afterPut, type HeldPlan, type PlanVersion, planDigest } from './versions.ts';
