import { dirname } from 'node:path';
import type { ImageFile } from '../../src/hypervisor/index.ts';
import type { Claim } from '../../src/recovery-point/index.ts';
import type { Cession, CutRecord, ProtectedMachine, TargetRecord } from '../../src/replication/index.ts';
import { ChainContent } from './chain-content.ts';
import type { DiskImage, GuestMemory } from './guest.ts';
import { diskOf, type ProtectedSite } from './protected-site.ts';
import type { RecoverySite } from './recovery-site.ts';
import { ReplicaOracle } from './replica-oracle.ts';
import type { SimDisk } from './sim-disk.ts';
import type { Swarm } from './swarm.ts';
import { attempt, firstDifference, readWhole, Violation } from './violation.ts';

/**
 * Knows what must be true and looks whether it is: what the guest wrote, what its disks held at the instant of every
 * cut, and which points the recovery sites have acknowledged. It reads all disks behind everybody's back, with a
 * reader of its own, and believes no record of the product more than it must.
 */
export class Oracle {
  readonly #guest: GuestMemory;
  readonly #protected: ProtectedSite;
  readonly #protectedContent: ChainContent;
  /** What the disks held at each cut. */
  readonly #cuts = new Map<string, DiskImage>();
  /** One for each recovery site. */
  readonly replicas: readonly ReplicaOracle[];
  readonly #seen = new Map<string, string>();
  /** Where the guest's disks are, also while nothing runs. */
  #truth = new Map<string, readonly ImageFile[]>();
  #cutsSeen: readonly CutRecord[] | undefined;
  readonly #recoverySites: readonly RecoverySite[];
  /** What the machine was offered by last. */
  #offer: Claim | undefined;

