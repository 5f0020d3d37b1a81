import type { DeltaHeader } from '../../delta/index.ts';
import type { Failovers } from '../../failover/index.ts';
import type { DiskImages } from '../../hypervisor/index.ts';
import { failuresOf, isFailure, messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Generation } from '../../lib/generations.ts';
import type { Log } from '../../lib/log.ts';
import type { Tenure } from '../../recovery-point/index.ts';
import { bringerOf, OlderDisks, type Replica, type Replicas, withTenure } from '../../replica/index.ts';
import {
  type Arrival,
  type HomeMachines,
  hasEnded,
  type ProtectedMachine,
  REPLICATION_ERRORS,
  type SpeakingMachine,
} from '../../replication/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { keptLayers } from '../machines/kept-layers.ts';
import { changedMeanwhile } from '../machines/machine-removal.ts';
import type { Machines } from '../machines/machines.ts';
import { liesUpon, speakingHome } from '../machines/speaking-home.ts';
import type { DivergedBranches } from '../replicas/diverged-branches.ts';
import { endingAdoption } from './adoptions.ts';

const replicationFailure = failuresOf(REPLICATION_ERRORS);

interface HomeTools {
  readonly siteId: string;
  readonly machines: Pick<Machines, 'get' | 'broken' | 'unprotect' | 'remove'>;
  readonly replicas: Pick<Replicas, 'get' | 'broken'>;
  readonly failovers: Pick<Failovers, 'list' | 'cleanup'>;
  readonly diverged: Pick<DivergedBranches, 'at' | 'alone' | 'checkNothingUpon'>;
  readonly isForwarded: (replica: Replica) => boolean;
  readonly audit: Pick<Audit, 'note'>;
  readonly alerts: AlertSink;
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly log: Log;
  /** A replica goes on that a machine had run upon. */
  readonly onTurnedBack: (replica: Replica) => void;
}

/**
 * Machines that are, or were, at home here, for the sites that have to do with them. One that has gone elsewhere comes back as a
 * replica; its disks here stay as they are, and spare the wire what has not changed since.
 */
export class HomeRights implements HomeMachines {
  readonly #o: HomeTools;
  /** Disks that did not hold what they were said to hold: not tried again by this process. */
  readonly #unfit = new Set<string>();
  /** Machines whose replicas go on without them, with the end of that. */
  readonly #turningBack = new Map<string, Promise<void>>();

  constructor(o: HomeTools) {
    this.#o = o;
  }

