import { join } from 'node:path';
import type { DeltaHeader } from '../delta/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { isId } from '../lib/random.ts';
import type { RetentionPolicy } from '../recovery-point/index.ts';
import { replicaFailure } from './errors.ts';
import { ReplicaLayout } from './layout.ts';
import { Replica, type ReplicaTools } from './replica.ts';

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
  readonly broken: readonly BrokenReplica[];

  private constructor(
    tools: ReplicaTools,
    dataDirectory: string,
    open: Map<string, Replica>,
    broken: BrokenReplica[],
  ) {
    this.#tools = tools;
    this.#dataDirectory = dataDirectory;
    this.#open = open;
    this.broken = broken;
  }

  /** Opens every replica there is. One that is damaged hinders no other: it is listed in `broken`. */
  static async open(tools: ReplicaTools, dataDirectory: string): Promise<Replicas> {
    const directory = join(dataDirectory, 'replicas');
    await tools.files.makeDirectory(directory);
    const open = new Map<string, Replica>();
    const broken: BrokenReplica[] = [];
    for (const machineId of (await tools.files.list(directory)) ?? []) {
      if (!isId(machineId)) continue;
      const layout = new ReplicaLayout(dataDirectory, machineId);
      try {
        if (!(await isHalfMade(tools.files, layout))) open.set(machineId, await Replica.open(tools, layout));
      } catch (error) {
        tools.log.error('replica.broken', { machineId, reason: messageOf(error) });
        broken.push({ machineId, error: error instanceof Error ? error : new Error(messageOf(error)) });
      }
    }
    return new Replicas(tools, dataDirectory, open, broken);
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
    const broken = this.broken.find((candidate) => candidate.machineId === machineId);
    if (broken) throw broken.error;
    throw replicaFailure('REPLICA_UNKNOWN', `this site has no replica of ${machineId}`, {
      context: { machineId },
    });
  }

  /** The replica that an offered delta belongs to; made if its machine is new here. */
  async forOffer(
    header: DeltaHeader,
    o: { sourceSiteId: string; machineName: string; retention: RetentionPolicy },
  ): Promise<Replica> {
    const known = this.#open.get(header.machineId);
    if (known) return known;
    if (this.broken.some(({ machineId }) => machineId === header.machineId))
      return this.need(header.machineId);
    const underWay = this.#making.get(header.machineId);
    if (underWay) return underWay;
    const layout = new ReplicaLayout(this.#dataDirectory, header.machineId);
    const making = Replica.create(this.#tools, layout, {
      machineId: header.machineId,
      machineName: o.machineName,
      sourceSiteId: o.sourceSiteId,
      epoch: header.epoch,
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
}

/** A directory whose maker was killed before it wrote the record: nothing was ever accepted into it. */
async function isHalfMade(files: FileSystem, layout: ReplicaLayout): Promise<boolean> {
  if ((await files.sizeOf(layout.record)) !== undefined) return false;
  return ((await files.list(layout.points)) ?? []).length === 0;
}
