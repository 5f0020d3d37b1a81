import type { RunStep } from '../api/index.ts';
import type { Needs } from './order.ts';

/** What a run of a plan does next; pure. */

export type StepState = RunStep['state'];

/** Machines that are under way at a time: more would only be in each other's way. */
export const MOST_AT_ONCE = 4;

export interface NextActs {
  /** May begin now. */
  readonly begin: readonly string[];
  /** Never begin, because of the other one. */
  readonly block: readonly { readonly machine: string; readonly by: string }[];
  /** Nothing is under way, nothing begins, nothing is asked. */
  readonly isOver: boolean;
}

/** From how far each machine is; those that `states` does not have wait. */
export function nextActs(needs: Needs, states: ReadonlyMap<string, StepState>): NextActs {
  const stateOf = (machine: string): StepState => states.get(machine) ?? 'waiting';
  const begin: string[] = [];
  const block: { machine: string; by: string }[] = [];
  for (const [machine, before] of needs) {
    if (stateOf(machine) !== 'waiting') continue;
    const by = [...before].find((other) => stateOf(other) === 'failed' || stateOf(other) === 'blocked');
    if (by !== undefined) block.push({ machine, by });
    else if ([...before].every((other) => stateOf(other) === 'done')) begin.push(machine);
  }
  const isUnderWay = [...needs.keys()].some((machine) => ['asking', 'starting'].includes(stateOf(machine)));
  return { begin, block, isOver: begin.length === 0 && block.length === 0 && !isUnderWay };
}

/** How a run ended, by how its machines did. */
export function verdictOf(steps: readonly Pick<RunStep, 'state'>[]): 'done' | 'partly' | 'failed' {
  if (steps.every(({ state }) => state === 'done')) return 'done';
  return steps.some(({ state }) => state === 'done') ? 'partly' : 'failed';
}
