import type { BranchView, ExportBranchRequest, JobView, TestBranchRequest } from '../../api/index.ts';
import { FAILOVER_ERRORS, type Failovers } from '../../failover/index.ts';
import type { DiskImages } from '../../hypervisor/index.ts';
import { type Clock, throwIfAborted } from '../../lib/clock.ts';
import { failuresOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { branchChain, findBranch, type Trunk } from '../../replica/index.ts';
import type { JobArgs, JobContext, JobHandler, Jobs } from '../base/jobs.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { type BranchExported, exportBranch, removePartialExport } from '../replicas/branch-export.ts';
import type { DivergedBranch } from '../replicas/diverged-branch.ts';
import type { DivergedBranches } from '../replicas/diverged-branches.ts';

const failoverFailure = failuresOf(FAILOVER_ERRORS);

interface DivergedActsTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly clock: Clock;
  readonly failovers: Pick<Failovers, 'list'>;
  readonly inventory: Pick<Inventory, 'find' | 'replica'>;
  readonly diverged: DivergedBranches;
}

/** A branch that a person has named: of the replica, one that diverged, or a test of such. */
export interface Meant {
  readonly machineId: string;
  readonly branchId: string;
  /** The branch that diverged of which it is a test, or which it is. */
  readonly diverged?: string;
}

/** What a person does with branches that diverged, and with branches of whatever kind there. */
export class DivergedActs {
  readonly #o: DivergedActsTools;
  readonly #jobs: () => Jobs;

  constructor(o: DivergedActsTools & { readonly jobs: () => Jobs }) {
    this.#o = o;
    this.#jobs = o.jobs;
  }

  /** The branches of a machine that diverged, each before its tests. */
  async list(machineId: string): Promise<BranchView[]> {
    const views: BranchView[] = [];
    for (const branch of await this.#o.diverged.list(machineId)) {
      views.push(await viewOf(branch));
      for (const test of await this.#o.failovers.list(branch)) {
        const { pointId: _parent, ...view } = testView(test);
        views.push({ ...view, ...parentOf(branch), machineId, upon: branch.branchId });
      }
    }
    return views;
  }

  /** Throws what hinders reading the records in which there may be branches that `list` does not show. */
  checkRead(machineId: string): void {
    this.#o.diverged.checkRead(machineId);
  }

  /** By name or id. Throws BRANCH_UNKNOWN, MACHINE_NO_REPLICA where nothing could have a branch, and as `checkRead`. */
  async meant(reference: string, branch: string): Promise<Meant> {
    const { machineId, replica } = this.#o.inventory.find(reference);
    const isMeant = (one: { readonly branchId: string; readonly name?: string | undefined }) =>
      one.branchId === branch || one.name === branch;
    const ofReplica = replica?.branches.find(isMeant);
    if (ofReplica) return { machineId, branchId: ofReplica.branchId };
    for (const one of await this.#o.diverged.list(machineId)) {
      const found = isMeant(one) ? one : one.branches.find(isMeant);
      if (found) return { machineId, branchId: found.branchId, diverged: one.branchId };
    }
    this.checkRead(machineId);
    return { machineId, branchId: findBranch(this.#o.inventory.replica(reference), branch).branchId };
  }

  /** As `meant`, of a branch that has a machine of its own. Throws FAILOVER_BRANCH_DIVERGED. */
  async withMachine(reference: string, branch: string): Promise<Meant> {
    const meant = await this.meant(reference, branch);
    if (!isItself(meant)) return meant;
    const said = `${branch} is what the machine wrote here, and is not started as it`;
    throw failoverFailure('FAILOVER_BRANCH_DIVERGED', said, { context: { branchId: meant.branchId } });
  }

  async test(actor: string, reference: string, branch: string, request: TestBranchRequest): Promise<JobView> {
    const { machineId } = this.#o.inventory.find(reference);
    const { branchId } = await this.#o.diverged.need(machineId, branch);
    const args = { ...request, diverged: branchId, keep: request.keep ?? false };
    return this.#jobs().start({ kind: 'failover.test', args, actor, machineId });
  }

  async export(
    actor: string,
    reference: string,
    branch: string,
    { path }: ExportBranchRequest,
  ): Promise<JobView> {
    const { machineId, ...meant } = await this.meant(reference, branch);
    return this.#jobs().start({ kind: 'failover.export', args: { ...meant, path }, actor, machineId });
  }

  /** The branch that diverged which a job is about, if it is about one. Throws BRANCH_UNKNOWN. */
  async of(machineId: string, args: JobArgs): Promise<DivergedBranch | undefined> {
    return typeof args.diverged === 'string' ? this.#o.diverged.need(machineId, args.diverged) : undefined;
  }

  /** As `DivergedBranches.reading`. */
  reading<T>(machineId: string, branchId: string, work: (branch: DivergedBranch) => Promise<T>): Promise<T> {
    return this.#o.diverged.reading(machineId, branchId, work);
  }

  /** As `DivergedBranches.remove`. */
  remove(machineId: string, branchId: string, signal: AbortSignal): Promise<boolean> {
    return this.#o.diverged.remove(machineId, branchId, signal);
  }

  get handlers(): { readonly 'failover.export': JobHandler } {
    return { 'failover.export': this.#exporting };
  }

  readonly #exporting: JobHandler = {
    repeatable: true,
    // What it has written is removed.
    unwinds: true,
    run: async (job) => {
      try {
        throwIfAborted(job.signal);
        return await this.#export(job);
      } catch (error) {
        // Of one that failed for want of room it would keep the room.
        const place = { jobId: job.jobId, path: String(job.args.path) };
        await removePartialExport(this.#o.files, place);
        throw error;
      }
    },
  };

  async #export(job: JobContext): Promise<BranchExported> {
    const { machineId, args } = job;
    if (typeof args.diverged === 'string')
      return this.#o.diverged.reading(machineId, args.diverged, (diverged) =>
        this.#write(job, diverged, diverged),
      );
    const replica = this.#o.inventory.replica(machineId);
    const release = await replica.holdLayers();
    try {
      return await this.#write(job, replica);
    } finally {
      release();
    }
  }

  async #write(
    { jobId, args, signal, progress }: JobContext,
    trunk: Trunk,
    diverged?: DivergedBranch,
  ): Promise<BranchExported> {
    const { files, images, clock } = this.#o;
    const about = await this.#exported(trunk, String(args.branchId), diverged);
    return exportBranch({ files, images }, about, {
      ...{ jobId, path: String(args.path) },
      exportedAtMs: clock.wallMs(),
      signal,
      onProgress: ({ bytesDone, bytesTotal }) =>
        progress({ step: 'writing the disks', bytesDone, bytesTotal }),
    });
  }

