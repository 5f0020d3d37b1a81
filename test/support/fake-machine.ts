import type { DiskCut, ImageFile, MachineDisk, Standstill } from '../../src/hypervisor/index.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import type { Actor } from './actor.ts';
import { commitLayer, type ImageLocks, openFiles } from './fake-images.ts';
import { openWritable, writeBackingName } from './writable-image.ts';

const SUBCLUSTER = 4096;

export interface FakeDisk {
  readonly deviceName: string;
  sizeBytes: number;
  chain: readonly ImageFile[];
}

/** A commit of the tip of one disk. */
interface TipCommit {
  readonly base: ImageFile;
  isGivenUp: boolean;
  /** It changes over to its base. */
  end: Promise<void> | undefined;
}

/** Told of what matters at the very instant at which it happens. */
export interface MachineObserver {
  readonly onCut: (overlays: readonly DiskCut[]) => void;
}

/**
 * The process of a virtual machine without QEMU: disks as chains of real image files, a guest that writes to their
 * tips, cuts and commits as `RunningMachine` demands them. It lives on when those who talk to it end.
 *
 * `files` should do everything at once; where the world may interrupt it asks `process` for its turn.
 */
export class FakeMachine {
  readonly #files: FileSystem;
  readonly #locks: ImageLocks;
  readonly #process: Actor;
  readonly #disks: readonly FakeDisk[];
  readonly #observer: MachineObserver | undefined;
  readonly #onGone = new Set<() => void>();
  /** Commits of the tip that are under way, by device. */
  readonly #commits = new Map<string, TipCommit>();
  #isAlive = true;
  #hasBegun = true;
  #standstill: Standstill | undefined;

  private constructor(o: {
    files: FileSystem;
    locks: ImageLocks;
    process: Actor;
    disks: readonly FakeDisk[];
    observer?: MachineObserver;
  }) {
    this.#files = o.files;
    this.#locks = o.locks;
    this.#process = o.process;
    this.#disks = o.disks;
    this.#observer = o.observer;
  }

  /** Opens every chain as QEMU would at its start; throws what hinders it. */
  static async start(o: {
    files: FileSystem;
    locks: ImageLocks;
    process: Actor;
    disks: readonly FakeDisk[];
    observer?: MachineObserver;
    /** Its guest does not run before it is told to. */
    paused?: boolean;
  }): Promise<FakeMachine> {
    const machine = new FakeMachine(o);
    if (o.paused) {
      machine.pause();
      machine.#hasBegun = false;
    }
    try {
      for (const disk of o.disks) {
        const { chain } = disk;
        chain.forEach(({ path }, index) => {
          o.locks.take(machine, path, index === chain.length - 1);
        });
        const { reader } = await openFiles(o.files, chain);
        disk.sizeBytes = reader.sizeBytes;
        await reader[Symbol.asyncDispose]();
      }
    } catch (error) {
      o.locks.releaseAll(machine);
      throw error;
    }
    return machine;
  }

  /** The guest's processors stand still: it writes nothing. */
  get isPaused(): boolean {
    return this.#standstill !== undefined;
  }

  get standstill(): Standstill | undefined {
    return this.#standstill;
  }

  /** One that stands still already does so for the same reason as before. */
  pause(): void {
    this.#standstill ??= { why: 'paused' };
  }

  /** An I/O error stops the guest. */
  fail(why: 'no-space' | 'io-error', deviceName: string): void {
    this.#standstill ??= { why, deviceNames: [deviceName] };
  }

  resume(): void {
    this.#standstill = undefined;
    this.#hasBegun = true;
  }

  /** The guest has run at least once. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /** Where its disks are, with everything done at once. */
  get files(): FileSystem {
    return this.#files;
  }

