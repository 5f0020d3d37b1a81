import { join } from 'node:path';
import type { DeltaHeader } from '../delta/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { type Generation, generationsIn } from '../lib/generations.ts';
import { Mutex } from '../lib/mutex.ts';
import { decideRemoval, endRemoval, isBeingRemoved, withdrawRemoval } from '../lib/removal.ts';
import { replicaFailure } from './errors.ts';
import { ReplicaLayout } from './layout.ts';
import type { ReplicaRecord } from './records.ts';
import { Replica } from './replica.ts';
import { firstTenure } from './replica-tenure.ts';
import type { ReplicaTools } from './tools.ts';
import type { InterruptedMerge } from './unmerged.ts';

/** A replica whose directory could not be opened, and why; its files are left as they are. */
export interface BrokenReplica {
  readonly machineId: string;
  readonly error: Error;
}

/** All replicas of a site, opened from its data directory. */
export class Replicas {
  readonly #tools: ReplicaTools;
  readonly #dataDirectory: string;
  readonly #open: Map<string, Replica>;
  /** Replicas that are being made: an offer that arrives twice makes one. */
  readonly #making = new Map<string, Promise<Replica>>();
  readonly #broken: Map<string, BrokenReplica>;
  /** What is done with replicas that cannot be opened. */
  readonly #mending = new Mutex();
  /** Replicas whose files are going: a new one of the same machine begins when they have gone. */
  readonly #removing = new Map<string, Promise<void>>();

  private constructor(
    tools: ReplicaTools,
    dataDirectory: string,
    open: Map<string, Replica>,
    broken: readonly BrokenReplica[],
  ) {
    this.#tools = tools;
    this.#dataDirectory = dataDirectory;
    this.#open = open;
    this.#broken = new Map(broken.map((one) => [one.machineId, one]));
  }

  /**
   * Opens every replica there is, and ends removals that were begun. One that is damaged hinders no other: it is listed in
   * `broken`. Nor does one whose merge was interrupted, if that is `left`: a tool that outlived its parent may hold a layer locked
   * for half a minute. Who takes that must see to it that `retire` is called soon; the points that stay are there at once.
   */
  static async open(
    tools: ReplicaTools,
    dataDirectory: string,
    merge: InterruptedMerge = 'ended',
  ): Promise<Replicas> {
    const directory = join(dataDirectory, 'replicas');
    await tools.files.makeDirectory(directory);
    const open = new Map<string, Replica>();
    const broken: BrokenReplica[] = [];
    for (const [machineId, generations] of await generationsOf(tools.files, directory)) {
      try {
        const layouts = layoutsOf(dataDirectory, machineId, generations);
        const replica = await openWhatIsThere(tools, layouts, merge);
        if (replica) open.set(machineId, replica);
      } catch (error) {
        tools.log.error('replica.broken', { machineId, reason: messageOf(error) });
        broken.push({ machineId, error: asError(error) });
      }
    }
    return new Replicas(tools, dataDirectory, open, broken);
  }

  /** Those that could not be opened. */
  get broken(): readonly BrokenReplica[] {
    return [...this.#broken.values()];
  }

  /**
   * Tries again to open those that could not be opened; returns the replicas that could be opened now. Nothing is received into
   * such a one before `prepare` has ended.
   */
  reopenBroken(prepare: (replica: Replica) => Promise<void>): Promise<readonly Replica[]> {
    return this.#mending.run(async () => {
      const opened: Replica[] = [];
      for (const { machineId } of this.broken) {
        try {
          const replica = await openWhatIsThere(this.#tools, await this.#layouts(machineId), 'ended');
          if (replica) await prepare(replica);
          this.#broken.delete(machineId);
          if (!replica) continue;
          this.#open.set(machineId, replica);
          opened.push(replica);
        } catch (error) {
          this.#broken.set(machineId, { machineId, error: asError(error) });
        }
      }
      return opened;
    });
  }

