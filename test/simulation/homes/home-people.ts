import { basename } from 'node:path';
import { takeBack } from '../../../src/control/acts/take-back.ts';
import { checkNotOutdated } from '../../../src/control/inventory/inventory.ts';
import { withTimeout } from '../../../src/lib/clock.ts';
import { isFailure, libFailure } from '../../../src/lib/errors.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { type ProtectedMachine, rightsAt } from '../../../src/replication/index.ts';
import { MACHINE_ID, MACHINE_NAME, RUN_DIRECTORY } from '../leases/made-sites.ts';
import { HOMES, type HomeName, type HomeSite, type OpenHome } from './home-site.ts';

const GRACE_MS = 60_000;
/** A copy may come between the last one and the offer. */
const CEDE_TRIES_MAX = 5;
/** Nobody waits for ever until the other site has a copy. */
const COPY_LIMIT_MS = 30_000;

/**
 * What people of one site do, as `MachineActs`, `FailoverActs` and `HandoverActs` do it for them: the acts themselves are the real ones, what looks
 * names up, keeps jobs and writes reports is left out.
 */
export class HomePeople {
  readonly #site: HomeSite;
  readonly #other: string;

  constructor(site: HomeSite) {
    this.#site = site;
    this.#other = HOMES[site.name === 'A' ? 'B' : ('A' as HomeName)];
  }

  #home(): { readonly open: OpenHome; readonly machine: ProtectedMachine } {
    const { open, home } = this.#site;
    return { open: open!, machine: home! };
  }

  #replica(): { readonly open: OpenHome; readonly replica: Replica } {
    const { open } = this.#site;
    return { open: open!, replica: open!.replicas.need(MACHINE_ID) };
  }

  /** `vm start`. */
  async start(): Promise<void> {
    const { open, machine } = this.#home();
    await open.machines.start(machine);
  }

  /** `vm stop`. */
  async stop(force: boolean): Promise<void> {
    const { open, machine } = this.#home();
    await open.machines.stop(machine, { force });
  }

  /** `vm protect`: to the other site, whatever it was at home before. */
  async protect(): Promise<void> {
    const { open, machine } = this.#home();
    // What is compressed comes back from another thread, whenever that is done.
    await open.machines.protect(machine, this.#other, { compression: false });
  }

  /** `vm unprotect`; of what another site holds by the word that it does not run there. */
  async unprotect(byWord: boolean): Promise<void> {
    const { acts } = this.#home().open;
    await acts.unprotect('person', MACHINE_ID, byWord ? { confirmOtherSideDown: true } : {});
  }

  /** `vm remove`. */
  async remove(): Promise<void> {
    await this.#home().open.acts.remove('person', MACHINE_ID);
  }

  /** `failover cleanup` of one branch of those that are there, by its place among them. What it is called. */
  async cleanup(pick: (count: number) => number, onMeant: (line: string) => void): Promise<void> {
    const { open } = this.#site;
    const { diverged, failovers, replicas } = open!;
    const replica = replicas.get(MACHINE_ID);
    const apart = await diverged.list(MACHINE_ID);
    const upon = (replica?.branches ?? []).filter(({ branchId }) => branchId !== replica!.record.adopted);
    const count = apart.length + upon.length;
    if (count === 0) return;
    const at = pick(count);
    const meant = apart[at];
    if (!meant) {
      const { branchId } = upon[at - apart.length]!;
      onMeant(branchId);
      await failovers.cleanup(replica!, branchId);
      return;
    }
    onMeant(meant.about.machine.adopted?.branchId ?? basename(RUN_DIRECTORY));
    await diverged.remove(MACHINE_ID, meant.branchId, new AbortController().signal);
  }

  /** `point cut`. */
  async copy(): Promise<void> {
    const { open, machine } = this.#home();
    await open.machines.loopOf(machine).cutNow('crash');
  }

  /** `failover cede`. */
  async cede(): Promise<void> {
    const { open, machine } = this.#home();
    await this.#copyAll(open, machine);
    await open.machines.stop(machine, { force: false });
    for (let tries = 1; ; tries++) {
      try {
        await machine.right.cede(this.#other);
        break;
      } catch (error) {
        if (!isFailure(error, 'PROTECTION_NOT_STILL') || tries === CEDE_TRIES_MAX) throw error;
      }
      await this.#copyAll(open, machine);
    }
    open.machines.loopOf(machine).kick();
  }

  async #copyAll({ machines, clock }: OpenHome, machine: ProtectedMachine): Promise<void> {
    const loop = machines.loopOf(machine);
    const { ordinal } = await loop.cutNow('crash');
    const late = () => libFailure('CANCELLED', 'nobody waits any longer');
    await withTimeout(
      clock,
      COPY_LIMIT_MS,
      (signal) => loop.acknowledgedBy(this.#other, ordinal, signal),
      late,
    );
  }

  /** `failover withdraw`. */
  async takeBack(): Promise<void> {
    const { open, machine } = this.#home();
    await open.diverged.alone(machine, async () => {
      await open.diverged.checkNothingUpon(MACHINE_ID);
      await takeBack(machine, {
        ask: (siteId, ask) => ask(rightsAt(open.client(siteId))),
        checkNotOutdated: () => checkNotOutdated(open.inventory.find(MACHINE_ID)),
      });
    });
  }

  /** `failover withdraw --confirm-other-side-down`. */
  async seizeBack(): Promise<void> {
    const { open, machine } = this.#home();
    await open.diverged.alone(machine, async () => {
      await open.diverged.checkNothingUpon(MACHINE_ID);
      checkNotOutdated(open.inventory.find(MACHINE_ID));
      await machine.right.seizeBack();
    });
  }

  /** `failover start --confirm-other-side-down`. */
  async failOver(): Promise<void> {
    await this.#tended(({ failovers }, replica) =>
      failovers.start(replica, {}, { confirmedOtherSideDown: true, probes: [] }),
    );
  }

  /** `failover take`. */
  async take(): Promise<void> {
    await this.#tended(({ failovers }, replica) => failovers.take(replica, { probes: [] }));
  }

  /** `failover restart` of the last branch of a failover. */
  async restart(): Promise<void> {
    await this.#tended(async ({ failovers }, replica) => {
      const last = replica.branches.filter(({ purpose }) => purpose === 'failover').at(-1);
      if (last) await failovers.restart(replica, last.branchId, { probes: [] });
      else await failovers.start(replica, {}, { confirmedOtherSideDown: true, probes: [] });
    });
  }

  /** `failover undo`. */
  async undo(): Promise<void> {
    await this.#tended(({ failovers }, replica) => failovers.undo(replica, { graceMs: GRACE_MS }));
  }

  /** `failover adopt`, of the branch that runs. */
  async adopt(): Promise<void> {
    await this.#replica().open.adoptions.adopt('person', MACHINE_NAME, {} as never);
  }

  async #tended(work: (open: OpenHome, replica: Replica) => Promise<unknown>): Promise<void> {
    const { open, replica } = this.#replica();
    try {
      await work(open, replica);
    } finally {
      open.fences.look(replica);
    }
  }
}
