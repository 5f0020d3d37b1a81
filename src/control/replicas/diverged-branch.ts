import { join } from 'node:path';
import { checkMachineConfiguration, type DiskImages, type ImageFile } from '../../hypervisor/index.ts';
import { assert } from '../../lib/assert.ts';
import { failuresOf, isFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { allocatedBytes } from '../../lib/host-files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { isId } from '../../lib/random.ts';
import {
  type BranchRecord,
  listBranches,
  REPLICA_ERRORS,
  type Trunk,
  type TrunkState,
} from '../../replica/index.ts';
import { type Diverged, isLocked, REPLICATION_ERRORS } from '../../replication/index.ts';

const replicaFailure = failuresOf(REPLICA_ERRORS);
const replicationFailure = failuresOf(REPLICATION_ERRORS);

/**
 * What a machine wrote here that the site does not have which has brought it up. It lies in the disks that the machine had, which nobody
 * writes any more; tests of it are branches upon them, and lie in the directory of the machine.
 */
export class DivergedBranch implements Trunk {
  readonly layout: Trunk['layout'];
  readonly points = [];
  readonly newest = undefined;
  readonly #files: FileSystem;
  readonly #images: DiskImages;
  readonly #changing = new Mutex();
  #diverged: Diverged;
  #branches: readonly BranchRecord[] = [];
  /** By disk, as it was when it was last looked at. */
  #sizes: ReadonlyMap<string, number> = new Map();

  private constructor(
    tools: { readonly files: FileSystem; readonly images: DiskImages },
    directory: string,
    diverged: Diverged,
  ) {
    this.#files = tools.files;
    this.#images = tools.images;
    this.#diverged = diverged;
    const branches = join(directory, 'branches');
    this.layout = {
      ...{ directory, branches },
      branch: (branchId) => join(branches, checkedId(branchId)),
      proofs: (pointId) => join(directory, 'proofs', checkedId(pointId)),
    };
  }

  static async open(
    tools: { readonly files: FileSystem; readonly images: DiskImages },
    directory: string,
    diverged: Diverged,
  ): Promise<DivergedBranch> {
    const branch = new DivergedBranch(tools, directory, diverged);
    await branch.refreshBranches();
    return branch;
  }

  get branchId(): string {
    return this.#diverged.branch.branchId;
  }

  get name(): string {
    return this.#diverged.branch.name;
  }

  get about(): Diverged {
    return this.#diverged;
  }

  /** Its machine may have been renamed or moved, and is a branch all the same. */
  set about(diverged: Diverged) {
    assert(diverged.branch.branchId === this.branchId, 'a branch stays itself');
    this.#diverged = diverged;
  }

  get record(): Trunk['record'] {
    const { machineId, name } = this.#diverged.machine;
    return { machineId, machineName: name, epoch: this.#diverged.branch.lost.epoch };
  }

  get diskIds(): readonly string[] {
    return this.#diverged.disks.map(({ diskId }) => diskId);
  }

  /** The tests of it that there are, as `refreshBranches` found them. */
  get branches(): readonly BranchRecord[] {
    return this.#branches;
  }

  /** How large its disks are; to be called before a test of it is made. Throws what hinders reading them: somebody may write them. */
  async measure(): Promise<void> {
    const sizes = new Map<string, number>();
    for (const { diskId, chain } of this.#diverged.disks) {
      await using reader = await this.#images.open(chain);
      sizes.set(diskId, reader.sizeBytes);
    }
    this.#sizes = sizes;
  }

  /** Throws REPLICATION_NOT_ENDED while somebody writes one of its files. What is not there, or cannot be read, nobody writes. */
  async checkNotWritten(): Promise<void> {
    const { machineId, machineName } = this.record;
    for (const file of this.#diverged.disks.flatMap(({ chain }) => chain)) {
      if ((await this.#files.sizeOf(file.path)) === undefined || !(await this.#isWritten(file))) continue;
      const said = `${file.path}, a file of ${machineName}, is being written`;
      throw replicationFailure('REPLICATION_NOT_ENDED', said, { context: { machineId } });
    }
  }

  async #isWritten(file: ImageFile): Promise<boolean> {
    try {
      return await isLocked(this.#images, [file]);
    } catch (error) {
      if (isFailure(error, 'IMAGE_UNREADABLE')) return false;
      throw error;
    }
  }

  /** What was written after the point that it begins at takes so much room: whole clusters, and their tables. */
  async ownBytes(): Promise<number> {
    let bytes = 0;
    for (const { own } of this.#diverged.disks)
      for (const { path } of own) bytes += (await this.#files.sizeOf(path)) ? await allocatedBytes(path) : 0;
    return bytes;
  }

  point(pointId: string): TrunkState {
    if (pointId !== this.branchId) {
      const said = `${this.record.machineName} has no branch ${pointId}`;
      throw replicaFailure('BRANCH_UNKNOWN', said, { context: { branch: pointId } });
    }
    const { machine, branch, disks } = this.#diverged;
    const sized = disks.map(({ diskId }) => {
      const sizeBytes = this.#sizes.get(diskId) ?? 0;
      return { diskId, sizeBytes };
    });
    const known = new Map(sized.map(({ diskId, sizeBytes }) => [diskId, sizeBytes]));
    const configuration = checkMachineConfiguration({
      ...machine.configuration,
      name: machine.name,
      disks: machine.configuration.disks.flatMap((disk) => {
        const sizeBytes = known.get(disk.diskId);
        return sizeBytes === undefined ? [] : [{ ...disk, sizeBytes: sizeBytes || disk.sizeBytes }];
      }),
    });
    const sequence = branch.from?.sequence ?? 0;
    return {
      statement: { pointId, sequence, copyType: 'crash', consistency: 'crash', configuration, disks: sized },
      manifest: { cutAtHereMs: branch.fencedAtMs },
      branchName: branch.name,
      tips: Object.fromEntries(disks.map(({ diskId, chain }) => [diskId, chain.at(-1)!])),
      tpmDirectory: machine.tpm?.directory,
    };
  }

  chain(_pointId: string, diskId: string): ImageFile[] {
    return [...this.#diverged.disks.find((disk) => disk.diskId === diskId)!.chain];
  }

  checkUsable(): void {
    // Nothing of it is on its way.
  }

  async holdLayers(): Promise<() => void> {
    // Nothing merges them, and a test upon them is known by its record: what else reads them is held by `DivergedBranches.reading`.
    return () => undefined;
  }

  refreshBranches(change?: () => Promise<void>): Promise<void> {
    return this.#changing.run(async () => {
      await change?.();
      this.#branches = await listBranches(this.#files, this.layout);
    });
  }
}

function checkedId(id: string): string {
  assert(isId(id), 'an id names a directory');
  return id;
}