  get disks(): readonly MachineDisk[] {
    return this.#disks.map(({ deviceName, sizeBytes, chain }) => ({
      deviceName,
      sizeBytes,
      chain,
      tipNode: chain.at(-1)!.path,
    }));
  }

  sizeOf(deviceName: string): number {
    return this.#disk(deviceName).sizeBytes;
  }

  /** Ends the process at once, as SIGKILL does. What was written is in the page cache. */
  kill(): void {
    this.#isAlive = false;
    this.#locks.releaseAll(this);
    for (const listener of this.#onGone) listener();
    this.#onGone.clear();
  }

  onGone(listener: () => void): () => void {
    this.#onGone.add(listener);
    return () => this.#onGone.delete(listener);
  }

  /** What the guest reads on one of its disks. */
  async guestRead(deviceName: string, offset: number, length: number): Promise<Buffer> {
    const { reader } = await openFiles(this.#files, this.#disk(deviceName).chain);
    try {
      return await reader.read(offset, length);
    } finally {
      await reader[Symbol.asyncDispose]();
    }
  }

  /** A write of the guest, in sectors. Parts of 4 KiB are filled up with what was there, as QEMU does. */
  async guestWrite(deviceName: string, offset: number, data: Buffer): Promise<void> {
    const disk = this.#disk(deviceName);
    const start = Math.floor(offset / SUBCLUSTER) * SUBCLUSTER;
    const end = Math.min(Math.ceil((offset + data.length) / SUBCLUSTER) * SUBCLUSTER, disk.sizeBytes);
    const bytes = await this.guestRead(deviceName, start, end - start);
    data.copy(bytes, offset - start);
    await using tip = await openWritable(this.#files, disk.chain.at(-1)!);
    await tip.write(start, bytes);
  }

  /** The guest discards or zeroes whole parts of 4 KiB. */
  async guestZero(deviceName: string, offset: number, length: number): Promise<void> {
    await using tip = await openWritable(this.#files, this.#disk(deviceName).chain.at(-1)!);
    await tip.zero(offset, length);
  }

  /** The owner makes a disk larger, or we do: the tip alone grows, durably. */
  async grow(deviceName: string, sizeBytes: number): Promise<void> {
    const disk = this.#disk(deviceName);
    if (disk.sizeBytes >= sizeBytes) return;
    await using tip = await openWritable(this.#files, disk.chain.at(-1)!);
    await tip.grow(sizeBytes);
    disk.sizeBytes = sizeBytes;
  }

  async guestFlush(): Promise<void> {
    for (const { chain } of this.#disks) await this.#flush(chain.at(-1)!);
  }

  async #flush(image: ImageFile): Promise<void> {
    await using tip = await openWritable(this.#files, image);
    await tip.sync();
  }

  /** Overlays that disks are to be cut to are as large as the disks have become. */
  async growOverlays(cuts: readonly DiskCut[]): Promise<void> {
    for (const { deviceName, overlay } of cuts) {
      const { sizeBytes } = this.#disk(deviceName);
      await using opened = await openWritable(this.#files, overlay);
      if (opened.sizeBytes < sizeBytes) await opened.grow(sizeBytes);
    }
  }

  /** All disks at one instant; the old tips are flushed first. */
  async cut(cuts: readonly DiskCut[]): Promise<void> {
    const sizes = new Map<string, number>();
    for (const { deviceName, overlay } of cuts) {
      this.#disk(deviceName);
      const { reader } = await openFiles(this.#files, [overlay]);
      // The guest sees what the tip says, be it less than before.
      sizes.set(deviceName, reader.sizeBytes);
      await reader[Symbol.asyncDispose]();
    }
    await this.guestFlush();
    for (const { deviceName, overlay } of cuts) {
      const disk = this.#disk(deviceName);
      disk.chain = [...disk.chain, overlay];
      disk.sizeBytes = sizes.get(deviceName)!;
      this.#relock();
    }
    this.#observer?.onCut(cuts);
  }

  async commit(deviceName: string, layer: ImageFile): Promise<void> {
    await this.abandonCommit(deviceName);
    const { chain } = this.#disk(deviceName);
    const at = chain.findIndex(({ path }) => path === layer.path);
    if (at < 0) return;
    const base = chain[at - 1];
    const above = chain[at + 1];
    if (!base || !above) throw new Error(`${layer.path} is not between two layers of ${deviceName}`);
    await this.#writing([base], () =>
      commitLayer(this.#files, base, layer, () => this.#process.turn('commit', () => undefined)),
    );
    await this.#process.turn('commit ends', () => undefined);
    await this.#writing([above], () => writeBackingName(this.#files, above.path, base));
    const disk = this.#disk(deviceName);
    disk.chain = disk.chain.filter(({ path }) => path !== layer.path);
    this.#relock();
  }

  /** What lies above `base` is there as well from now on; the guest writes to the tip. It goes on when its caller dies. */
  async commitTip(deviceName: string, base: ImageFile): Promise<void> {
    const { chain } = this.#disk(deviceName);
    if (!this.#commits.has(deviceName) && chain.at(-1)!.path === base.path) return;
    const commit = this.#commits.get(deviceName) ?? { base, isGivenUp: false, end: undefined };
    this.#commits.set(deviceName, commit);
    try {
      await this.#commitDown(deviceName, base, async () => {
        await this.#process.turn('commit', () => undefined);
        if (commit.isGivenUp) throw new Error('the commit was cancelled');
      });
    } catch (error) {
      this.#commits.delete(deviceName);
      throw error;
    }
  }

  async #commitDown(deviceName: string, base: ImageFile, between?: () => Promise<void>): Promise<void> {
    const { chain } = this.#disk(deviceName);
    const at = chain.findIndex(({ path }) => path === base.path);
    if (at < 0) throw new Error(`${deviceName} does not lie on ${base.path}`);
    await this.#writing([base], async () => {
      for (const layer of chain.slice(at + 1)) await commitLayer(this.#files, base, layer, between);
    });
  }

  /** The guest writes to the base alone. */
  async completeCommit(deviceName: string): Promise<void> {
    const commit = this.#commits.get(deviceName);
    if (!commit) throw new Error(`nothing is committed on ${deviceName}`);
    commit.end ??= this.#changeOver(deviceName, commit.base);
    await commit.end;
  }

  async #changeOver(deviceName: string, base: ImageFile): Promise<void> {
    // What the guest has written meanwhile.
    await this.#commitDown(deviceName, base);
    const disk = this.#disk(deviceName);
    disk.chain = disk.chain.slice(0, disk.chain.findIndex(({ path }) => path === base.path) + 1);
    this.#commits.delete(deviceName);
    this.#relock();
  }

  /** One that changes over is not stopped any more: it ends with that. */
  async abandonCommit(deviceName: string): Promise<void> {
    const commit = this.#commits.get(deviceName);
    if (!commit) return;
    commit.isGivenUp = true;
    await commit.end;
    this.#commits.delete(deviceName);
  }

  async #writing(images: readonly ImageFile[], work: () => Promise<void>): Promise<void> {
    const releases: (() => void)[] = [];
    try {
      for (const { path } of images) releases.push(this.#locks.take(this, path, true));
      await work();
    } finally {
      for (const release of releases) release();
    }
  }

  #relock(): void {
    this.#locks.releaseAll(this);
    for (const { chain } of this.#disks) {
      chain.forEach(({ path }, index) => {
        this.#locks.take(this, path, index === chain.length - 1);
      });
    }
  }

  #disk(deviceName: string): FakeDisk {
    const disk = this.#disks.find((candidate) => candidate.deviceName === deviceName);
    if (!disk) throw new Error(`the machine has no disk ${deviceName}`);
    return disk;
  }
}
