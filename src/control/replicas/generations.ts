import { basename, join, sep } from 'node:path';
import { throwIfAborted } from '../../lib/clock.ts';
import type { FileSystem } from '../../lib/files.ts';
import { type Generation, generationName, generationsIn } from '../../lib/generations.ts';
import { allocatedBytes, filesBelow } from '../../lib/host-files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { decideRemoval, endRemoval, isBeingRemoved, removalsIn, withdrawRemoval } from '../../lib/removal.ts';
import { filesInHeaders, loadPoints, ReplicaLayout, type Replicas } from '../../replica/index.ts';
import { newestCutMs, ProtectedLayout } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import type { Machines } from '../machines/machines.ts';
import type { OlderCopies } from './older-copies.ts';

/** What a site had of a machine before the newest turn of its replication. */
export interface FormerGeneration {
  readonly kind: 'machine' | 'replica';
  /** In which it began; 1 of the first one. */
  readonly epoch: number;
  readonly directory: string;
}

/** What lies upon the files of an older generation, by the headers of its images. */
export interface Need {
  readonly by: 'machine' | 'replica' | 'branch' | 'older-copy' | 'generation';
  /** The image at whose end the file is read. */
  readonly path: string;
}

interface GenerationTools {
  readonly files: FileSystem;
  readonly dataDirectory: string;
  readonly machines: Pick<Machines, 'list' | 'get' | 'broken'>;
  readonly replicas: Pick<Replicas, 'get' | 'broken'>;
  readonly olderCopies: Pick<OlderCopies, 'list'>;
}

const KINDS = { machine: 'protected', replica: 'replicas' } as const;

/** Older generations of machines: found by their directories, removed if no image that counts lies upon them. */
export class Generations {
  readonly #o: GenerationTools;
  readonly #removing = new Mutex();

  constructor(o: GenerationTools) {
    this.#o = o;
  }

  /** Of one machine, or of all that could be opened; the oldest first. Throws what hindered opening the one: it may need them. */
  async former(machineId?: string): Promise<FormerGeneration[]> {
    const { files, dataDirectory } = this.#o;
    const found: FormerGeneration[] = [];
    for (const kind of ['machine', 'replica'] as const) {
      const names = (await files.list(join(dataDirectory, KINDS[kind]))) ?? [];
      for (const [id, generations] of generationsIn(names)) {
        if (machineId !== undefined && id !== machineId) continue;
        const current = this.#current(kind, id, machineId === undefined);
        if (current === undefined) continue;
        for (const generation of generations) {
          const directory = join(dataDirectory, KINDS[kind], generationName(id, generation));
          if (directory !== current) found.push({ kind, epoch: epochOf(generation), directory });
        }
      }
    }
    return found.sort((a, b) => a.epoch - b.epoch);
  }

