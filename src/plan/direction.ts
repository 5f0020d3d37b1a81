import type { PlanRun } from '../api/index.ts';

/** Where a machine of a plan is held, as a site knows it. */
export type HeldWhere = 'here' | 'elsewhere' | 'unknown';

export interface HeldAtBoth {
  readonly here: readonly string[];
  readonly elsewhere: readonly string[];
}

/**
 * What a site has to do for a planned move of a plan: `cede` where its machines are held, `take` where none is. A move that was left in the middle has
 * machines at both: it goes on as it was begun, by the newest run of the plan that moved machines and was not done. Pure.
 */
export function directionOf(
  held: ReadonlyMap<string, HeldWhere>,
  runs: readonly PlanRun[],
): 'take' | 'cede' | HeldAtBoth {
  const at = (where: HeldWhere) => [...held].flatMap(([machine, is]) => (is === where ? [machine] : []));
  const [here, elsewhere] = [at('here'), at('elsewhere')];
  if (here.length === 0) return 'take';
  if (elsewhere.length === 0) return 'cede';
  for (const { request, verdict } of runs) {
    if (request.mode !== 'take' && request.mode !== 'cede') continue;
    if (verdict !== 'done') return request.mode;
    break;
  }
  return { here, elsewhere };
}
