import { dirname } from 'node:path';
import type { LeaseRequest } from '../api/index.ts';
import { Mutex } from '../lib/mutex.ts';
import type { LeaseTerms } from '../recovery-point/index.ts';
import type { ProtectedMachine } from '../replication/index.ts';
import { controlFailure } from './errors.ts';
import { LeaseKeeper, type LeaseKeeperTools, type LeaseStanding } from './lease-keeper.ts';
import { askVoter } from './lease-wire.ts';
import type { Machines } from './machines.ts';

export interface LeasesTools extends LeaseKeeperTools {
  readonly machines: Pick<Machines, 'list' | 'get'>;
}

const CALL_LIMIT_MS = 10_000;
const DEFAULT_LEASE_MS = 30_000;

/** The machines of this site that run by leases. docs/failover.md, «Leases and a witness». */
export class Leases {
  readonly #o: LeasesTools;
  readonly #keepers = new Map<string, { readonly keeper: LeaseKeeper; readonly machine: ProtectedMachine }>();
  readonly #changing = new Mutex();

  constructor(o: LeasesTools) {
    this.#o = o;
  }

  begin(): void {
    for (const { machine } of this.#o.machines.list()) this.look(machine.record.machineId);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#keepers.keys()].map((machineId) => this.#end(machineId)));
  }

  /** To be called when something has become of a machine: it is there, it runs, its right is another. */
  look(machineId: string): void {
    const machine = this.#o.machines.get(machineId)?.machine;
    const entry = this.#keepers.get(machineId);
    if (entry && entry.machine !== machine) void this.#end(machineId);
    if (machine?.record.lease) this.#of(machine).ring();
  }

  standing(machineId: string): LeaseStanding | undefined {
    return this.#keepers.get(machineId)?.keeper.standing;
  }

  /** Before a machine is started. Throws LEASE_NOT_LENT; one that runs by no lease may start. */
  async beforeStart(machine: ProtectedMachine): Promise<void> {
    // Whoever does not hold it is told so by its start.
    if (!machine.record.lease || machine.right.tenure.state !== 'holds') return;
    await this.#of(machine).acquire();
    await this.#o.guards.expect(runDirectoryOf(machine));
  }

  /**
   * From now on the machine runs by leases: its guard is there before any other site hears of that. Throws LEASE_IMPOSSIBLE,
   * MACHINE_LEASE_UNGUARDED; nothing has changed then.
   */
  begins(machine: ProtectedMachine, terms: LeaseTerms): Promise<void> {
    return this.#changing.run(async () => {
      this.#check(machine, terms);
      // A guard that is not told of a lease soon stops its guest: it is told by the keeper, at once.
      const guard = machine.running && (await this.#o.guards.of(runDirectoryOf(machine)));
      guard?.disconnect();
      await machine.right.runBy(terms);
      this.#of(machine).ring();
    });
  }

  #check({ record, right, targets }: ProtectedMachine, terms: LeaseTerms): void {
    const { name, kind, lease } = record;
    const impossible = (why: string) =>
      controlFailure('LEASE_IMPOSSIBLE', `${name} cannot run by leases: ${why}`);
    if (lease) throw impossible('it does so already');
    if (kind !== 'managed') throw impossible('somebody else starts it, and could start it again without one');
    if (right.tenure.state !== 'holds') throw impossible('this site does not hold it');
    if (!targets.some(({ siteId }) => siteId === terms.recoverySiteId))
      throw impossible(`site ${terms.recoverySiteId} is none of its targets`);
    const { witnessSiteId, recoverySiteId } = terms;
    if (witnessSiteId === recoverySiteId || witnessSiteId === this.#o.siteId)
      throw impossible('the witness must be a third site');
  }

  /**
   * It runs by no lease any more: first the other site may not ask for it by votes, then its guard goes. `isLost`: a person has confirmed
   * that the other site is down, and it is not asked. Returns which sites have not heard of it.
   */
  ends(machine: ProtectedMachine, isLost: boolean): Promise<readonly string[]> {
    return this.#changing.run(async () => {
      const { machineId, lease } = machine.record;
      if (!lease) return [];
      const unheard: string[] = [];
      // Nobody is asked for a lease meanwhile: it would be the beginning of another.
      await this.#end(machineId);
      try {
        try {
          await this.#tellEnd(machine, lease.recoverySiteId);
        } catch (error) {
          if (!isLost) throw error;
          unheard.push(lease.recoverySiteId);
        }
        await machine.right.runBy(undefined);
      } finally {
        if (machine.record.lease) this.#of(machine).ring();
      }
      await this.#dismissGuard(machine);
      try {
        if (isLost) await this.#holdForGood(machine, lease);
        else await this.#tellEnd(machine, lease.witnessSiteId);
      } catch (error) {
        this.#o.log.warn('lease.end-not-told', { machine: machine.record.name, error });
        unheard.push(lease.witnessSiteId);
      }
      return unheard;
    });
  }

  async #tellEnd({ record: { machineId }, right }: ProtectedMachine, siteId: string): Promise<void> {
    const body = { machineId, claim: { ...right.tenure.claim } };
    await this.#o.client(siteId).call('lease.end', body, { timeoutMs: CALL_LIMIT_MS });
  }

  /** The other site may still know of the leases: its question is answered by the witness with no. */
  async #holdForGood({ record, right }: ProtectedMachine, lease: LeaseTerms): Promise<void> {
    const { machineId, name } = record;
    const siteIds = [this.#o.siteId, lease.recoverySiteId].sort();
    const parties = { ...lease, machineId, machineName: name, siteIds };
    const ask = { kind: 'hold', claim: right.tenure.claim } as const;
    await askVoter(this.#o.client(lease.witnessSiteId), parties, ask, { timeoutMs: CALL_LIMIT_MS });
  }

  async #dismissGuard(machine: ProtectedMachine): Promise<void> {
    if (!machine.running) return;
    const guard = await this.#o.guards.of(runDirectoryOf(machine));
    await guard.dismiss();
  }

  #of(machine: ProtectedMachine): LeaseKeeper {
    const { machineId } = machine.record;
    const entry = this.#keepers.get(machineId);
    if (entry) return entry.keeper;
    const keeper = new LeaseKeeper(machine, this.#o);
    this.#keepers.set(machineId, { keeper, machine });
    keeper.begin();
    return keeper;
  }

  async #end(machineId: string): Promise<void> {
    const entry = this.#keepers.get(machineId);
    this.#keepers.delete(machineId);
    await entry?.keeper.close();
  }
}

/** The terms that a person asks for, with the sites by their ids. */
export function termsOf(
  { leaseMs = DEFAULT_LEASE_MS }: LeaseRequest,
  sites: { readonly witnessSiteId: string; readonly recoverySiteId: string },
): LeaseTerms {
  return { ...sites, leaseMs };
}

function runDirectoryOf({ record: { sockets } }: ProtectedMachine): string {
  return dirname(sockets.qmpPath);
}
