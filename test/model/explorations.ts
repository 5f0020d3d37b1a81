import type { Counts } from '../support/size.ts';
import { type Exploration, explore, type Model } from './explorer.ts';
import { leaseModel } from './lease-model.ts';
import type { LeaseBudget } from './lease-states.ts';
import { type Budget, tenureModel } from './tenure-model.ts';

/**
 * How deep each model is walked through: everything may happen in any order, and each kind of accident and of people’s acts so often in
 * all. docs/failover.md names the explorations and how many states each has come to.
 */
export type Sized = (counts: Counts) => number;

const STATES_MAX = 20_000_000;

export const FEW: Budget = {
  writes: 1,
  kills: 1,
  partitions: 1,
  seizures: 1,
  cessions: 1,
  withdrawals: 1,
  undoings: 0,
  adoptions: 0,
  doubled: 0,
};
/** Nothing but links and people. */
export const AGAIN: Budget = { ...FEW, kills: 0, cessions: 0, withdrawals: 0 };

export const TENURE = {
  'two sites': (sized) => {
    const writes = sized({
      what: 'S0.17: writes of the guest, beside which everything else happens',
      normal: 1,
      full: 2,
    });
    return { ...FEW, writes, doubled: writes - 1 };
  },
  'seized by both': (sized) => {
    const writes = sized({ what: 'S0.17: writes beside seizures by both', normal: 1, full: 2 });
    return { ...AGAIN, seizures: 3, writes };
  },
  undone: (sized) => {
    const cessions = sized({ what: 'F4: cessions beside an undoing', normal: 0, full: 1 });
    return { ...FEW, undoings: 1, cessions };
  },
  'undone again': (sized) => {
    const undoings = sized({ what: 'F4: undoings', normal: 1, full: 2 });
    return { ...AGAIN, undoings, seizures: 2 };
  },
  adopted: (sized) => {
    const withdrawals = sized({ what: 'F4: withdrawals beside an adoption', normal: 0, full: 1 });
    return { ...FEW, adoptions: 1, withdrawals };
  },
  'adopted, undone and seized': (sized) => {
    const kills = sized({ what: 'F4: kills beside adoptions and undoings', normal: 0, full: 1 });
    return { ...AGAIN, adoptions: 1, undoings: 1, seizures: 2, kills };
  },
} as const satisfies Record<string, (sized: Sized) => Budget>;

const LENT: LeaseBudget = {
  writes: 1,
  kills: 1,
  partitions: 2,
  seeks: 1,
  seizures: 0,
  lostAnswers: 1,
  withdrawals: 0,
  undoings: 0,
};
const CALM: LeaseBudget = { ...LENT, kills: 0, partitions: 0, lostAnswers: 0 };
/** The machine is asked for twice, and what was brought up is given up once. */
export const SOUGHT: LeaseBudget = { ...LENT, seeks: 2, writes: 0, undoings: 1 };
/** It is asked for in vain, and its home gets a higher claim by offering it and taking it back. */
export const WITHDRAWN: LeaseBudget = { ...CALM, partitions: 1, writes: 0, seeks: 2, withdrawals: 1 };

export const LEASES = {
  leases: (sized) => ({ ...LENT, kills: sized({ what: 'S0.17: kills beside leases', normal: 1, full: 2 }) }),
  'votes there and back': () => ({ ...CALM, partitions: 1, seeks: 2 }),
  'votes and a seizure': () => ({ ...CALM, lostAnswers: 1, seizures: 1 }),
  'votes and seizures by both': (sized) => {
    const kills = sized({ what: 'S0.17: kills beside votes and seizures', normal: 0, full: 1 });
    return { ...CALM, kills, partitions: kills, seizures: 2, writes: 0 };
  },
  'votes beside an offer': () => WITHDRAWN,
  'votes, undone': (sized) => {
    const kills = sized({ what: 'S0.17: kills beside votes and undoings', normal: 0, full: 1 });
    return { ...LENT, kills, partitions: 1, undoings: 1 };
  },
  'votes, undone and seized': (sized) => {
    const seeks = sized({ what: 'S0.17: questions beside undoings and seizures', normal: 2, full: 3 });
    return { ...CALM, seeks, seizures: 1, undoings: 1, writes: 0 };
  },
} as const satisfies Record<string, (sized: Sized) => LeaseBudget>;

export type ExplorationName = keyof typeof TENURE | keyof typeof LEASES;

export interface Explored extends Exploration {
  readonly budget: Readonly<Record<string, number>>;
}

/** Walks through all that one of them can come to. */
export function explored(name: ExplorationName, sized: Sized): Explored {
  const walk = <S, B extends object>(model: (budget: B) => Model<S>, budget: B) => ({
    ...explore(model(budget), STATES_MAX),
    budget: { ...budget } as Readonly<Record<string, number>>,
  });
  return name in TENURE
    ? walk(tenureModel, TENURE[name as keyof typeof TENURE](sized))
    : walk(leaseModel, LEASES[name as keyof typeof LEASES](sized));
}