  constructor(o: {
    swarm: Swarm;
    guest: GuestMemory;
    protectedSite: ProtectedSite;
    recoverySites: readonly RecoverySite[];
  }) {
    this.#guest = o.guest;
    this.#protected = o.protectedSite;
    this.#recoverySites = o.recoverySites;
    this.#protectedContent = new ChainContent(o.protectedSite.disk);
    this.replicas = o.recoverySites.map(
      (site) => new ReplicaOracle({ site, retention: o.swarm.retention, cuts: this.#cuts }),
    );
  }

  /** The machine has cut its disks, now. */
  onCut(cutId: string, diskIds: readonly string[]): void {
    this.#guest.flush(diskIds);
    this.#remember(cutId, diskIds);
  }

  /** The machine is offered to whoever has this point: it does not run, and the point is what its disks hold now. */
  onCeded({ pointId, offer }: Cession): void {
    if (this.#protected.fake?.isAlive) throw new Violation('the machine is ceded, and runs');
    this.#offer = offer;
    const point = this.#cuts.get(pointId);
    for (const [diskId, expected] of this.#guest.snapshot()) {
      const there = point?.get(diskId);
      if (there && !there.equals(expected))
        throw new Violation(`the machine is ceded, and ${diskId} is not what point ${pointId} has`);
    }
    if (!point) throw new Violation(`the machine is ceded with the unknown point ${pointId}`);
  }

  /** It may run again as soon as the site that it was offered to has made durable that it will not take it, whoever has heard of that. */
  #checkHeld(): void {
    if (!this.#offer || !this.#protected.fake?.isAlive) return;
    const { siteId, epoch } = this.#offer;
    const other = this.#recoverySites.find((site) => site.siteId === siteId)!;
    if (other.epochOnDisk() <= epoch)
      throw new Violation('the machine runs, and another site may take it at any moment');
  }

  #remember(cutId: string, diskIds: readonly string[]): void {
    const now = this.#guest.snapshot();
    this.#cuts.set(cutId, new Map(diskIds.map((diskId) => [diskId, now.get(diskId)!])));
  }

  async check(): Promise<void> {
    this.#noteCuts();
    this.#checkHeld();
    await this.#checkGuest();
    await this.#checkUnsent();
    for (const replica of this.replicas) await replica.check();
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
   * A cut of which no record says yet what came of it, or says that a tip is too small. A disk that grew in its very moment may have one,
   * until the cut is settled and the tip has been grown: nobody can grow a disk and cut it in one step.
   */
  #isCutUnsettled(): boolean {
    const { machine } = this.#protected;
    return !machine || machine.cuts.some(({ state, short }) => state === 'intended' || short !== undefined);
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
      const found = await readWhole(this.#protectedContent, chain, `the guest's ${diskId}`);
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
      const found = await readWhole(this.#protectedContent, chain, `the guest's ${diskId}`);
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
    const settled = settledThrough(machine.targets.map(({ record }) => record));
    for (const cut of machine.cuts) {
      if (cut.state !== 'sealed' || cut.merged || cut.ordinal <= settled) continue;
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
        const found = await readWhole(this.#protectedContent, chain, what);
        const expected = this.#cuts.get(cut.cutId)?.get(diskId);
        if (!expected?.equals(found)) throw new Violation(`${what} is not acknowledged and has changed`);
        this.#seen.set(`${cut.cutId} ${diskId}`, key);
      }
    }
  }

  /** The same for a copy of the protected disk: where its records say the machine is, there its content is. */
  async checkProtectedCopy(disk: SimDisk, machine: ProtectedMachine): Promise<void> {
    const content = new ChainContent(disk);
    for (const [diskId, chain] of this.#chainsOf(machine)) {
      const what = `the guest's ${diskId} after a power cut`;
      // Opened and attached again, so that every cut has been settled.
      const found = await readWhole(content, chain, what);
      const misfit = this.#guest.misfit(diskId, found, false);
      if (misfit) throw new Violation(`after a power cut: ${misfit}`);
    }
  }

  /** Old snapshots that nobody will ask for again. */
  forgetOldCuts(): void {
    if (this.#cuts.size < 60) return;
    const wanted = new Set([
      ...this.replicas.flatMap(({ pointIds }) => pointIds),
      ...(this.#cutsSeen ?? []).map(({ cutId }) => cutId),
    ]);
    const newest = [...this.#cuts.keys()].slice(-30);
    for (const cutId of newest) wanted.add(cutId);
    for (const cutId of [...this.#cuts.keys()]) if (!wanted.has(cutId)) this.#cuts.delete(cutId);
  }

  /** What has still to happen before everything is at rest; empty when it is. */
  async unrest(): Promise<string[]> {
    const { machine } = this.#protected;
    if (!machine || this.replicas.some(({ isUp }) => !isUp)) return ['a site is not up'];
    const newestCut = machine.cuts.at(-1);
    const wishes = this.replicas.flatMap((replica) => replica.unrest(newestCut?.cutId, this.#guest.diskIds));
    if (newestCut?.state !== 'sealed') wishes.push('the newest cut is not sealed');
    if (newestCut?.short) wishes.push(`tips are too small: ${newestCut.short.join(' ')}`);
    for (const { siteId, record } of machine.targets) {
      if (record.acknowledged?.pointId !== newestCut?.cutId)
        wishes.push(`the newest point is not acknowledged by ${siteId}`);
    }
    for (const { diskId, leaving } of machine.record.disks) {
      if (leaving) continue;
      const own = machine.chain(diskId).length - 1;
      if (own > 1) wishes.push(`${own} layers lie on ${diskId}`);
    }
    wishes.push(...this.#surplusAtProtected());
    const { openHandles } = this.#protected;
    if (openHandles.length > 0) wishes.push(`open at P: ${openHandles.join(' ')}`);
    return wishes;
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
      const found = await readWhole(this.#protectedContent, followed, `${diskId} by its headers`);
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
      const found = await readWhole(this.#protectedContent, chain, `the owner's ${diskId}`);
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

/**
 * Ordinal of the cut up to which no target asks for layers any more: it has acknowledged them, has a record in their place, or has
 * nothing yet and takes whatever the furthest one has.
 */
function settledThrough(targets: readonly TargetRecord[]): number {
  const reached = Math.max(...targets.map(({ acknowledged }) => acknowledged?.ordinal ?? 0));
  const held = targets.map(({ acknowledged, outrun, session }) => {
    const through = Math.max(acknowledged?.ordinal ?? 0, outrun?.throughOrdinal ?? 0);
    return through === 0 && !session ? reached : through;
  });
  return Math.min(reached, ...held);
}

function unique(chain: readonly ImageFile[]): ImageFile[] {
  return chain.filter(({ path }, index) => chain.findIndex((other) => other.path === path) === index);
}
