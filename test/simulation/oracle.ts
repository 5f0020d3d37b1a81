import { dirname } from 'node:path';
import type { ImageFile } from '../../src/hypervisor/index.ts';
import { messageOf } from '../../src/lib/errors.ts';
import type { PointManifest } from '../../src/replica/index.ts';
import type { CutRecord, ProtectedMachine } from '../../src/replication/index.ts';
import { ChainContent } from './chain-content.ts';
import type { DiskImage, GuestMemory } from './guest.ts';
import { diskOf, MACHINE_ID, type ProtectedSite } from './protected-site.ts';
import type { RecoverySite } from './recovery-site.ts';
import type { SimDisk } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';
import type { Swarm } from './swarm.ts';

/** A promise of the product was broken. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

interface Acknowledged {
  readonly sequence: number;
  readonly isApplication: boolean;
}

const REPLICA = `/data/replicas/${MACHINE_ID}`;

/**
 * Knows what must be true and looks whether it is: what the guest wrote, what its disks held at the instant of every
 * cut, and which points the recovery site has acknowledged. It reads both disks behind everybody's back, with a
 * reader of its own, and believes no record of the product more than it must.
 */
export class Oracle {
  readonly #swarm: Swarm;
  readonly #guest: GuestMemory;
  readonly #protected: ProtectedSite;
  readonly #recovery: RecoverySite;
  readonly #protectedContent: ChainContent;
  readonly #recoveryContent: ChainContent;
  /** What the disks held at each cut. */
  readonly #cuts = new Map<string, DiskImage>();
  readonly acknowledged = new Map<string, Acknowledged>();
  /** Which point has a sequence number, for ever. */
  readonly #sequences = new Map<number, string>();
  /** Every point that was ever listed. */
  readonly #published = new Map<string, Acknowledged>();
  readonly #seen = new Map<string, string>();
  /** Where the guest's disks are, also while nothing runs. */
  #truth = new Map<string, readonly ImageFile[]>();
  #cutsSeen: readonly CutRecord[] | undefined;
  pointsChecked = 0;

  constructor(o: {
    swarm: Swarm;
    guest: GuestMemory;
    protectedSite: ProtectedSite;
    recoverySite: RecoverySite;
  }) {
    this.#swarm = o.swarm;
    this.#guest = o.guest;
    this.#protected = o.protectedSite;
    this.#recovery = o.recoverySite;
    this.#protectedContent = new ChainContent(o.protectedSite.disk);
    this.#recoveryContent = new ChainContent(o.recoverySite.disk);
  }

  /** The machine has cut its disks, now. */
  onCut(cutId: string, diskIds: readonly string[]): void {
    this.#guest.flush(diskIds);
    this.#remember(cutId, diskIds);
  }

