import type { RetentionPolicy } from '../../src/recovery-point/index.ts';
import type { PointManifest } from '../../src/replica/index.ts';
import { ChainContent } from './chain-content.ts';
import type { DiskImage } from './guest.ts';
import { MACHINE_ID } from './protected-site.ts';
import type { RecoverySite } from './recovery-site.ts';
import type { SimDisk } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';
import { attempt, firstDifference, readWhole, Violation } from './violation.ts';

interface Acknowledged {
  readonly sequence: number;
  readonly isApplication: boolean;
}

const REPLICA = `/data/replicas/${MACHINE_ID}`;

/** What must be true of the replica at one recovery site, and of its word; see `Oracle`. */
export class ReplicaOracle {
  readonly #site: RecoverySite;
  readonly #retention: RetentionPolicy;
  readonly #content: ChainContent;
  /** What the disks held at each cut. */
  readonly #cuts: ReadonlyMap<string, DiskImage>;
  readonly acknowledged = new Map<string, Acknowledged>();
  /** Which point has a sequence number, for ever. */
  readonly #sequences = new Map<number, string>();
  /** Every point that was ever listed. */
  readonly #published = new Map<string, Acknowledged>();
  readonly #seen = new Map<string, string>();
  #listed: readonly PointManifest[] = [];
  pointsChecked = 0;

  constructor(o: {
    site: RecoverySite;
    retention: RetentionPolicy;
    cuts: ReadonlyMap<string, DiskImage>;
  }) {
    this.#site = o.site;
    this.#retention = o.retention;
    this.#cuts = o.cuts;
    this.#content = new ChainContent(o.site.disk);
  }

  get isUp(): boolean {
    return this.#site.replicas?.get(MACHINE_ID) !== undefined;
  }

  /** The points that are listed. */
  get pointIds(): readonly string[] {
    return this.#listed.map(({ signed }) => signed.statement.pointId);
  }

