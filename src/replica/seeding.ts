import type { ImageFile } from '../hypervisor/index.ts';
import type { Failure } from '../lib/errors.ts';
import { Mutex } from '../lib/mutex.ts';
import { storeRecord } from '../lib/records.ts';
import { type SignedStatement, statementDigest } from '../recovery-point/index.ts';
import { type Acknowledgement, acknowledgementOf, diskIdsOf, type ReplicaPoint } from './description.ts';
import { replicaFailure } from './errors.ts';
import { layerPath } from './receive-session.ts';
import { manifestKind, type ReplicaRecord } from './records.ts';
import type { Replica } from './replica.ts';
import type { SeedFile } from './seed-file.ts';
import {
  checkAwaited,
  type ImportOptions,
  proveOnSeed,
  rebase,
  receiveSeed,
  redoRebase,
  refused,
} from './seed-import.ts';
import { publishStandIn, type SeedAnnouncement } from './stand-in.ts';
import type { ReplicaTools } from './tools.ts';

/** What the seeding of a replica needs of it. */
interface Seeded {
  readonly replica: Pick<Replica, 'layout' | 'record' | 'points' | 'chain' | 'reading'>;
  readonly tools: ReplicaTools;
  /** Files are changed by one act at a time; the list of points is read anew when `work` has ended, however it has. */
  changing<T>(work: () => Promise<T>): Promise<T>;
}

export interface SeedImported {
  readonly kind: 'imported' | 'already';
  readonly pointId: string;
  readonly sequence: number;
}

/** Whether the base comes by courier and has not come: none of these points can be used. */
export function areAwaitingSeed(points: readonly ReplicaPoint[]): boolean {
  return points[0]?.manifest.seed === 'awaited';
}

/** What is said to those who want to use a point whose base has not come. */
export function awaitingSeed({ machineId, machineName }: ReplicaRecord): Failure {
  const said = `the base of ${machineName} has not been imported`;
  return replicaFailure('REPLICA_AWAITING_SEED', said, { context: { machineId } });
}

/**
 * How a replica gets its base by courier. First the source announces what the base will be: an empty layer stands in for
 * it, and deltas are laid upon that. Then the seed comes, is read, proven, and put in the place of the stand-in.
 */
export class Seeding {
  readonly #o: Seeded;
  readonly #importing = new Mutex();
  #imports = 0;

  constructor(o: Seeded) {
    this.#o = o;
  }

  /** The acknowledgement of an announcement that is known already. */
  announced(signed: SignedStatement): Acknowledgement | undefined {
    const { points } = this.#o.replica;
    const digest = statementDigest(signed.statement);
    const known = points.find((point) => point.statementDigest === digest);
    return known && acknowledgementOf(known, areAwaitingSeed(points));
  }

  /** Throws REPLICA_DELTA_REFUSED where there are points already, and as `publishStandIn`. */
  async announce(
    announcement: SeedAnnouncement,
    source: AsyncIterable<Uint8Array>,
  ): Promise<Acknowledgement> {
    const known = this.announced(announcement.signed);
    if (known) return known;
    const { tools, replica } = this.#o;
    const { layout, record, points } = replica;
    if (points.length > 0) {
      throw replicaFailure(
        'REPLICA_DELTA_REFUSED',
        `the replica of ${record.machineName} has points already`,
      );
    }
    const published = await publishStandIn({ ...tools, layout, record }, announcement, source);
    const { statement, manifest } = published;
    return acknowledgementOf({ statement, manifest, statementDigest: statementDigest(statement) }, true);
  }

  /** Durable on return: retention leaves the point where it is until a base has come. */
  async keep(pointId: string): Promise<void> {
    const { tools, replica, changing } = this.#o;
    const { layout, record } = replica;
    await changing(async () => {
      const { points } = replica;
      const point = points.find(({ statement }) => statement.pointId === pointId);
      if (!areAwaitingSeed(points) || !point) {
        const said = `${record.machineName} awaits no seed of point ${pointId}`;
        throw replicaFailure('REPLICA_SEED_REFUSED', said, { context: { pointId } });
      }
      const { manifest } = point;
      if (manifest.seed !== undefined) return;
      const kept = { ...manifest, seed: 'exported' as const };
      await storeRecord(tools.files, layout.manifest(pointId), manifestKind(kept), kept);
    });
  }