  /** Throws FAILOVER_RUNS_ALREADY for a branch whose machine runs: its disks change. */
  async #exported(
    trunk: Trunk,
    branchId: string,
    diverged: DivergedBranch | undefined,
  ): Promise<Parameters<typeof exportBranch>[1]> {
    const { machineId, machineName } = trunk.record;
    if (diverged?.branchId === branchId) {
      const { name, about } = diverged;
      return { machineId, machineName, branchId, name, disks: about.disks };
    }
    const branch = findBranch(trunk, branchId);
    const view = (await this.#o.failovers.list(trunk)).find((one) => one.branchId === branchId);
    if (view?.running || view?.adopted) {
      const said = `branch ${branchId} of ${machineName} is at work`;
      throw failoverFailure('FAILOVER_RUNS_ALREADY', said, { context: { branchId } });
    }
    const disks = branch.diskIds.map((diskId) => ({ diskId, chain: branchChain(trunk, branch, diskId) }));
    return { machineId, machineName, branchId, name: branch.name ?? branchId, disks };
  }
}

function isItself({ branchId, diverged }: Pick<Meant, 'branchId' | 'diverged'>): boolean {
  return branchId === diverged;
}

/** The point that a branch begins at, as far as one is known. */
function parentOf({
  about: { branch },
}: DivergedBranch): Pick<BranchView, 'pointId' | 'sequence' | 'divergedAtMs'> {
  if (!branch.from) return {};
  const { pointId, sequence, cutAtMs } = branch.from;
  return { pointId, sequence, ...(cutAtMs === undefined ? {} : { divergedAtMs: Math.round(cutAtMs) }) };
}

async function viewOf(branch: DivergedBranch): Promise<BranchView> {
  return {
    ...{ branchId: branch.branchId, name: branch.name, machineId: branch.record.machineId },
    ...parentOf(branch),
    ...{ purpose: 'diverged', createdAtMs: branch.about.branch.fencedAtMs, state: 'kept' },
    ...{ running: false, ownBytes: await branch.ownBytes(), limits: {}, paused: false, adopted: false },
  };
}

/** What is shown of a branch that has a machine of its own. */
export function testView(
  view: Awaited<ReturnType<Failovers['list']>>[number],
): Omit<BranchView, 'machineId'> {
  const { phase, sockets: _here, reason: _why, limits, ...shown } = view;
  const { endsAtMs, ...taken } = limits;
  return {
    ...{ ...shown, state: phase, limits: taken },
    ...(endsAtMs === undefined ? {} : { endsAtMs }),
  };
}