  of(machineId: string): SpeakingMachine | undefined {
    const { machines, replicas } = this.#o;
    const replica = replicas.get(machineId);
    const machine = speakingHome(machines.get(machineId)?.machine, replica, this.#o.siteId);
    if (!machine) {
      if (!replica || replica.record.adopted !== undefined) this.#checkNotBroken(machineId);
      return undefined;
    }
    this.#checkMaySpeak(machine);
    const { right } = machine;
    return {
      tenure: right.tenure,
      settled: () => right.settle(),
      hear: (claim) => right.hear(claim),
      upon: liesUpon(machine, replica) ? replica : undefined,
      concerns: (siteId) =>
        right.tenure.claim.siteId === siteId ||
        // Over which it was claimed here: it may run the machine, or be told by its people to run it again.
        machine.record.superseded?.some((other) => other.siteId === siteId) === true ||
        // From which it came here: it may not have heard yet that it was taken.
        (replica !== undefined &&
          (bringerOf(replica.record) === siteId || replica.record.sourceSiteId === siteId)) ||
        machine.targets.some((target) => target.siteId === siteId),
      described: (siteId, acknowledged) => {
        const { claim } = right.tenure;
        const isMeant = replica && acknowledged !== undefined && hasBrought(replica, siteId, acknowledged);
        return {
          ...{ machineId, epoch: claim.epoch, holderSiteId: claim.siteId, incoming: null },
          newest: isMeant ? replica.describe().newest : null,
        };
      },
    };
  }

  /** What cannot be opened must not look like what was never there. */
  #checkNotBroken(machineId: string): void {
    throwBroken(this.#o.machines.broken, machineId);
  }

  /** Of a machine that another site holds what its replica here knows counts, unless its disks lie upon that: which nobody can tell. */
  #checkMaySpeak({ record, right }: ProtectedMachine): void {
    const { state } = right.tenure;
    if (state !== 'holds' && state !== 'cedes') throwBroken(this.#o.replicas.broken, record.machineId);
  }

  async admit(arrival: Arrival): Promise<Generation> {
    const { machineId } = arrival;
    const { alerts, machines } = this.#o;
    const key = `turn:${machineId}`;
    if (this.#turningBack.has(machineId)) throw turningBack(machineId);
    const speaking = this.of(machineId);
    if (!speaking) {
      // Whatever hindered a turn, nothing is at home here any more that it could hinder.
      alerts.clear(key);
      return undefined;
    }
    if (!speaking.concerns(arrival.sourceSiteId)) throw notYours(machineId);
    try {
      const generation = await this.#admitted(machines.get(machineId)!.machine, arrival);
      alerts.clear(key);
      return generation;
    } catch (error) {
      // The other site tries again and again; whoever has to do something for that is here.
      if (isFailure(error, 'REPLICATION_NOT_ENDED')) alerts.raise(key, 'warning', error, machineId);
      throw error;
    }
  }

  async #admitted(machine: ProtectedMachine, arrival: Arrival): Promise<Generation> {
    const { machineId, epoch, parent, sourceSiteId } = arrival;
    this.#theirs(machine, arrival);
    await machine.attach();
    // That waits for what is being done with the machine: it may be this site's again by now.
    const { claim, state } = this.#theirs(machine, arrival);
    if (!hasEnded(machine)) {
      const context = { machineId, siteId: claim.siteId, epoch: claim.epoch };
      throw replicationFailure('REPLICATION_NOT_ENDED', `${machine.record.name} has not ended here`, {
        context,
      });
    }
    const replica = this.#o.replicas.get(machineId);
    if (replica && parent && hasBrought(replica, sourceSiteId, parent.pointId)) {
      this.#turnBack(machine, replica, arrival);
      throw turningBack(machineId);
    }
    if (replica) await this.#checkMayBeginAnew(replica);
    await machine.right.setApart();
    // Whatever becomes of the machine's record: what it lay upon does not say any more that this site holds it.
    await replica?.update((record) => {
      // Right before it is stored: of a machine that was taken back meanwhile it may well say so.
      this.#theirs(machine, arrival);
      return withTenure(record, { state: 'follows', claim });
    });
    this.#theirs(machine, arrival);
    if (state === 'fenced')
      this.#o.audit.note({ actor: 'site', act: 'vm.set-apart', subject: machineId, details: { epoch } });
    return replica && epoch;
  }

  /**
   * Where a machine stands whose copies the site brings that holds it. Throws REPLICATION_HELD_HERE, and MACHINE_CHANGING of one that
   * this site has no more.
   */
  #theirs(machine: ProtectedMachine, { machineId, epoch, sourceSiteId, viaSiteId }: Arrival): Tenure {
    if (this.#o.machines.get(machineId)?.machine !== machine) throw changedMeanwhile(machine);
    const { tenure } = machine.right;
    const { claim, state } = tenure;
    const isTheirs =
      (state === 'follows' || state === 'fenced') &&
      claim.siteId === sourceSiteId &&
      claim.epoch === epoch &&
      viaSiteId === undefined;
    if (isTheirs) return tenure;
    const said = `${machine.record.name} is at home here, and held by site ${claim.siteId} in epoch ${claim.epoch}`;
    const context = { machineId, siteId: claim.siteId, epoch: claim.epoch };
    throw replicationFailure('REPLICATION_HELD_HERE', said, { context });
  }

  /** What would not be shown any more, and would run on or be kept up to date, when its replica begins anew. Throws REPLICATION_NOT_ENDED. */
  async #checkMayBeginAnew(replica: Replica): Promise<void> {
    const { adopted, machineName } = replica.record;
    const running = (await this.#o.failovers.list(replica)).filter(
      (branch) => branch.running && branch.branchId !== adopted,
    );
    if (running.length > 0) {
      const said = `branches of ${machineName} run and have to end first: ${running.map(({ branchId }) => branchId).join(', ')}`;
      throw replicationFailure('REPLICATION_NOT_ENDED', said);
    }
    if (!this.#o.isForwarded(replica)) return;
    const said = `the points of ${machineName} are forwarded from here: end that first, with \`warmsite replica forward ${machineName} --to SITE --stop\``;
    throw replicationFailure('REPLICATION_NOT_ENDED', said);
  }

  /**
   * The site from which the machine was brought up here took it back: its history goes on as if that had not been. What was written here
   * is put into the branch that the machine was, which keeps its point; then the machine is none of this site any more. May be repeated.
   */
  #turnBack(machine: ProtectedMachine, replica: Replica, arrival: Arrival): void {
    const { machineId, name } = machine.record;
    const { machines, audit, alerts, log, onTurnedBack } = this.#o;
    const work = async () => {
      // It has waited for its turn, and a person may have taken the machine back meanwhile.
      const { claim } = this.#theirs(machine, arrival);
      await machine.right.setApart();
      await this.#endTests(machine);
      await this.#o.diverged.checkNothingUpon(machineId);
      await endingAdoption(replica, machine, async () => {
        if (machine.record.protection) await machines.unprotect(machine);
        await this.#checkNothingKept(machine);
        await machines.remove(machine);
      });
      audit.note({ actor: 'site', act: 'vm.set-apart', subject: machineId, details: { ...claim } });
      alerts.clear(`turn:${machineId}`);
      onTurnedBack(replica);
    };
    const ended = this.#o.diverged
      .alone(machine, work)
      .catch((error: unknown) => {
        log.error('machine.not-set-apart', { machine: name, reason: messageOf(error) });
        // A person has removed it meanwhile: its replica goes on without it, as it would have.
        if (machines.get(machineId)?.machine !== machine) return;
        // It is this site's: nothing is to be put anywhere, and no copy comes that would say so.
        if (isFailure(error, 'REPLICATION_HELD_HERE')) alerts.clear(`turn:${machineId}`);
        else alerts.raise(`turn:${machineId}`, 'critical', failureOf(error), machineId);
      })
      .finally(() => this.#turningBack.delete(machineId));
    this.#turningBack.set(machineId, ended);
  }

  /** Its disks are written when they are put into the branch that it was: no test lies upon them then. */
  async #endTests({ layout: { directory } }: ProtectedMachine): Promise<void> {
    const branch = await this.#o.diverged.at(directory);
    for (const { branchId } of branch?.branches ?? []) await this.#o.failovers.cleanup(branch!, branchId);
  }