  /** The site has given its word for a point, now. */
  async onAcknowledged(pointId: string, sequence: number): Promise<void> {
    const manifest = (await listedPoints(this.#site.disk)).find(
      ({ signed }) => signed.statement.pointId === pointId,
    );
    if (!manifest) throw new Violation(`point ${sequence} was acknowledged and is not listed`);
    const { consistency } = manifest.signed.statement;
    this.acknowledged.set(pointId, { sequence, isApplication: consistency !== 'crash' });
  }

  /** Every listed point reads as at its cut, and every acknowledged one is listed or was let go by retention. */
  check(): Promise<void> {
    return this.#check(this.#site.disk, this.#content, this.#seen);
  }

  async #check(disk: SimDisk, content: ChainContent, seen: Map<string, string>): Promise<void> {
    const listing = disk.list(`${REPLICA}/points`).map((name) => {
      const path = `${REPLICA}/points/${name}`;
      return `${name} ${disk.file(path)?.version}`;
    });
    const listingKey = listing.join();
    const isNewListing = seen.get('listing') !== listingKey;
    const points = isNewListing ? await listedPoints(disk) : this.#listed;
    if (disk === this.#site.disk) this.#listed = points;
    for (const { signed } of points) {
      const { pointId, sequence, disks } = signed.statement;
      const ids = disks.map(({ diskId }) => diskId).join();
      const had = [...(this.#cuts.get(pointId)?.keys() ?? [])].join();
      if (had !== '' && ids !== had) throw new Violation(`point ${sequence} has ${ids}, and ${had} were cut`);
      for (const { diskId } of disks) {
        const what = `point ${sequence} of ${diskId}`;
        const chain = await attempt(what, () =>
          content.follow(`${REPLICA}/disks/${diskId}/${pointId}.qcow2`),
        );
        const key = content.keyOf(chain);
        if (seen.get(`${pointId} ${diskId}`) === key) continue;
        const found = await readWhole(content, chain, what);
        const expected = this.#cuts.get(pointId)?.get(diskId);
        if (!expected) throw new Violation(`${what} was never cut`);
        if (!expected.equals(found))
          throw new Violation(`${what} differs from its cut at ${firstDifference(found, expected)}`);
        seen.set(`${pointId} ${diskId}`, key);
        this.pointsChecked += 1;
      }
    }
    if (!isNewListing) return;
    this.#checkListing(points);
    seen.set('listing', listingKey);
  }

  #checkListing(points: readonly PointManifest[]): void {
    const statements = points.map(({ signed }) => signed.statement);
    for (const { sequence, pointId, consistency } of statements) {
      this.#published.set(pointId, { sequence, isApplication: consistency !== 'crash' });
      const known = this.#sequences.get(sequence);
      if (known !== undefined && known !== pointId) throw new Violation(`there are two points ${sequence}`);
      this.#sequences.set(sequence, pointId);
    }
    const newest = Math.max(0, ...this.#sequences.keys());
    if (this.#sequences.size !== newest) throw new Violation(`points up to ${newest} have gaps`);
    const listed = new Set(statements.map(({ pointId }) => pointId));
    for (const [pointId, { sequence, isApplication }] of this.acknowledged) {
      if (listed.has(pointId)) continue;
      const younger = [...this.#published.values()].filter(
        (other) => other.sequence > sequence && other.isApplication === isApplication,
      ).length;
      // The newest stays whatever it is; of each kind so many stay as the policy says.
      const { crash = 0, app = 0 } = this.#retention.types;
      const isNewest = [...this.#published.values()].every((other) => other.sequence <= sequence);
      if (isNewest || younger < (isApplication ? app : crash))
        throw new Violation(`acknowledged point ${sequence} is gone`);
    }
  }

  /** The same for a copy of the recovery disk that has lost its power and been opened again. */
  async checkCopy(disk: SimDisk): Promise<void> {
    const listed = this.#listed;
    await this.#check(disk, new ChainContent(disk), new Map());
    this.#listed = listed;
  }

  /** What has still to happen here before everything is at rest. */
  unrest(newestCutId: string | undefined, diskIds: readonly string[]): string[] {
    const site = this.#site;
    const replica = site.replicas!.get(MACHINE_ID)!;
    const wishes: string[] = [];
    const wish = (isFulfilled: boolean, what: string) => {
      if (!isFulfilled) wishes.push(`${site.name}: ${what}`);
    };
    wish(replica.newest?.statement.pointId === newestCutId, 'the newest cut is not there');
    const verdicts = replica.retention(replica.record.retention, () => false);
    wish(
      verdicts.every(({ reasons }) => reasons.length > 0),
      'points wait for retention',
    );
    wish(replica.branches.length === 0, 'a branch is left');
    for (const path of ['incoming', 'intents', 'branches']) {
      wish(site.disk.list(`${REPLICA}/${path}`).length === 0, `something is left in ${path}`);
    }
    const points = this.pointIds;
    for (const diskId of diskIds) {
      for (const name of site.disk.list(`${REPLICA}/disks/${diskId}`)) {
        wish(points.includes(name.replace(/\.(qcow2|leaves)$/, '')), `${name} is left`);
      }
    }
    wish(site.openHandles.length === 0, `open: ${site.openHandles.join(' ')}`);
    return wishes;
  }
}

async function listedPoints(disk: SimDisk): Promise<PointManifest[]> {
  const files = new SimFiles(disk);
  const points: PointManifest[] = [];
  for (const name of disk.list(`${REPLICA}/points`)) {
    if (!name.endsWith('.json')) continue;
    const file = await files.open(`${REPLICA}/points/${name}`, 'read');
    const bytes = Buffer.alloc(await file.sizeBytes());
    await file.read(bytes, 0);
    points.push(
      await attempt(`the manifest ${name}`, async () => JSON.parse(bytes.toString()) as PointManifest),
    );
  }
  return points.sort((a, b) => a.signed.statement.sequence - b.signed.statement.sequence);
}
