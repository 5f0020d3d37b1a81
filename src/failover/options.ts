import type { Probe } from '../probe/index.ts';
import type { Claim } from '../recovery-point/index.ts';
import type { WantedChanges } from './branch-changes.ts';
import type { Fencing } from './fencing.ts';
import type { NicMapping } from './network.ts';
import type { TestLimits } from './test-limits.ts';

export interface TestOptions {
  /** Absent: the guest agent, where the machine has one. */
  readonly probes?: readonly Probe[];
  /** Leave the machine running in its isolated network, also if it failed, until `cleanup`. */
  readonly keep?: boolean;
  /** What people call the branch. */
  readonly name?: string;
  /** How the machine differs from the one that the point describes. */
  readonly changes?: WantedChanges;
  /** What it may take of this host. */
  readonly limits?: Omit<TestLimits, 'endsAtMs'>;
  /** After this time it is cleaned up by itself; the rule of the site if absent. */
  readonly lifetimeMs?: number;
  /** The point as it was cut, also where a prepared branch of it is there: a proof is of the point itself. */
  readonly asCut?: boolean;
  /** It ends when a failover begins, and does not begin while one is under way: FAILOVER_GAVE_WAY. */
  readonly givesWay?: boolean;
  /** The test of several machines that it is part of, which is open: it is plugged into its network, and stays until that is closed. */
  readonly together?: string;
  readonly signal?: AbortSignal;
}

/** Asks for a right by votes. One of the two others follows, whatever happens. */
export interface Voting {
  seek(): Promise<Claim>;
  /** The witness knows of no higher claim than this one, by which this site holds the machine. Throws if it does, or is silent. */
  confirm(claim: Claim): Promise<void>;
  /** `makeSure`: makes it durable that this site does not hold it; nothing is let go before that has worked. */
  letGo(makeSure: () => Promise<void>): void;
}

export interface StartOptions {
  readonly probes?: readonly Probe[];
  /** Where NICs are connected here, by NIC id; the others stay unplugged. */
  readonly networks?: Readonly<Record<string, NicMapping>>;
  /** How the machine differs from the one that the point describes. */
  readonly changes?: WantedChanges;
  /** The word of a person that the machine no longer runs at the other site. */
  readonly confirmedOtherSideDown?: true;
  /** In its place: the votes of two of three sites, asked for when everything else has been looked at. */
  readonly voting?: Voting;
  /** In its place: what makes sure of it, when everything else has been looked at. */
  readonly fencing?: Fencing;
  /** What people call the branch; points tried later get it with a number. */
  readonly name?: string;
  readonly signal?: AbortSignal;
}

/** Of a machine whose right was offered: nobody has to give his word. */
export type TakeOptions = Omit<StartOptions, 'confirmedOtherSideDown' | 'voting' | 'fencing'>;

type AgainOptions = Omit<TakeOptions, 'name' | 'changes'>;

export interface RestartOptions extends AgainOptions {
  /** Who has it booted again, as its report says it; a person if absent. */
  readonly reason?: string;
}

export interface ForwardOptions extends AgainOptions, StopOptions {
  /** Up to which point; the very next one if absent. */
  readonly to?: string;
  /** Whether the writes of the branch stay beside the new one, as a future of their own. */
  readonly oldBranch: 'keep' | 'discard';
  /** What people call the new branch. */
  readonly name?: string;
}

export interface StopOptions {
  /** How long the guest may take to shut down after its power button was pressed; 0: it is not asked. */
  readonly graceMs: number;
  readonly signal?: AbortSignal;
}
