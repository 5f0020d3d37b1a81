/** What a lease guard has done to its guest. */
export type GuardedGuest = 'runs' | 'stopped';

/** Stops the guest of one machine when its lease has run out, whatever has become of the process that it was started by. */
export interface LeaseGuard {
  /** Resolves when it is not there any more, or was let go of. */
  readonly gone: Promise<void>;
  /**
   * The guest may run until this moment of the boot clock, and is continued if this guard has stopped it, or if it has never run. Throws
   * MACHINE_LEASE_UNGUARDED if the guard is not there any more.
   */
  lend(untilMs: number): Promise<GuardedGuest>;
  /** The guest runs by no lease any more: it is continued if it was stopped for want of one, and the guard ends. */
  dismiss(): Promise<void>;
  /** Lets go of the guard, which goes on. */
  disconnect(): void;
}

/** The guards of the machines that are started here. */
export interface LeaseGuards {
  /**
   * Before a machine is started that runs by leases: a guard that finds this continues it with the first lease. Durable while the host
   * runs.
   */
  expect(runDirectory: string): Promise<void>;
  /**
   * The guard of a machine that runs: the one that is there, or a new one, which stops the guest if it hears of no lease for a few
   * seconds; at once if the guest has run by leases before (`goesOn`): how long the last one lasts, nobody may know any more. Throws
   * MACHINE_LEASE_UNGUARDED.
   */
  of(runDirectory: string, o?: { readonly goesOn: boolean }): Promise<LeaseGuard>;
  /** The machine runs by no lease any more: a guest that was stopped for want of one goes on, and no guard is left. Throws MACHINE_LEASE_UNGUARDED. */
  release(runDirectory: string): Promise<void>;
}