  /** Layers that a person has set aside are nobody's to throw away. Throws REPLICATION_NOT_ENDED. */
  async #checkNothingKept({ layout: { directory }, record: { name } }: ProtectedMachine): Promise<void> {
    const kept = await keptLayers(this.#o.files, directory);
    if (kept.length === 0) return;
    const said = `what ${name} has written is kept in ${directory} (${kept.join(', ')}): move it away, and its copies go on`;
    throw replicationFailure('REPLICATION_NOT_ENDED', said);
  }

  /** What is not ended is ended by the next process. */
  async close(): Promise<void> {
    await Promise.all(this.#turningBack.values());
  }

  /** The disks of a machine that was at home here, for the first copy of the site that holds it now. */
  formerDisks(siteId: string, header: DeltaHeader): OlderDisks | undefined {
    const { machineId } = header;
    const machine = this.#o.machines.get(machineId)?.machine;
    const tenure = machine?.right.tenure;
    if (tenure?.state !== 'follows' || tenure.claim.siteId !== siteId) return undefined;
    const known = new Set(machine!.record.disks.map(({ diskId }) => diskId));
    const files = header.disks
      .filter(({ diskId }) => known.has(diskId) && !this.#unfit.has(`${machineId} ${diskId}`))
      .map(({ diskId }) => {
        const chain = machine!.chain(diskId);
        return { diskId, ...chain.at(-1)!, below: chain.slice(0, -1) };
      });
    if (files.length === 0) return undefined;
    const { files: fileSystem, images, log } = this.#o;
    const onUnfit = async (diskId: string, reason: string): Promise<void> => {
      this.#unfit.add(`${machineId} ${diskId}`);
      log.warn('former-disk.unfit', { machineId, diskId, reason });
    };
    return new OlderDisks({ files: fileSystem, images, log, onUnfit }, header, files);
  }
}

function throwBroken(
  all: readonly { readonly machineId: string; readonly error: Error }[],
  machineId: string,
): void {
  const broken = all.find((one) => one.machineId === machineId);
  if (broken) throw broken.error;
}

function turningBack(machineId: string) {
  const said = 'what the machine has written here is being put into the branch that it was';
  return replicationFailure('REPLICATION_NOT_ENDED', said, { context: { machineId } });
}

function notYours(machineId: string) {
  const said = 'this machine is at home at another site';
  return replicationFailure('REPLICATION_NOT_YOURS', said, { context: { machineId } });
}

/** Whether a site brought the points of a replica, and this is one of them. */
function hasBrought(replica: Replica, siteId: string, pointId: string): boolean {
  return (
    bringerOf(replica.record) === siteId &&
    replica.points.some(({ statement }) => statement.pointId === pointId)
  );
}