  /**
   * Takes a seed in. On return it is the base of the replica: durable, read back, equal to what was signed, and the newest
   * point on it too. May be repeated, and goes on where it was interrupted. Throws REPLICA_SEED_REFUSED,
   * REPLICA_SEED_FOREIGN, REPLICA_SEED_DAMAGED; every point is as it was then.
   */
  import(seed: SeedFile, o: ImportOptions = {}): Promise<SeedImported> {
    this.#imports += 1;
    const imported = this.#importing.run(() => this.#import(seed, o));
    return imported.finally(() => {
      this.#imports -= 1;
    });
  }

  /** How many imports have begun and not ended. */
  get importing(): number {
    return this.#imports;
  }

  async #import(seed: SeedFile, o: ImportOptions): Promise<SeedImported> {
    const { pointId, sequence } = seed.statement;
    const { tools, replica, changing } = this.#o;
    const { layout, record } = replica;
    // An import that failed among its last steps is ended first.
    await changing(() => redoRebase(tools.files, layout));
    if (this.#isThere(seed)) return { kind: 'already', pointId, sequence };
    const awaited = checkAwaited(seed, replica.points, record.machineName);
    await receiveSeed({ ...tools, layout }, seed, o, tools.clock.wallMs());
    await replica.reading(() => this.#proveNewest(awaited, o));
    await changing(() => this.#rebase(seed, awaited));
    return { kind: 'imported', pointId, sequence };
  }

  /** True: there is nothing to do. Throws for a seed that has no business here. */
  #isThere(seed: SeedFile): boolean {
    const { tools, replica } = this.#o;
    const { record, points } = replica;
    const { sourceSiteId, machineId } = seed.statement;
    const isOurs =
      sourceSiteId === record.sourceSiteId && tools.isSignedBySource(sourceSiteId, seed.manifest.signed);
    if (!isOurs) {
      throw replicaFailure(
        'REPLICA_SEED_FOREIGN',
        `the seed ${seed.path} is not signed by the site that replicates ${record.machineName} here`,
        { context: { path: seed.path, machineId, signedFor: sourceSiteId, expected: record.sourceSiteId } },
      );
    }
    if (machineId !== record.machineId)
      throw refused(seed, `it is of another machine than ${record.machineName}`);
    if (areAwaitingSeed(points)) return false;
    if (this.announced(seed.manifest.signed)) return true;
    throw refused(seed, `${record.machineName} awaits no seed`);
  }

  async #proveNewest(awaited: ReplicaPoint, o: ImportOptions): Promise<void> {
    const { tools, replica } = this.#o;
    const { layout } = replica;
    const { pointId } = awaited.statement;
    const newest = replica.points.at(-1)!.statement;
    if (newest.pointId === pointId) return;
    const chainOf = (diskId: string): ImageFile[] => {
      const standIn = layout.layer(diskId, pointId);
      const files = replica.chain(newest.pointId, diskId);
      const at = files.findIndex(({ path }) => path === standIn);
      // A disk that came later has all of its layers here.
      if (at < 0) return files;
      return [{ path: layerPath(layout.seed, diskId), format: 'qcow2' }, ...files.slice(at + 1)];
    };
    await proveOnSeed(tools, newest, chainOf, o);
  }

  async #rebase(seed: SeedFile, awaited: ReplicaPoint): Promise<void> {
    const { tools, replica } = this.#o;
    const { layout, points } = replica;
    const { pointId } = awaited.statement;
    const below = points.slice(
      0,
      points.findIndex(({ statement }) => statement.pointId === pointId),
    );
    const held = below.find(({ manifest }) => manifest.held);
    if (held) throw refused(seed, `point ${held.statement.sequence} below it is held, and would be lost`);
    await rebase(
      { files: tools.files, layout },
      {
        pointId,
        remove: below.map(({ statement }) => statement.pointId),
        diskIds: [...new Set([...below, awaited].flatMap(diskIdsOf))],
      },
    );
  }
}
