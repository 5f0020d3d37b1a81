import type { Claim, Tenure, Vote } from '../../src/recovery-point/index.ts';

/** What the model of leases is in: two sites and a witness. */

export interface Site {
  readonly tenure: Tenure;
  /** What it has promised the other one; durable. */
  readonly vote?: Vote;
  /** It runs the machine by leases, and not for good. */
  readonly isLeased: boolean;
  /** It has begun to ask for the right by this claim; durable. */
  readonly seeking?: Claim;
  /** The witness has said yes, in the place of whoever held it by this claim, and that is on its way. */
  readonly granted?: Claim;
  /** The highest epoch that it has ever asked by. */
  readonly sought: number;
  /** The guest's processors run; also while the process of the site does not. */
  readonly runs: boolean;
  readonly isUp: boolean;
  readonly disks: string;
  readonly branches: readonly string[];
  /** Who counts a lease to this site as running: this site, and its lender. */
  readonly lent: Readonly<Record<Lender, { readonly here: boolean; readonly there: boolean }>>;
}

export type SiteName = 'P' | 'R';
export type Lender = 'other' | 'W';

export interface Trio {
  readonly sites: Readonly<Record<SiteName, Site>>;
  readonly witness: { readonly vote?: Vote; readonly isUp: boolean };
  /** Links that are down. */
  readonly down: readonly Link[];
  /** What has been let go and the witness has not heard: calls overtake each other. */
  readonly letGo: readonly Claim[];
  readonly written: string;
  readonly acknowledged: string;
  /** Claims that somebody has confirmed, such as 2R. */
  readonly confirmed: readonly string[];
  readonly left: LeaseBudget;
}

export type Link = 'PR' | 'PW' | 'RW';

export interface LeaseBudget {
  readonly writes: number;
  readonly kills: number;
  readonly partitions: number;
  readonly seeks: number;
  readonly seizures: number;
  readonly lostAnswers: number;
  /** Planned failovers that are offered, and withdrawn. */
  readonly withdrawals: number;
  readonly undoings: number;
}

export type LeaseBug =
  | 'lease checked after the start'
  | 'voted while lent'
  | 'lent while it seeks'
  | 'lender forgets with its process'
  | 'guard ends with the process'
  | 'lets go of what it holds'
  | 'asks again by the same claim'
  | 'spent for its holder'
  | 'given up while its guest runs'
  | 'epoch not raised when seizing'
  | 'a claim raised without asking'
  | 'a vote used over another holder';

export const NAMES = ['P', 'R'] as const;

/** What was lent was lent to one claim: who stands otherwise has nothing. */
export function withSite(state: Trio, name: SiteName, change: Partial<Site>): Trio {
  const before = state.sites[name];
  const { other, W } = before.lent;
  const lent = { other: { ...other, here: false }, W: { ...W, here: false } };
  const site = { ...before, ...(change.tenure ? { lent } : {}), ...change };
  return { ...state, sites: { ...state.sites, [name]: site } };
}

export function letting(state: Trio, claim: Claim): Trio {
  const letGo = [...state.letGo, claim].sort((a, b) => a.epoch - b.epoch);
  return { ...state, letGo };
}

export function spend(state: Trio, what: keyof LeaseBudget): Trio {
  return { ...state, left: { ...state.left, [what]: state.left[what] - 1 } };
}
