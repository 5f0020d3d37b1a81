import type { PlanRun, RunStep } from '../api/index.ts';

/**
 * Where a machine of a plan is held, as a site knows it; `offered`: here, by a hand-over that is under way; `unread`: it is, or may be, one of those
 * that cannot be read here; `unknown`: this site has never heard of it.
 */
export type HeldWhere = 'here' | 'offered' | 'elsewhere' | 'unread' | 'unknown';

export interface HeldAtBoth {
  readonly here: readonly string[];
  readonly elsewhere: readonly string[];
  readonly unread: readonly string[];
}

/**
 * What a site has to do for a planned move of a plan: `cede` where its machines are held, `take` where none is. A move that was left in the middle has
 * machines at both: it goes on as it was begun, by the newest run of the plan that was to move machines, was not done, and left them as they are held now; one
 * after which they have moved otherwise says nothing. Where it cannot be read where some are, nothing else tells: such a run may be over for long, and have been
 * found wanting for another reason. Pure.
 */
export function directionOf(
  held: ReadonlyMap<string, HeldWhere>,
  runs: readonly PlanRun[],
): 'take' | 'cede' | HeldAtBoth {
  const at = (where: HeldWhere) => [...held].flatMap(([machine, is]) => (is === where ? [machine] : []));
  const [here, elsewhere, unread] = [at('here'), at('elsewhere'), at('unread')];
  if (here.length > 0 && elsewhere.length > 0) {
    const moved = runs.find(({ request: { mode } }) => mode === 'take' || mode === 'cede');
    if (moved && moved.verdict !== 'done' && hasLeft(moved, { here, elsewhere })) {
      return moved.request.mode as 'take' | 'cede';
    }
    return { here, elsewhere, unread };
  }
  // What is offered is not taken by the site that offers it.
  if (here.length === 0 && at('offered').length > 0) return 'cede';
  if (unread.length > 0) return { here, elsewhere, unread };
  return here.length > 0 ? 'cede' : 'take';
}

/**
 * Whether what is held where is what the run left: what it has moved is where it brought it, and nothing else is. Of a step that failed
 * that is known only if something was run after it: for a machine that was moved, and for no other.
 */
function hasLeft(
  { request, steps }: PlanRun,
  { here, elsewhere }: Pick<HeldAtBoth, 'here' | 'elsewhere'>,
): boolean {
  const moved = new Set(steps.filter(wasMoved).map(({ machine }) => machine));
  const [there, left] = request.mode === 'cede' ? [elsewhere, here] : [here, elsewhere];
  return there.every((machine) => moved.has(machine)) && !left.some((machine) => moved.has(machine));
}

function wasMoved({ state, hooks = [] }: RunStep): boolean {
  return state === 'done' || (state === 'failed' && hooks.some(({ when }) => when === 'after'));
}
