import { join } from 'node:path';
import type { AdoptRequest, MachineView } from '../../api/index.ts';
import type { Failovers } from '../../failover/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { generationsIn } from '../../lib/generations.ts';
import type { Log } from '../../lib/log.ts';
import { newId, type Random } from '../../lib/random.ts';
import type { SiteIdentity } from '../../peer/index.ts';
import { compareClaims } from '../../recovery-point/index.ts';
import { findBranch, type Replica, tenureOfReplica, withTenure } from '../../replica/index.ts';
import { isUnseen, openMachineFiles, type ProtectedMachine } from '../../replication/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { Machines } from '../machines/machines.ts';
import { newestMachine } from '../machines/new-machine.ts';
import { liesUpon } from '../machines/speaking-home.ts';
import type { DivergedBranches } from '../replicas/diverged-branches.ts';
import type { ReplicaFences } from '../replicas/replica-fences.ts';
import type { Reports } from '../reports/reports.ts';

interface AdoptionTools {
  readonly identity: Pick<SiteIdentity, 'siteId'>;
  readonly failovers: Pick<Failovers, 'adopt' | 'list'>;
  readonly machines: Pick<Machines, 'adopting' | 'get'>;
  readonly inventory: Pick<Inventory, 'replica' | 'view' | 'find'>;
  readonly audit: Pick<Audit, 'acting'>;
  readonly reports: Pick<Reports, 'ofAdoptions'>;
  readonly fences: Pick<ReplicaFences, 'look'>;
  readonly diverged: Pick<DivergedBranches, 'aloneAt'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly alerts: AlertSink;
}

/** What a failover has brought up becomes a machine of this site, for good. */
export class AdoptionActs {
  readonly #o: AdoptionTools;

  constructor(o: AdoptionTools) {
    this.#o = o;
  }

  /**
   * The branch by id or name; without one the only one of a failover. Throws MACHINE_NO_REPLICA, MACHINE_BRANCH_UNCLEAR, BRANCH_UNKNOWN,
   * MACHINE_EXISTS, and as `Failovers.adopt`; nothing has changed then.
   */
  async adopt(actor: string, reference: string, { branch, networks }: AdoptRequest): Promise<MachineView> {
    const { failovers, machines, inventory, audit, identity, clock, random, reports, fences } = this.#o;
    const { log, alerts } = this.#o;
    const replica = inventory.replica(reference);
    const branchId = branch === undefined ? await this.#only(replica) : findBranch(replica, branch).branchId;
    const { machineId: subject } = replica.record;
    // It is no job: the audit log has what its report is made from.
    const details = { branchId, reportId: newId(clock, random) };
    const adopting = audit.acting({ actor, act: 'failover.adopt', subject, details }, async () => {
      const home = { ...machines.adopting, networks };
      await this.#inTurn(subject, () => failovers.adopt(replica, branchId, home));
      // From now on the machine speaks for itself. It is adopted, whatever comes of this.
      await passOnClaims({ siteId: identity.siteId, machines, log, alerts }, [replica]);
      return inventory.view(inventory.find(subject));
    });
    return adopting.finally(() => {
      // A claim that was heard meanwhile was left to the machine; without one the branch is ended as any other.
      fences.look(replica);
      return reports.ofAdoptions();
    });
  }

  /** Beside no act with what the machine was here before: that may remove it, and what is older than it comes to the front then. */
  async #inTurn(machineId: string, act: () => Promise<unknown>): Promise<void> {
    const { machines, diverged } = this.#o;
    for (;;) {
      const before = machines.get(machineId)?.machine;
      const isStillThere = async () => {
        if (machines.get(machineId)?.machine !== before) return false;
        if (before) await this.#lookAt(before);
        await act();
        return true;
      };
      if (await (before ? diverged.aloneAt(before.layout.directory, isStillThere) : isStillThere())) return;
    }
  }

  /** At a site that has just been started nobody may have looked whether it runs. What becomes of its disks hinders no adoption. */
  async #lookAt(before: ProtectedMachine): Promise<void> {
    if (!isUnseen(before.presence)) return;
    await before.attach().catch((error: unknown) => {
      if (!isFailure(error)) throw error;
      this.#o.log.warn('machine.not-settled', { machine: before.record.name, reason: error.message });
    });
  }

  /** The one that runs, else the only one there is. */
  async #only(replica: Replica): Promise<string> {
    const { machineName } = replica.record;
    const branches = (await this.#o.failovers.list(replica)).filter(({ purpose }) => purpose === 'failover');
    const running = branches.filter((branch) => branch.running);
    const [only, second] = running.length > 0 ? running : branches;
    if (only && !second) return only.branchId;
    const said = only
      ? `${machineName} has ${branches.length} branches of failovers`
      : `${machineName} was not brought up here`;
    throw controlFailure('MACHINE_BRANCH_UNCLEAR', said);
  }
}