  list(): readonly Replica[] {
    return [...this.#open.values()];
  }

  get(machineId: string): Replica | undefined {
    return this.#open.get(machineId);
  }

  /** Throws REPLICA_UNKNOWN, or what hindered opening it. */
  need(machineId: string): Replica {
    const replica = this.#open.get(machineId);
    if (replica) return replica;
    const broken = this.#broken.get(machineId);
    if (broken) throw broken.error;
    throw replicaFailure('REPLICA_UNKNOWN', `this site has no replica of ${machineId}`, {
      context: { machineId },
    });
  }

  /** The directories of a machine that there are, the newest generation first. */
  async #layouts(machineId: string): Promise<readonly ReplicaLayout[]> {
    const directory = join(this.#dataDirectory, 'replicas');
    const generations = (await generationsOf(this.#tools.files, directory)).get(machineId) ?? [];
    return layoutsOf(this.#dataDirectory, machineId, generations);
  }

  /**
   * The replica that an offered delta belongs to; made if its machine is new here. One upon which the machine ran here is not
   * received into any more: its machine begins anew, in the generation that is given, and the files of the old one stay.
   */
  async forOffer(
    header: Pick<DeltaHeader, 'machineId' | 'epoch'>,
    o: Pick<ReplicaRecord, 'sourceSiteId' | 'viaSiteId' | 'machineName' | 'retention'> & {
      readonly generation?: Generation;
    },
  ): Promise<Replica> {
    const known = this.#open.get(header.machineId);
    const isOver = known?.record.adopted !== undefined && o.generation !== undefined;
    if (known && !isOver) return known;
    if (this.#broken.has(header.machineId)) return this.need(header.machineId);
    await this.#removing.get(header.machineId);
    const underWay = this.#making.get(header.machineId);
    if (underWay) return underWay;
    const layout = new ReplicaLayout(this.#dataDirectory, header.machineId, o.generation);
    const making = Replica.create(this.#tools, layout, {
      machineId: header.machineId,
      machineName: o.machineName,
      sourceSiteId: o.sourceSiteId,
      ...(o.viaSiteId === undefined ? {} : { viaSiteId: o.viaSiteId }),
      epoch: header.epoch,
      ...firstTenure(header.epoch, o.sourceSiteId),
      createdAtMs: this.#tools.clock.wallMs(),
      retention: o.retention,
    });
    this.#making.set(header.machineId, making);
    try {
      const replica = await making;
      this.#open.set(header.machineId, replica);
      return replica;
    } finally {
      this.#making.delete(header.machineId);
    }
  }

  /**
   * Removes the replica of a machine with all its points; of one that cannot be opened too. The decision is durable before
   * the first file goes, so that a removal that was cut short is ended at the next open. After that the machine is new here.
   * Throws REPLICA_UNKNOWN, REPLICA_NEEDED.
   */
  remove(machineId: string): Promise<void> {
    return this.#mending.run(() => this.#remove(machineId));
  }

  async #remove(machineId: string): Promise<void> {
    const { files } = this.#tools;
    const broken = this.#broken.get(machineId);
    // One that cannot be opened is the newest that there is.
    const known = this.#open.get(machineId)?.layout ?? (await this.#layouts(machineId))[0];
    const layout = known ?? new ReplicaLayout(this.#dataDirectory, machineId);
    const decide = () => decideRemoval(files, layout.directory);
    if (broken) {
      await checkNoBranches(files, layout);
      await decide();
    } else {
      await this.need(machineId).giveUp(decide, () => withdrawRemoval(files, layout.directory));
    }
    const removing = endRemoval(files, layout.directory);
    this.#open.delete(machineId);
    this.#broken.delete(machineId);
    this.#removing.set(machineId, removing);
    try {
      await removing;
      const older = await openWhatIsThere(this.#tools, await this.#layouts(machineId), 'left');
      if (older) this.#open.set(machineId, older);
    } catch (error) {
      // What is left is no replica any more; it is listed until a repeated removal, or the next open, ends it.
      this.#broken.set(machineId, { machineId, error: asError(error) });
      throw error;
    } finally {
      this.#removing.delete(machineId);
    }
  }
}

/** A replica that is being removed may have its sign left alone. */
async function generationsOf(
  files: FileSystem,
  directory: string,
): Promise<ReadonlyMap<string, readonly Generation[]>> {
  const names = (await files.list(directory)) ?? [];
  return generationsIn(names.map((name) => name.replace(/\.removed$/, '')));
}

function layoutsOf(
  dataDirectory: string,
  machineId: string,
  generations: readonly Generation[],
): readonly ReplicaLayout[] {
  return generations.map((generation) => new ReplicaLayout(dataDirectory, machineId, generation));
}

/** The newest generation into which anything was ever accepted and whose removal was not begun; undefined if there is none. */
async function openWhatIsThere(
  tools: ReplicaTools,
  layouts: readonly ReplicaLayout[],
  merge: InterruptedMerge,
): Promise<Replica | undefined> {
  for (const layout of layouts) {
    if (await isBeingRemoved(tools.files, layout.directory)) await endRemoval(tools.files, layout.directory);
    else if (!(await isHalfMade(tools.files, layout))) return Replica.open(tools, layout, merge);
  }
  return undefined;
}

/** Of a replica that cannot be opened only its directory tells. */
async function checkNoBranches(files: FileSystem, layout: ReplicaLayout): Promise<void> {
  if (await isBeingRemoved(files, layout.directory)) return;
  const branches = (await files.list(layout.branches)) ?? [];
  if (branches.length === 0) return;
  throw replicaFailure('REPLICA_NEEDED', `there are branches in ${layout.branches} (${branches.length})`, {
    context: { branches: branches.length },
  });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(messageOf(error));
}

/** A directory whose maker was killed before it wrote the record: nothing was ever accepted into it. */
async function isHalfMade(files: FileSystem, layout: ReplicaLayout): Promise<boolean> {
  if ((await files.sizeOf(layout.record)) !== undefined) return false;
  return ((await files.list(layout.points)) ?? []).length === 0;
}
