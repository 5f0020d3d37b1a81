import type { PlanDocument } from '../api/index.ts';
import { machinesOf } from './machines.ts';

/** Which machines of a plan come before which; pure. */

/** `forward`: machines come up. `backward`: they are shut down, those that others need last. */
export type Direction = 'forward' | 'backward';

/** By machine: those that have to be done before it begins, without those that follow from others. */
export type Needs = ReadonlyMap<string, ReadonlySet<string>>;

function tierOf({ machines }: PlanDocument, machine: string): number {
  return machines[machine]?.tier ?? 1;
}

/** Names that the plan does not have are left out; `checkPlan` tells of them. */
export function needsOf(plan: PlanDocument, direction: Direction = 'forward'): Needs {
  const names = machinesOf(plan).map(([machine]) => machine);
  const before = new Map(
    names.map((machine) => {
      const named = (plan.machines[machine]?.after ?? []).filter((other) => names.includes(other));
      const lower = names.filter((other) => tierOf(plan, other) < tierOf(plan, machine));
      return [machine, new Set([...lower, ...named])] as const;
    }),
  );
  if (direction === 'forward') return before;
  return new Map(
    names.map((machine) => [machine, new Set(names.filter((other) => before.get(other)?.has(machine)))]),
  );
}

/** Lists of machines that may begin together, in order; undefined where machines wait for each other. */
export function wavesOf(needs: Needs): readonly (readonly string[])[] | undefined {
  const waves = [...wavesUntilStuck(needs)];
  return waves.flat().length === needs.size ? waves : undefined;
}

/** Machines of which each waits for the next, and the last for the first; undefined if there are none. */
export function cycleIn(needs: Needs): readonly string[] | undefined {
  const left = new Map(needs);
  for (const wave of wavesUntilStuck(needs)) for (const machine of wave) left.delete(machine);
  const [start] = left.keys();
  if (start === undefined) return undefined;
  const path: string[] = [];
  for (let at = start; ; ) {
    const seen = path.indexOf(at);
    if (seen >= 0) return path.slice(seen);
    path.push(at);
    // Whatever is stuck waits for something that is stuck.
    at = [...left.get(at)!].find((other) => left.has(other))!;
  }
}

function* wavesUntilStuck(needs: Needs): Generator<readonly string[]> {
  const done = new Set<string>();
  for (;;) {
    const wave = [...needs].flatMap(([machine, before]) =>
      !done.has(machine) && [...before].every((other) => done.has(other)) ? [machine] : [],
    );
    if (wave.length === 0) return;
    for (const machine of wave) done.add(machine);
    yield wave;
  }
}