/**
 * To be called before anything is done with replicas or machines. Whether an adoption that was cut short has happened is decided by
 * the machine's record: without it the branch is what it was.
 */
export async function settleAdoptions(
  { files, log, alerts }: { readonly files: FileSystem; readonly log: Log; readonly alerts: AlertSink },
  dataDirectory: string,
  replicas: readonly Replica[],
): Promise<void> {
  const directory = join(dataDirectory, 'protected');
  const found = generationsIn((await files.list(directory)) ?? []);
  for (const replica of replicas) {
    const { machineId, machineName, adopted } = replica.record;
    const key = `adoption:${machineId}`;
    try {
      const layout = await newestMachine(files, dataDirectory, machineId, found.get(machineId) ?? []);
      // One that cannot be read may lie upon the branch: it stays as it is then.
      const record = layout && (await openMachineFiles(files, layout));
      const branchId = record?.adopted?.branchId;
      const isUpon = branchId !== undefined && replica.branches.some((one) => one.branchId === branchId);
      const now = isUpon ? branchId : undefined;
      if (now !== adopted) {
        log.warn('adoption.settled', { machine: machineName, before: adopted, now });
        await replica.update({ adopted: now });
      }
      alerts.clear(key);
    } catch (error) {
      if (!isFailure(error)) throw error;
      log.error('adoption.not-settled', { machine: machineName, reason: messageOf(error) });
      alerts.raise(key, 'critical', failureOf(error), machineId);
    }
  }
}

/**
 * Removes a machine that was a branch of a replica from this site: the branch is one again, and the replica knows who holds the
 * machine, before it speaks of that itself.
 */
export async function endingAdoption(
  replica: Replica | undefined,
  machine: ProtectedMachine,
  remove: () => Promise<void>,
): Promise<void> {
  if (!replica || !liesUpon(machine, replica)) return remove();
  // By the higher claim: one that the replica has heard of the machine may not have heard yet.
  await replica.update((record) => {
    const { tenure } = machine.right;
    const isAbove = record.tenure !== undefined && compareClaims(record.tenure.claim, tenure.claim) > 0;
    return isAbove ? undefined : withTenure(record, tenure);
  });
  await remove();
  await replica.disown();
}

interface PassingOn {
  readonly siteId: string;
  readonly machines: {
    get(machineId: string): { readonly machine: Pick<ProtectedMachine, 'record' | 'right'> } | undefined;
  };
  readonly log: Log;
  readonly alerts: AlertSink;
}

/**
 * What a replica has heard of the right the machine whose disks lie upon it hears as well: an adoption may have been under way, and whoever
 * told the one tells it no more. Only what is higher counts, however often it is said. What hinders it is an alert, and thrown.
 */
export async function passOnClaim(o: PassingOn, replica: Pick<Replica, 'record'>): Promise<void> {
  const { record } = replica;
  const machine = o.machines.get(record.machineId)?.machine;
  if (!machine || !liesUpon(machine, replica)) return;
  const key = `adopted-claim:${record.machineId}`;
  try {
    await machine.right.hear(tenureOfReplica(record, o.siteId).claim);
    o.alerts.clear(key);
  } catch (error) {
    o.alerts.raise(key, 'critical', failureOf(error), record.machineId);
    throw error;
  }
}

/** `passOnClaim` for each; one that hinders this hinders no other, and is tried again by `ReplicaFences`. */
export async function passOnClaims(
  o: PassingOn,
  replicas: readonly Pick<Replica, 'record'>[],
): Promise<void> {
  for (const replica of replicas) {
    try {
      await passOnClaim(o, replica);
    } catch (error) {
      if (!isFailure(error)) throw error;
      o.log.error('adoption.not-heard', { machine: replica.record.machineName, reason: messageOf(error) });
    }
  }
}
