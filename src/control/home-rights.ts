import type { DeltaHeader } from '../delta/index.ts';
import type { DiskImages } from '../hypervisor/index.ts';
import { failuresOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Generation } from '../lib/generations.ts';
import type { Log } from '../lib/log.ts';
import { bringerOf, OlderDisks, type Replica, type Replicas, withTenure } from '../replica/index.ts';
import {
  type Arrival,
  type HomeMachines,
  REPLICATION_ERRORS,
  type SpeakingMachine,
} from '../replication/index.ts';
import type { Audit } from './audit.ts';
import type { Machines } from './machines.ts';

const replicationFailure = failuresOf(REPLICATION_ERRORS);

interface HomeTools {
  readonly machines: Pick<Machines, 'get' | 'broken'>;
  readonly replicas: Pick<Replicas, 'get'>;
  readonly audit: Pick<Audit, 'note'>;
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

  constructor(o: HomeTools) {
    this.#o = o;
  }

  of(machineId: string): SpeakingMachine | undefined {
    const { machines, replicas } = this.#o;
    const replica = replicas.get(machineId);
    if (replica && replica.record.adopted === undefined) return undefined;
    const machine = machines.get(machineId)?.machine;
    if (!machine) {
      this.#checkNotBroken(machineId);
      return undefined;
    }
    const { right } = machine;
    return {
      tenure: right.tenure,
      hear: (claim) => right.hear(claim),
      concerns: (siteId) =>
        right.tenure.claim.siteId === siteId ||
        // From which it came here: it may not have heard yet that it was taken.
        (replica !== undefined && bringerOf(replica.record) === siteId) ||
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
    const broken = this.#o.machines.broken.find((one) => one.machineId === machineId);
    if (broken) throw broken.error;
  }

  async admit({ machineId, epoch, parent, sourceSiteId, viaSiteId }: Arrival): Promise<Generation> {
    if (!this.of(machineId)) return undefined;
    const { machine } = this.#o.machines.get(machineId)!;
    const { name } = machine.record;
    const { claim, state } = machine.right.tenure;
    const context = { machineId, siteId: claim.siteId, epoch: claim.epoch };
    const isTheirs =
      (state === 'follows' || state === 'fenced') &&
      claim.siteId === sourceSiteId &&
      claim.epoch === epoch &&
      viaSiteId === undefined;
    if (!isTheirs) {
      const said = `${name} is at home here, and held by site ${claim.siteId} in epoch ${claim.epoch}`;
      throw replicationFailure('REPLICATION_HELD_HERE', said, { context });
    }
    if ((await machine.attach()).state !== 'stopped') {
      throw replicationFailure('REPLICATION_NOT_ENDED', `${name} has not ended here`, { context });
    }
    const replica = this.#o.replicas.get(machineId);
    if (replica) checkNoOtherBranches(replica);
    const isTurnedBack = replica && parent && hasBrought(replica, sourceSiteId, parent.pointId);
    if (isTurnedBack) {
      // The site from which it was brought up here took it back: its history goes on as if that had not been. What was written here
      // stays, upon a branch that keeps its point.
      await replica.update((record) => withTenure(record, { state: 'follows', claim }));
      await machine.right.setApart({ left: true });
      await replica.update({ adopted: undefined });
      this.#o.onTurnedBack(replica);
    } else await machine.right.setApart({ left: false });
    if (state === 'fenced')
      this.#o.audit.note({ actor: 'site', act: 'vm.set-apart', subject: machineId, details: { epoch } });
    return replica && !isTurnedBack ? epoch : undefined;
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

/** What would not be shown any more, and might run on, when its replica begins anew. Throws REPLICATION_NOT_ENDED. */
function checkNoOtherBranches({ record: { adopted, machineName }, branches }: Replica): void {
  const others = branches.filter(({ branchId, purpose }) => branchId !== adopted && purpose !== 'prepared');
  if (others.length === 0) return;
  const said = `branches of ${machineName} have to be cleaned up first: ${others.map(({ branchId }) => branchId).join(', ')}`;
  throw replicationFailure('REPLICATION_NOT_ENDED', said);
}

/** Whether a site brought the points of a replica, and this is one of them. */
function hasBrought(replica: Replica, siteId: string, pointId: string): boolean {
  return (
    bringerOf(replica.record) === siteId &&
    replica.points.some(({ statement }) => statement.pointId === pointId)
  );
}