  #remember(cutId: string, diskIds: readonly string[]): void {
    const now = this.#guest.snapshot();
    this.#cuts.set(cutId, new Map(diskIds.map((diskId) => [diskId, now.get(diskId)!])));
  }

  /** The recovery site has given its word for a point, now. */
  async onAcknowledged(pointId: string, sequence: number): Promise<void> {
    const manifest = (await listedPoints(this.#recovery.disk)).find(
      ({ signed }) => signed.statement.pointId === pointId,
    );
    if (!manifest) throw new Violation(`point ${sequence} was acknowledged and is not listed`);
    const { consistency } = manifest.signed.statement;
    this.acknowledged.set(pointId, { sequence, isApplication: consistency !== 'crash' });
  }

  async check(): Promise<void> {
    this.#noteCuts();
    await this.#checkGuest();
    await this.#checkUnsent();
    await this.#checkReplica(this.#recovery.disk, this.#recoveryContent, this.#seen);
  }

  /** Cuts of a machine that does not run: its disks stand still, so their content is that of now. */
  #noteCuts(): void {
    const { machine, fake } = this.#protected;
    if (!machine || machine.cuts === this.#cutsSeen) return;
    this.#cutsSeen = machine.cuts;
    for (const { cutId, state, sealed } of machine.cuts) {
      if (state === 'intended' || this.#cuts.has(cutId)) continue;
      if (fake?.isAlive) throw new Violation(`cut ${cutId} is recorded, but the running machine made none`);
      this.#guest.learn(machine.record.disks);
      this.#remember(cutId, Object.keys(sealed));
    }
  }

  /**
   * A cut of which no record says yet what came of it. A disk that grew in its very moment may have a tip that is too small, until
   * the cut is settled: nobody can grow a disk and cut it in one step.
   */
  #isCutUnsettled(): boolean {
    const { machine } = this.#protected;
    return !machine || machine.cuts.some(({ state }) => state === 'intended');
  }

  #locate(): void {
    const { machine, fake } = this.#protected;
    if (fake?.isAlive) {
      const outside = machine ? this.#chainsOf(machine) : this.#truth;
      this.#truth = new Map([
        ...outside,
        ...fake.disks.map(({ deviceName, chain }) => [diskOf(deviceName), chain] as const),
      ]);
    } else if (machine && !machine.cuts.some(({ state }) => state === 'intended')) {
      this.#guest.learn(machine.record.disks);
      this.#truth = this.#chainsOf(machine);
    }
  }

  /** Where the site says that the disks are; one that it has given back is in its owner's file. */
  #chainsOf(machine: ProtectedMachine): Map<string, readonly ImageFile[]> {
    const here = new Set(machine.record.disks.map(({ diskId }) => diskId));
    return new Map(
      this.#guest.diskIds.map((diskId) => [
        diskId,
        here.has(diskId) ? machine.chain(diskId) : [this.#protected.ownFile(diskId)],
      ]),
    );
  }

  /** The chain of the machine reads as the guest remembers, whoever moves layers about below it. */
  async #checkGuest(): Promise<void> {
    this.#locate();
    for (const [diskId, chain] of this.#truth) {
      const key = this.#protectedContent.keyOf(chain);
      if (this.#seen.get(`guest ${diskId}`) === key) continue;
      const found = await this.#read(this.#protectedContent, chain, `the guest's ${diskId}`);
      const expected = this.#guest.content(diskId);
      const isNarrow = found.length < expected.length && this.#isCutUnsettled();
      if (!found.equals(isNarrow ? expected.subarray(0, found.length) : expected))
        throw new Violation(`the guest's ${diskId} has changed at ${firstDifference(found, expected)}`);
      if (!isNarrow) this.#seen.set(`guest ${diskId}`, key);
    }
  }

  /** The protected host lost its power: what it holds now must be something that the guest can have written. */
  async afterPowerCut(): Promise<void> {
    for (const [diskId, chain] of this.#truth) {
      const found = await this.#read(this.#protectedContent, chain, `the guest's ${diskId}`);
      const misfit = this.#guest.misfit(diskId, found, this.#isCutUnsettled());
      if (misfit) throw new Violation(`after a power cut: ${misfit}`);
      this.#guest.adopt(diskId, found);
    }
    this.#seen.clear();
  }

  /** Cuts that nobody has acknowledged can still be sent as they were. */
  async #checkUnsent(): Promise<void> {
    const { machine } = this.#protected;
    if (!machine) return;
    const acknowledged = machine.target?.acknowledged?.ordinal ?? 0;
    for (const cut of machine.cuts) {
      if (cut.state !== 'sealed' || cut.merged || cut.ordinal <= acknowledged) continue;
      for (const diskId of Object.keys(cut.sealed)) {
        const disk = machine.record.disks.find((candidate) => candidate.diskId === diskId)!;
        // The layers of a disk that leaves are merged with no cut.
        const layers = disk.leaving?.layers ?? [];
        const leaving = layers.slice(
          0,
          layers.findIndex(({ path }) => path === cut.sealed[diskId]!.path) + 1,
        );
        const below = machine.cuts
          .filter((other) => other.state !== 'intended' && !other.merged && other.ordinal <= cut.ordinal)
          .flatMap((other) => other.sealed[diskId] ?? []);
        const chain = disk.leaving ? [...disk.chain, ...leaving] : unique([...disk.chain, ...below]);
        const what = `cut ${cut.ordinal} of ${diskId}`;
        const key = this.#protectedContent.keyOf(chain);
        if (this.#seen.get(`${cut.cutId} ${diskId}`) === key) continue;
        const found = await this.#read(this.#protectedContent, chain, what);
        const expected = this.#cuts.get(cut.cutId)?.get(diskId);
        if (!expected?.equals(found)) throw new Violation(`${what} is not acknowledged and has changed`);
        this.#seen.set(`${cut.cutId} ${diskId}`, key);
      }
    }
  }

  /** Every listed point reads as at its cut, and every acknowledged one is listed or was let go by retention. */
  async #checkReplica(disk: SimDisk, content: ChainContent, seen: Map<string, string>): Promise<void> {
    const listing = disk.list(`${REPLICA}/points`).map((name) => {
      const path = `${REPLICA}/points/${name}`;
      return `${name} ${disk.file(path)?.version}`;
    });
    const listingKey = listing.join();
    const isNewListing = seen.get('listing') !== listingKey;
    const points = isNewListing ? await listedPoints(disk) : this.#listed;
    if (disk === this.#recovery.disk) this.#listed = points;
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
        const found = await this.#read(content, chain, what);
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

  #listed: readonly PointManifest[] = [];

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
      const { crash = 0, app = 0 } = this.#swarm.retention.types;
      const isNewest = [...this.#published.values()].every((other) => other.sequence <= sequence);
      if (isNewest || younger < (isApplication ? app : crash))
        throw new Violation(`acknowledged point ${sequence} is gone`);
    }
  }

  /** The same for a copy of the recovery disk that has lost its power and been opened again. */
  async checkCopy(disk: SimDisk): Promise<void> {
    const listed = this.#listed;
    await this.#checkReplica(disk, new ChainContent(disk), new Map());
    this.#listed = listed;
  }

  /** The same for a copy of the protected disk: where its records say the machine is, there its content is. */
  async checkProtectedCopy(disk: SimDisk, machine: ProtectedMachine): Promise<void> {
    const content = new ChainContent(disk);
    for (const [diskId, chain] of this.#chainsOf(machine)) {
      const what = `the guest's ${diskId} after a power cut`;
      // Opened and attached again, so that every cut has been settled.
      const found = await this.#read(content, chain, what);
      const misfit = this.#guest.misfit(diskId, found, false);
      if (misfit) throw new Violation(`after a power cut: ${misfit}`);
    }
  }

  #read(content: ChainContent, chain: readonly ImageFile[], what: string): Promise<Buffer> {
    return attempt(what, () => content.read(chain));
  }

  /** Old snapshots that nobody will ask for again. */
  forgetOldCuts(): void {
    if (this.#cuts.size < 60) return;
    const wanted = new Set([
      ...this.#listed.map(({ signed }) => signed.statement.pointId),
      ...(this.#cutsSeen ?? []).map(({ cutId }) => cutId),
    ]);
    const newest = [...this.#cuts.keys()].slice(-30);
    for (const cutId of newest) wanted.add(cutId);
    for (const cutId of [...this.#cuts.keys()]) if (!wanted.has(cutId)) this.#cuts.delete(cutId);
  }

  /** What has still to happen before everything is at rest; empty when it is. */
  async unrest(): Promise<string[]> {
    const { machine } = this.#protected;
    const replica = this.#recovery.replicas?.get(MACHINE_ID);
    if (!machine || !replica) return ['a site is not up'];
    const wishes: string[] = [];
    const wish = (isFulfilled: boolean, what: string) => {
      if (!isFulfilled) wishes.push(what);
    };
    const newestCut = machine.cuts.at(-1);
    wish(newestCut?.state === 'sealed', 'the newest cut is not sealed');
    wish(
      replica.newest?.statement.pointId === newestCut?.cutId,
      'the newest cut is not at the recovery site',
    );
    wish(machine.target?.acknowledged?.pointId === newestCut?.cutId, 'the newest point is not acknowledged');
    for (const { diskId, leaving } of machine.record.disks) {
      if (leaving) continue;
      const own = machine.chain(diskId).length - 1;
      wish(own <= 1, `${own} layers lie on ${diskId}`);
    }
    const verdicts = replica.retention(replica.record.retention, () => false);
    wish(
      verdicts.every(({ reasons }) => reasons.length > 0),
      'points wait for retention',
    );
    wish(replica.branches.length === 0, 'a branch is left');
    for (const path of ['incoming', 'intents', 'branches']) {
      wish(this.#recovery.disk.list(`${REPLICA}/${path}`).length === 0, `something is left in ${path}`);
    }
    wishes.push(...this.#surplusAtRecovery(), ...this.#surplusAtProtected());
    wish(this.#recovery.openHandles.length === 0, `open at R: ${this.#recovery.openHandles.join(' ')}`);
    wish(this.#protected.openHandles.length === 0, `open at P: ${this.#protected.openHandles.join(' ')}`);
    return wishes;
  }

  #surplusAtRecovery(): string[] {
    const points = this.#listed.map(({ signed }) => signed.statement.pointId);
    return this.#guest.diskIds.flatMap((diskId) =>
      this.#recovery.disk
        .list(`${REPLICA}/disks/${diskId}`)
        .filter((name) => !points.includes(name.replace(/\.(qcow2|leaves)$/, '')))
        .map((name) => `R keeps ${name}`),
    );
  }

  #surplusAtProtected(): string[] {
    const machine = this.#protected.machine!;
    const known = new Set(machine.record.disks.map(({ diskId }) => diskId));
    const strays = this.#protected.disk.list(machine.layout.disks).filter((diskId) => !known.has(diskId));
    if (strays.length > 0) return [`P keeps layers of ${strays.join(' ')}`];
    return machine.record.disks.flatMap(({ diskId }) => {
      const wanted = machine.chain(diskId).map(({ path }) => path);
      const own = wanted.at(-1)!;
      return this.#protected.disk
        .list(dirname(own))
        .map((name) => `${dirname(own)}/${name}`)
        .filter((path) => own.includes('/disks/') && !wanted.includes(path))
        .map((path) => `P keeps ${path}`);
    });
  }

  /** Whoever follows the headers from the tip, as a person with `qemu-img` would, reads the same. */
  async checkByHand(): Promise<void> {
    for (const [diskId, chain] of this.#truth) {
      const tip = chain.at(-1)!;
      if (tip.format === 'raw') continue;
      const followed = await attempt(`${diskId} by its headers`, () =>
        this.#protectedContent.follow(tip.path),
      );
      const found = await this.#read(this.#protectedContent, followed, `${diskId} by its headers`);
      if (!found.equals(this.#guest.content(diskId)))
        throw new Violation(`${diskId} reads otherwise by its headers`);
    }
  }

  /**
   * The protection has ended: the owner's own files hold everything, or after a power cut what was flushed, and nothing of ours is left
   * on the disks.
   */
  async checkOwnersFiles(hasLostPower: boolean): Promise<void> {
    const { machine, disk } = this.#protected;
    for (const { diskId, chain } of machine!.record.disks) {
      const found = await this.#read(this.#protectedContent, chain, `the owner's ${diskId}`);
      if (hasLostPower) {
        const misfit = this.#guest.misfit(diskId, found, false);
        if (misfit) throw new Violation(`the owner's file after a power cut: ${misfit}`);
        continue;
      }
      if (!found.equals(this.#guest.content(diskId)))
        throw new Violation(
          `the owner's ${diskId} lacks something at ${firstDifference(found, this.#guest.content(diskId))}`,
        );
    }
    const left = [...disk.files.keys()].filter((path) => path.endsWith('.qcow2') && path.startsWith('/data'));
    if (left.length > 0) throw new Violation(`the end of the protection left ${left.join(' ')}`);
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

async function attempt<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Violation(`${what} cannot be read: ${messageOf(error)}`);
  }
}

function unique(chain: readonly ImageFile[]): ImageFile[] {
  return chain.filter(({ path }, index) => chain.findIndex((other) => other.path === path) === index);
}

function firstDifference(a: Buffer, b: Buffer): string {
  for (let at = 0; at < Math.max(a.length, b.length); at += 512) {
    if (!a.subarray(at, at + 512).equals(b.subarray(at, at + 512))) return `sector ${at / 512}`;
  }
  return 'its end';
}