  /** The directory of what the site has of a machine now; undefined where it has nothing. */
  #current(kind: FormerGeneration['kind'], machineId: string, mayBeBroken: boolean): string | undefined {
    const { machines, replicas } = this.#o;
    const broken = [...machines.broken, ...replicas.broken].find((one) => one.machineId === machineId);
    if (broken && !mayBeBroken) throw broken.error;
    if (broken) return undefined;
    return kind === 'machine'
      ? machines.get(machineId)?.machine.layout.directory
      : replicas.get(machineId)?.layout.directory;
  }

  /** What needs files of an older generation of a machine, or of the present one. Throws what hinders reading the header of an image that counts. */
  async needsOf(machineId: string, { directory }: FormerGeneration, signal?: AbortSignal): Promise<Need[]> {
    const { files, dataDirectory } = this.#o;
    const isOurs = (path: string) => path.startsWith(dataDirectory + sep);
    const needs: Need[] = [];
    for (const { path, by, isQcow2 } of await this.#images(machineId, directory)) {
      throwIfAborted(signal);
      if (path.startsWith(directory + sep)) continue;
      // One that a merge or a person has taken away meanwhile needs nothing.
      if ((await files.sizeOf(path)) === undefined) continue;
      const chain = isQcow2 ? await filesInHeaders(files, path, isOurs) : [path];
      if (chain.some((file) => file.startsWith(directory + sep))) needs.push({ by, path });
    }
    return needs;
  }

  /** Every image of the site that may lie upon files of this directory, but those below its own layers. */
  async #images(machineId: string, except: string) {
    const { machines, replicas, olderCopies } = this.#o;
    const images: (Need & { readonly isQcow2: boolean })[] = [];
    const add = (by: Need['by'], path: string, isQcow2 = true) => images.push({ by, path, isQcow2 });
    for (const { machine } of machines.list().filter((one) => one.machine.layout.directory !== except))
      for (const { chain } of machine.record.disks)
        for (const { path, format } of chain) add('machine', path, format === 'qcow2');
    for (const { disks } of olderCopies.list())
      for (const { path, format } of disks) add('older-copy', path, format === 'qcow2');
    const machine = machines.get(machineId)?.machine.layout.directory;
    if (machine) for (const path of await layersBelow(machine)) add('machine', path);
    const replica = replicas.get(machineId)?.layout;
    if (replica) {
      for (const path of await layersBelow(replica.disks)) add('replica', path);
      for (const path of await layersBelow(replica.branches)) add('branch', path);
    }
    for (const { directory, kind } of await this.former(machineId)) {
      if (directory === except || (await isBeingRemoved(this.#o.files, directory))) continue;
      const within =
        kind === 'replica' ? [join(directory, 'disks'), join(directory, 'branches')] : [directory];
      for (const one of within) for (const path of await layersBelow(one)) add('generation', path);
    }
    return images;
  }

  /** The space that it takes, holes not counted. */
  async sizeBytes({ directory }: FormerGeneration): Promise<number> {
    let bytes = 0;
    for (const path of await filesBelow(directory)) bytes += await allocatedBytes(path);
    return bytes;
  }

  /** Of all machines whose present one could be opened. */
  async formerBytes(): Promise<number> {
    let bytes = 0;
    for (const one of await this.former()) bytes += await this.sizeBytes(one);
    return bytes;
  }

  /** When the newest state in it was cut; undefined where nothing tells that. */
  newestMs(machineId: string, { kind, directory }: FormerGeneration): Promise<number | undefined> {
    const { files, dataDirectory } = this.#o;
    const { generation } = generationOf(directory);
    if (kind === 'machine')
      return newestCutMs(files, new ProtectedLayout(dataDirectory, machineId, generation));
    const layout = new ReplicaLayout(dataDirectory, machineId, generation);
    return loadPoints(files, layout).then((points) => points.at(-1)?.manifest.cutAtHereMs);
  }

  /** The branches in a generation of a replica: what was written there is nowhere else. */
  async branches({ kind, directory }: FormerGeneration): Promise<readonly string[]> {
    return kind === 'replica' ? ((await this.#o.files.list(join(directory, 'branches'))) ?? []) : [];
  }

  /**
   * Removes an older generation of a machine. The decision is durable before the first file goes: a removal that was cut short is ended
   * when it is repeated, or when the site starts. Throws GENERATION_NEEDED, and as `needsOf`; nothing has gone then.
   */
  remove(machineId: string, former: FormerGeneration): Promise<void> {
    const { files } = this.#o;
    const { directory } = former;
    return this.#removing.run(async () => {
      // One that was begun is in pieces: it is ended, and counts for nothing else.
      if (!(await isBeingRemoved(files, directory))) {
        await this.#checkNotNeeded(machineId, former);
        await decideRemoval(files, directory);
        try {
          // What a person has removed meanwhile may have brought this one to the front again.
          await this.#checkNotNeeded(machineId, former);
        } catch (error) {
          await withdrawRemoval(files, directory);
          throw error;
        }
      }
      await endRemoval(files, directory);
    });
  }

  async #checkNotNeeded(machineId: string, former: FormerGeneration): Promise<void> {
    const { directory } = former;
    const isFormer = (await this.former(machineId)).some((one) => one.directory === directory);
    const needs = await this.needsOf(machineId, former);
    if (isFormer && needs.length === 0) return;
    const [first] = needs;
    const what = first
      ? `${BY[first.by]} lies upon it: ${first.path}`
      : 'it is what the site has of the machine now';
    throw controlFailure('GENERATION_NEEDED', `${basename(directory)} cannot go: ${what}`, {
      context: { machineId, directory },
    });
  }
}

const BY: Readonly<Record<Need['by'], string>> = {
  machine: 'a machine of this site',
  replica: 'the replica',
  branch: 'a branch of the replica',
  'older-copy': 'an older copy that is offered',
  generation: 'another older generation',
};

async function layersBelow(directory: string): Promise<string[]> {
  return (await filesBelow(directory)).filter((path) => path.endsWith('.qcow2'));
}

/** What people call it. */
export function nameOfGeneration({ kind, epoch }: FormerGeneration): string {
  return `${kind}.${epoch}`;
}

function epochOf(generation: Generation): number {
  return generation ?? 1;
}

/** Whose a directory is, and of which generation. */
export function generationOf(directory: string): {
  readonly machineId: string;
  readonly generation: Generation;
} {
  const [[machineId, [generation]]] = [...generationsIn([basename(directory)])] as [[string, [Generation]]];
  return { machineId, generation };
}

/** To be called before anything is opened. A removal that cannot be ended hinders nothing; it is tried again at the next start. */
export async function endRemovals(
  { files }: Pick<GenerationTools, 'files'>,
  dataDirectory: string,
  onFailure: (directory: string, error: unknown) => void,
): Promise<void> {
  for (const kind of Object.values(KINDS)) {
    const parent = join(dataDirectory, kind);
    for (const name of removalsIn((await files.list(parent)) ?? [])) {
      try {
        await endRemoval(files, join(parent, name));
      } catch (error) {
        onFailure(join(parent, name), error);
      }
    }
  }
}
