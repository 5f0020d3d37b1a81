import type { BranchView, PlanDocument } from '../../api/index.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { HeldWhere } from '../../plan/index.ts';
import { rightState } from '../../replica/index.ts';
import { claimElsewhere } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import type { Found, Inventory } from '../inventory/inventory.ts';
import type { EarnestLook } from '../plans/rehearsals.ts';
import type { FailoverActs } from './failover-acts.ts';
import { isAdopted, offeredTo } from './plan-machines.ts';

interface StandingTools {
  readonly inventory: Pick<Inventory, 'all' | 'broken'>;
  readonly failovers: Pick<FailoverActs, 'list'>;
}

/** How the machines of plans stand at this site. Of one machine that may be unreadable, which is thrown: it is that machine's matter. */
export class PlanStanding {
  readonly #o: StandingTools;

  constructor(o: StandingTools) {
    this.#o = o;
  }

  /** What a plan may mean by a name: of several nobody knows which one. */
  named(machine: string): readonly Found[] {
    const all = this.#o.inventory.all();
    return all.filter(({ name, machineId }) => name === machine || machineId === machine);
  }

  /** Throws MACHINE_AMBIGUOUS: what one of them is says nothing of the one that is meant. */
  found(machine: string): Found | undefined {
    const found = this.named(machine);
    if (found.length <= 1) return found[0];
    const said = `${found.length} machines are called ${machine}`;
    throw controlFailure('MACHINE_AMBIGUOUS', said, { context: { reference: machine } });
  }

  /** As `found`, for what hinders no other machine: its own step says that several are called so. */
  single(machine: string): Found | undefined {
    const found = this.named(machine);
    return found.length === 1 ? found[0] : undefined;
  }

  /** A machine that was brought up here before, or is at home here, and runs. */
  async runs(found: Found): Promise<boolean> {
    if (isAdopted(found)) return found.home?.presence.state === 'running';
    return (await this.branchThatRuns(found)) !== undefined;
  }

  /** Whether this site holds the right to run a machine that it has brought up. */
  isHeld(found: Found): boolean {
    return isAdopted(found) || (found.replica !== undefined && rightState(found.replica.record) === 'holds');
  }

  /** The branch of a machine that was brought up here before, and runs; not one that has failed or is fenced, and is being ended. */
  async branchThatRuns(found: Found): Promise<BranchView | undefined> {
    // What still runs of a machine that another site holds is no machine that is up.
    if (isAdopted(found) || !this.isHeld(found)) return undefined;
    const branches = await this.#o.failovers.list(found.machineId);
    return branches.find(
      ({ purpose, running, state }) => purpose === 'failover' && running && state !== 'failed',
    );
  }

  /** Whether one of the plan's machines was brought up here, or is at home here since, and runs. */
  async inEarnest({ machines }: PlanDocument): Promise<EarnestLook> {
    let unread: string | undefined;
    for (const machine of Object.keys(machines)) {
      try {
        for (const found of this.named(machine)) if (await this.runs(found)) return { machine };
      } catch (error) {
        if (!isFailure(error)) throw error;
        unread ??= `whether ${machine} runs here cannot be read: ${messageOf(error)}`;
      }
    }
    return unread === undefined ? {} : { unread };
  }

  /** Of machines that are to come up together those of which it is certain that they do not run here yet. */
  async isStill(found: Found): Promise<boolean> {
    try {
      return !(await this.runs(found));
    } catch (error) {
      if (!isFailure(error)) throw error;
      return false;
    }
  }

  /** Where the machines of a plan are held. Throws MACHINE_AMBIGUOUS. */
  async held({ machines }: PlanDocument): Promise<ReadonlyMap<string, HeldWhere>> {
    const held = new Map<string, HeldWhere>();
    for (const machine of Object.keys(machines)) held.set(machine, await this.#heldWhere(machine));
    return held;
  }

  async #heldWhere(machine: string): Promise<HeldWhere> {
    const found = this.found(machine);
    const { broken } = this.#o.inventory;
    if (!found) return broken.length > 0 ? 'unread' : 'unknown';
    if (found.home && !claimElsewhere(found.home.record)) return 'here';
    if (broken.some(({ machineId }) => machineId === found.machineId)) return 'unread';
    try {
      if (await this.runs(found)) return 'here';
    } catch (error) {
      if (!isFailure(error)) throw error;
      return 'unread';
    }
    return offeredTo(found) === undefined ? 'elsewhere' : 'offered';
  }
}
