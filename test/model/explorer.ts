/**
 * Walks through every state that a model can reach, breadth first, and looks at each. A model is a pure function from a state to
 * what may happen in it; states are plain data, and two that have the same JSON are one.
 */
export interface Model<S> {
  readonly initial: S;
  /** Everything that may happen next, with a name for people. */
  readonly next: (state: S) => readonly Step<S>[];
  /** What is wrong with a state by itself. */
  readonly violation: (state: S) => string | undefined;
  /** What everything must be able to come to. */
  readonly isGood: (state: S) => boolean;
  /** What an exploration must have come by to have shown anything about it, by a name for people. */
  readonly sights?: Readonly<Record<string, (state: S) => boolean>>;
}

export interface Step<S> {
  readonly name: string;
  readonly state: S;
  /** Counts as a way out: no accident, and nothing that only people can do. */
  readonly isHelp: boolean;
}

export interface Exploration {
  readonly states: number;
  readonly steps: number;
  /** In how many states each sight of the model is to be seen. */
  readonly seen: Readonly<Record<string, number>>;
  /** The shortest way to the first state that is wrong, with what is wrong with it. */
  readonly found: { readonly what: string; readonly way: readonly string[] } | undefined;
}

export function explore<S>(model: Model<S>, statesMax = 5_000_000): Exploration {
  const keys: string[] = [JSON.stringify(model.initial)];
  const numbers = new Map([[keys[0]!, 0]]);
  const from: number[] = [-1];
  const by: string[] = [''];
  /** For each state, those from which a helpful step leads to it. */
  const helpers: number[][] = [[]];
  const good: number[] = [];
  let steps = 0;
  const sights = Object.entries(model.sights ?? {});
  const seen: Record<string, number> = Object.fromEntries(sights.map(([name]) => [name, 0]));
  const wayTo = (number: number): string[] => {
    const way: string[] = [];
    for (let at = number; from[at] !== -1; at = from[at]!) way.unshift(by[at]!);
    return way;
  };
  for (let number = 0; number < keys.length; number++) {
    const state = JSON.parse(keys[number]!) as S;
    const what = model.violation(state);
    if (what !== undefined) return { states: keys.length, steps, seen, found: { what, way: wayTo(number) } };
    for (const [name, isSeen] of sights) if (isSeen(state)) seen[name]! += 1;
    if (model.isGood(state)) good.push(number);
    for (const step of model.next(state)) {
      steps += 1;
      const key = JSON.stringify(step.state);
      let there = numbers.get(key);
      if (there === undefined) {
        there = keys.length;
        if (there >= statesMax) throw new Error(`the model has more than ${statesMax} states`);
        numbers.set(key, there);
        keys.push(key);
        from.push(number);
        by.push(step.name);
        helpers.push([]);
      }
      if (step.isHelp) helpers[there]!.push(number);
    }
  }
  const stuck = firstStuck(keys.length, good, helpers);
  const found = stuck === undefined ? undefined : { what: `no way out of ${keys[stuck]}`, way: wayTo(stuck) };
  return { states: keys.length, steps, seen, found };
}

/** The first state from which no helpful steps lead to a good one. */
function firstStuck(
  states: number,
  good: readonly number[],
  helpers: readonly (readonly number[])[],
): number | undefined {
  const hasWayOut = new Uint8Array(states);
  const waiting = [...good];
  for (const number of good) hasWayOut[number] = 1;
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    for (const helper of helpers[at]!) {
      if (hasWayOut[helper]) continue;
      hasWayOut[helper] = 1;
      waiting.push(helper);
    }
  }
  const first = hasWayOut.indexOf(0);
  return first === -1 ? undefined : first;
}
