import { sep } from 'node:path';
import type { DiskImages } from '../../hypervisor/index.ts';
import { failuresOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { REPLICA_ERRORS, type Replicas } from '../../replica/index.ts';
import { hasEnded, loadDiverged, ProtectedLayout, REPLICATION_ERRORS } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import type { Groups } from '../groups/groups.ts';
import type { Machines } from '../machines/machines.ts';
import { DivergedBranch } from './diverged-branch.ts';
import { type Generations, generationOf } from './generations.ts';

const replicaFailure = failuresOf(REPLICA_ERRORS);
const replicationFailure = failuresOf(REPLICATION_ERRORS);

interface DivergedTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly siteId: string;
  readonly dataDirectory: string;
  readonly machines: Pick<Machines, 'list' | 'get' | 'discard'>;
  readonly replicas: Pick<Replicas, 'get'>;
  readonly groups: Pick<Groups, 'of'>;
  readonly generations: Pick<Generations, 'former' | 'needsOf' | 'remove'>;
}

/**
 * What machines wrote here before they were fenced, of this generation and of older ones: found by the records of the machines, which say so
 * from the moment on in which this site hears that another one has brought the machine up. One object per branch and site process.
 */
export class DivergedBranches {
  readonly #o: DivergedTools;
  readonly #opening = new Mutex();
  readonly #known = new Map<string, DivergedBranch>();

  constructor(o: DivergedTools) {
    this.#o = o;
  }

  /** Of one machine, or of all; the oldest first. What cannot be opened has none. */
  list(machineId?: string): Promise<readonly DivergedBranch[]> {
    return this.#opening.run(async () => {
      const { machines, generations, dataDirectory } = this.#o;
      const former = (await generations.former()).filter(({ kind }) => kind === 'machine');
      const layouts = [
        ...former.map(({ directory }) => layoutAt(dataDirectory, directory)),
        ...machines.list().map(({ machine }) => machine.layout),
      ];
      const found: DivergedBranch[] = [];
      for (const layout of layouts) {
        const branch = await this.#openAt(layout);
        if (branch && (machineId ?? branch.record.machineId) === branch.record.machineId) found.push(branch);
      }
      const present = new Set(found.map(({ branchId }) => branchId));
      for (const { branchId, record } of this.#known.values()) {
        if ((machineId ?? record.machineId) === record.machineId && !present.has(branchId))
          this.#known.delete(branchId);
      }
      return found.toSorted((a, b) => a.about.branch.fencedAtMs - b.about.branch.fencedAtMs);
    });
  }

  async #openAt(layout: ProtectedLayout): Promise<DivergedBranch | undefined> {
    const { files, siteId } = this.#o;
    const diverged = await loadDiverged(files, layout, siteId);
    if (!diverged) return undefined;
    const { branchId } = diverged.branch;
    let branch = this.#known.get(branchId);
    if (branch) branch.about = diverged;
    else branch = await DivergedBranch.open(this.#o, layout.directory, diverged);
    this.#known.set(branchId, branch);
    return branch;
  }

  /** By id, or by its name. Throws BRANCH_UNKNOWN. */
  async need(machineId: string, reference: string): Promise<DivergedBranch> {
    const all = await this.list(machineId);
    const found = all.find(({ branchId, name }) => branchId === reference || name === reference);
    if (found) return found;
    const said = `nothing called ${reference} was set apart here`;
    throw replicaFailure('BRANCH_UNKNOWN', said, { context: { branch: reference } });
  }

  /** Nobody writes its disks: the machine has ended. Throws REPLICATION_NOT_ENDED, and what hinders reading them. */
  async checkEnded(branch: DivergedBranch): Promise<void> {
    const { machineId, machineName } = branch.record;
    const machine = this.#machineOf(branch);
    if (machine) {
      await machine.attach();
      if (!hasEnded(machine))
        throw replicationFailure('REPLICATION_NOT_ENDED', `${machineName} has not ended here`, {
          context: { machineId },
        });
    }
    await branch.measure();
  }

  /** The machine that it was, where that is still what the site has of it. */
  #machineOf(branch: DivergedBranch) {
    const machine = this.#o.machines.get(branch.record.machineId)?.machine;
    return machine?.layout.directory === branch.layout.directory ? machine : undefined;
  }

  /** To be asked before the disks of a machine are written or go. Throws BRANCH_NEEDED. */
  async checkNothingUpon(machineId: string, directory?: string): Promise<void> {
    const at = directory ?? this.#o.machines.get(machineId)?.machine.layout.directory;
    const branch = (await this.list(machineId)).find(({ layout }) => layout.directory === at);
    if (branch) checkUnread(branch);
  }

  /**
   * Removes a branch with what it alone holds: the directory of the machine that it was. Files that its owner had before stay. Durable when
   * it has been decided, and ended by the next process if need be. Throws BRANCH_NEEDED, GENERATION_NEEDED, REPLICATION_NOT_ENDED,
   * MACHINE_IN_GROUP.
   */
  async remove(branch: DivergedBranch): Promise<void> {
    const { machines, generations, replicas, groups } = this.#o;
    const { machineId, machineName } = branch.record;
    const { directory } = branch.layout;
    checkUnread(branch);
    const machine = this.#machineOf(branch);
    if (!machine) {
      const former = (await generations.former(machineId)).find((one) => one.directory === directory);
      if (former) await generations.remove(machineId, former);
      return;
    }
    const group = groups.of(machineId);
    if (group) throw controlFailure('MACHINE_IN_GROUP', `${machineName} is in the group ${group.name}`);
    await this.checkEnded(branch);
    const { adopted } = machine.record;
    if (adopted && replicas.get(machineId)?.record.adopted === adopted.branchId) {
      const said = `${machineName} lies upon branch ${adopted.branchId} of its replica here, which its copies go on from`;
      throw controlFailure('GENERATION_NEEDED', said, { context: { machineId } });
    }
    const needs = await generations.needsOf(machineId, {
      kind: 'machine',
      epoch: branch.record.epoch,
      directory,
    });
    const [other] = needs.filter(({ path }) => !path.startsWith(directory + sep));
    if (other) {
      const said = `${other.path} lies upon it`;
      throw controlFailure('GENERATION_NEEDED', said, { context: { machineId, directory } });
    }
    await machines.discard(machine);
  }
}

function checkUnread(branch: DivergedBranch): void {
  const { branches, isRead, name, branchId } = branch;
  if (branches.length === 0 && !isRead) return;
  const tests = branches.map((test) => test.branchId).join(', ');
  const said = branches.length > 0 ? `tests lie upon ${name}: ${tests}` : `${name} is being read`;
  throw replicaFailure('BRANCH_NEEDED', said, { context: { branchId, above: tests } });
}

function layoutAt(dataDirectory: string, directory: string): ProtectedLayout {
  const { machineId, generation } = generationOf(directory);
  return new ProtectedLayout(dataDirectory, machineId, generation);
}
