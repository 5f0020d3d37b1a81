import type { Generation } from '../lib/generations.ts';
import type { Claim, Tenure } from '../recovery-point/index.ts';
import type { Replica, ReplicaDescription } from '../replica/index.ts';

/**
 * A machine that is at home at this site, and of which no replica here follows another site: what other sites ask or tell of the
 * right to run it is its own matter.
 */
export interface HomeMachine {
  readonly tenure: Tenure;
  /** Where it stands is durable on return: before that no other site is told of it. */
  settled(): Promise<void>;
  /** Durable on return. */
  hear(claim: Claim): Promise<Tenure>;
  /** Its disks lie upon a branch of this replica, which speaks again when the machine has been removed: it hears all that the machine hears. */
  readonly upon?: Replica | undefined;
  /** Whether a site may speak of it: one that gets its copies, that holds it now, from which it came here, or over which it was
   * claimed here. */
  concerns(siteId: string): boolean;
  /**
   * What this site has of it for another one: its word who holds it, and no points. Only of the history that the other site means, from
   * before the machine ran here, is the newest point told.
   */
  described(siteId: string, acknowledged: string | undefined): ReplicaDescription;
}

/** A site that begins to replicate a machine to this one. */
export interface Arrival {
  readonly machineId: string;
  readonly epoch: number;
  /** What it is laid upon; null: a history that begins. Absent where nothing is laid yet. */
  readonly parent?: { readonly pointId: string } | null;
  readonly sourceSiteId: string;
  readonly viaSiteId?: string | undefined;
}

/** The machines that are at home at this site, as far as other sites have to do with them. */
export interface HomeMachines {
  of(machineId: string): HomeMachine | undefined;
  /**
   * Whether copies of a machine may come in that is, or was, at home here: it has ended here, and the site that brings them holds it.
   * What was written here is set apart then, durably. Returns the generation that a replica is to begin in; undefined also where an older
   * one is gone on with. Throws REPLICATION_HELD_HERE, REPLICATION_NOT_ENDED, MACHINE_CHANGING.
   */
  admit(arrival: Arrival): Promise<Generation>;
}

export const NOTHING_AT_HOME: HomeMachines = { of: () => undefined, admit: async () => undefined };
