import { takeBack } from '../../../src/control/acts/take-back.ts';
import { termsOf } from '../../../src/control/leases/leases.ts';
import { checkMayUndo } from '../../../src/failover/index.ts';
import { checkNotFenced, holdBy, runsAlready, seizeRight, votedRight } from '../../../src/failover/right.ts';
import { undoFailover } from '../../../src/failover/undo.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { type Replica, removeBranch, tenureOfReplica } from '../../../src/replica/index.ts';
import { type ProtectedMachine, rightsAt } from '../../../src/replication/index.ts';
import type { LeaseSite, LeaseWrappers, OpenSite } from './lease-site.ts';
import { MACHINE_ID, SITE_IDS } from './made-sites.ts';

/** How a person makes sure that the machine may be brought up: by the witness, or by the own word that the other site is down. */
export type FailoverBy = 'votes' | 'word';

/**
 * What people do at the machine's home, as `Machines`, `LeaseActs` and `HandoverActs` do it for them: the acts themselves are the real
 * ones, what looks names up and writes reports is left out.
 */
export class PeopleAtHome {
  readonly #site: LeaseSite;

  constructor(site: LeaseSite) {
    this.#site = site;
  }

  get #open(): (OpenSite & { readonly machine: ProtectedMachine }) | undefined {
    const { open } = this.#site;
    return open?.machine ? { ...open, machine: open.machine } : undefined;
  }

  /** `vm start`. */
  async start(): Promise<void> {
    const open = this.#open;
    if (!open) return;
    const { machine, leases, loop } = open;
    if ((await machine.attach()).state === 'stopped') await leases.beforeStart(machine);
    await machine.start();
    loop?.kick();
  }

  /** `vm lease`, with terms of so long, or `--off`. */
  async lease(leaseMs: number | undefined, isLost: boolean): Promise<void> {
    const open = this.#open;
    if (!open) return;
    const { machine, leases } = open;
    const sites = { witnessSiteId: SITE_IDS.W, recoverySiteId: SITE_IDS.R };
    if (leaseMs === undefined) await leases.ends(machine, isLost);
    else await leases.begins(machine, termsOf({ witness: 'w', leaseMs }, sites));
  }

  /** `failover withdraw`. */
  async takeBack(): Promise<void> {
    const open = this.#open;
    if (!open) return;
    const { machine, client } = open;
    await takeBack(machine, {
      ask: (siteId, ask) => ask(rightsAt(client(siteId))),
      checkNotOutdated: () => undefined,
    });
  }

  /** `failover withdraw --confirm-other-side-down`. */
  async seizeBack(): Promise<void> {
    await this.#open?.machine.right.seizeBack();
  }

  /** A copy is due, or the other site answers again: it is asked what it has, and who holds the machine. */
  copy(): void {
    this.#open?.loop?.kick();
  }
}

/** What people do at the recovery site, as `FailoverActs`, `HandoverActs` and `Failovers` do it for them; see `PeopleAtHome`. */
export class PeopleAtRecovery {
  readonly #site: LeaseSite;
  readonly #wrap: LeaseWrappers;
  /** Of the process that runs: what starts a machine, or must not be met by a start. */
  #starting: { readonly open: OpenSite; readonly controller: AbortController } | undefined;

  constructor(site: LeaseSite, wrap: LeaseWrappers) {
    this.#site = site;
    this.#wrap = wrap;
  }

  /** A job of the process that runs now is under way. */
  get isBusy(): boolean {
    return this.#starting !== undefined && this.#starting.open === this.#site.open;
  }

  /** `job cancel`. */
  cancel(): void {
    this.#starting?.controller.abort();
  }

  /** `failover start`. */
  async failOver(by: FailoverBy): Promise<void> {
    await this.#tended(async ({ votes, branches }, replica, signal) => {
      if (by === 'votes') votes.need(MACHINE_ID);
      if (branches.running) throw runsAlready(replica);
      await this.#hold(votes, replica, by, signal);
      await branches.bringUp(replica);
    });
  }

  /** `failover restart` of what was brought up last, or the failover begun again where nothing was. */
  async restart(by: FailoverBy): Promise<void> {
    await this.#tended(async ({ branches, votes }, replica, signal) => {
      checkNotFenced(this.#site, replica);
      if (branches.running) throw runsAlready(replica);
      // As it is where the layers of the branch are held.
      await replica.settle();
      const last = await branches.lastWhole(replica);
      if (last !== undefined) await branches.boot(replica, last);
      else if (tenureOfReplica(replica.record, this.#site.siteId).state === 'holds') {
        await this.#hold(votes, replica, by, signal);
        await branches.bringUp(replica);
      }
    });
  }

  /** `failover undo`; then what was written is discarded. */
  async undo(): Promise<void> {
    await this.#tended(async ({ branches, clock, files }, replica) => {
      const { siteId } = this.#site;
      checkMayUndo(replica, siteId);
      await undoFailover({ clock, siteId, log: silentLog }, replica, ({ branchId }) =>
        branches.stop(branchId),
      );
      for (const { branchId } of [...replica.branches]) await removeBranch(files, replica, branchId);
    });
  }

  async #hold(
    votes: OpenSite['votes'],
    replica: Replica,
    by: FailoverBy,
    signal: AbortSignal,
  ): Promise<void> {
    const { siteId } = this.#site;
    const voted = votedRight({
      seek: () => votes.seek(MACHINE_ID, signal),
      confirm: (claim) => votes.confirm(MACHINE_ID, claim, signal),
      letGo: (makeSure) => votes.letGo(MACHINE_ID, makeSure),
    });
    const right = by === 'votes' ? (this.#wrap.votedRight?.(voted) ?? voted) : seizeRight;
    await holdBy(right, { siteId, log: silentLog, onHeld: () => votes.held(MACHINE_ID) }, replica);
  }

  async #tended(
    work: (open: OpenSite, replica: Replica, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const { open } = this.#site;
    const replica = open?.replicas.get(MACHINE_ID);
    if (!open || !replica || this.isBusy) return;
    const controller = new AbortController();
    this.#starting = { open, controller };
    try {
      await work(open, replica, controller.signal);
    } finally {
      if (this.#starting?.open === open) this.#starting = undefined;
      await open.votes.held(MACHINE_ID);
      open.fences.look(replica);
    }
  }
}
