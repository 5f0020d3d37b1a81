import type { PlanDocument } from '../api/index.ts';

type PlannedMachine = PlanDocument['machines'][string];

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Whether an entry of a plan is a machine: a schema says nothing of names that it does not expect, and of what stands there. Pure. */
export function isMachine(name: string, planned: unknown): planned is PlannedMachine {
  return NAME.test(name) && typeof planned === 'object' && planned !== null;
}

/** The machines of a plan, without entries that are none; pure. */
export function machinesOf({ machines }: PlanDocument): readonly (readonly [string, PlannedMachine])[] {
  return Object.entries(machines).filter(([name, planned]) => isMachine(name, planned));
}
