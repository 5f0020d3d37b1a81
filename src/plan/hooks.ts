import type { FencingProgram, PlanDocument, PlanHook, PlanMode } from '../api/index.ts';
import { machinesOf } from './machines.ts';

const ON_DEFAULT: readonly PlanMode[] = ['unplanned', 'take'];

/**
 * The hooks of a machine, or of the plan where none is named, that are run when it is carried out so; pure. Unless a hook says otherwise it is
 * run where machines come up in earnest: what it does to the world is no part of a rehearsal.
 */
export function hooksOf(
  plan: PlanDocument,
  machine: string | undefined,
  when: 'before' | 'after',
  mode: PlanMode,
): readonly PlanHook[] {
  const hooks = machine === undefined ? plan.hooks : plan.machines[machine]?.hooks;
  return (hooks?.[when] ?? []).filter(({ on = ON_DEFAULT }) => on.includes(mode));
}

/** What the plan names to fence a machine's other side; absent: what the site names. Pure. */
export function fencingOf({ machines, fencing }: PlanDocument, machine: string): FencingProgram | undefined {
  return machines[machine]?.fencing ?? fencing;
}

/** What a site has to have in its directory of programs for a plan. */
export interface NamedProgram {
  readonly program: string;
  readonly machine?: string;
}

/** The programs of the site that a plan names, for hooks, gates and fencing; pure. */
export function programsOf(plan: PlanDocument): readonly NamedProgram[] {
  const named = ({ before = [], after = [] }: NonNullable<PlanDocument['hooks']> = {}) =>
    [...before, ...after].map(({ program }) => program);
  return [
    ...named(plan.hooks).map((program) => ({ program })),
    ...(plan.fencing ? [{ program: plan.fencing.program }] : []),
    ...machinesOf(plan).flatMap(([machine, { hooks, gates = [], fencing }]) => {
      const asked = gates.flatMap((gate) => (gate.kind === 'script' ? [gate.program] : []));
      const fences = fencing ? [fencing.program] : [];
      return [...named(hooks), ...asked, ...fences].map((program) => ({ machine, program }));
    }),
  ];
}
