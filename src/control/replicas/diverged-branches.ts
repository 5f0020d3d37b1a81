import type { Failovers } from '../../failover/index.ts';
import type { DiskImages } from '../../hypervisor/index.ts';
import { throwIfAborted } from '../../lib/clock.ts';
import { type Failure, failuresOf, isFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { REPLICA_ERRORS, type Replicas } from '../../replica/index.ts';
import {
  hasEnded,
  loadDiverged,
  ProtectedLayout,
  type ProtectedMachine,
  REPLICATION_ERRORS,
} from '../../replication/index.ts';
import type { AlertSink, Alerts } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';
import type { Groups } from '../groups/groups.ts';
import { clearHomeAlerts } from '../machines/home-alerts.ts';
import { checkNothingKept } from '../machines/kept-layers.ts';
import { changedMeanwhile } from '../machines/machine-removal.ts';
import type { Machines } from '../machines/machines.ts';
import { liesUpon } from '../machines/speaking-home.ts';
import type { TriggerTokens } from '../machines/trigger-tokens.ts';
import { DiskTurns } from './disk-turns.ts';
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
  readonly alerts: AlertSink & Pick<Alerts, 'clearMachine'>;
  readonly triggerTokens: Pick<TriggerTokens, 'remove'>;
  readonly failovers: Pick<Failovers, 'recover'>;
}

/** A directory of a machine whose records cannot be read: whether there is a branch in it is not known. */
interface Unread {
  readonly machineId: string;
  readonly directory: string;
  readonly failure: Failure;
}

/**
 * What machines wrote here before they were fenced, of this generation and of older ones: found by the records of the machines, which say so
 * from the moment on in which this site hears that another one has brought the machine up. One object per branch and site process.
 */
export class DivergedBranches {
  readonly #o: DivergedTools;
  readonly #opening = new Mutex();
  readonly #turns = new DiskTurns();
  readonly #known = new Map<string, DivergedBranch>();
  /** As it was when it was last looked. */
  #unread: readonly Unread[] = [];

  private constructor(o: DivergedTools) {
    this.#o = o;
  }

  /** With the tests that an earlier process has left upon them. */
  static async open(o: DivergedTools): Promise<DivergedBranches> {
    const branches = new DivergedBranches(o);
    await branches.list();
    return branches;
  }

  /**
   * Of one machine, or of all; the oldest first. What cannot be read has none, hinders no other, and is an alert until it can be: nobody should
   * have to do without a failover, or start a site again, for what was written before the last one.
   */
  list(machineId?: string): Promise<readonly DivergedBranch[]> {
    return this.#opening.run(async () => {
      const isMeant = (one: { readonly machineId: string }) => (machineId ?? one.machineId) === one.machineId;
      const found: DivergedBranch[] = [];
      const unread: Unread[] = [];
      const read = new Set<string>();
      for (const directory of await this.#directories()) {
        const of = generationOf(directory);
        if (!isMeant(of)) continue;
        read.add(of.machineId);
        try {
          const branch = await this.#openAt(directory);
          if (branch) found.push(branch);
        } catch (failure) {
          if (!isFailure(failure)) throw failure;
          unread.push({ machineId: of.machineId, directory, failure });
        }
      }
      this.#forget(found, (one) => isMeant(one.record) && !isIn(unread, one.layout.directory));
      const before = this.#unread.filter(isMeant);
      this.#unread = [...this.#unread.filter((one) => !isMeant(one)), ...unread];
      this.#tell(new Set([...read, ...before.map((one) => one.machineId)]));
      return found.toSorted((a, b) => a.about.branch.fencedAtMs - b.about.branch.fencedAtMs);
    });
  }

  /** Where machines were or are at home: of what cannot be opened nothing. */
  async #directories(): Promise<string[]> {
    const { machines, generations } = this.#o;
    const former = (await generations.former()).filter(({ kind }) => kind === 'machine');
    return [
      ...former.map(({ directory }) => directory),
      ...machines.list().map(({ machine }) => machine.layout.directory),
    ];
  }

  /** Branches that are there no more; one that cannot be read for a while stays who it is, with those who read it. */
  #forget(found: readonly DivergedBranch[], mayGo: (branch: DivergedBranch) => boolean): void {
    for (const branch of this.#known.values())
      if (!found.includes(branch) && mayGo(branch)) this.#known.delete(branch.branchId);
  }

  #tell(machineIds: Iterable<string>): void {
    for (const machineId of machineIds) {
      const unread = this.#unread.find((one) => one.machineId === machineId);
      const key = `diverged:${machineId}`;
      if (unread) this.#o.alerts.raise(key, 'critical', unread.failure, machineId);
      else this.#o.alerts.clear(key);
    }
  }

  async #openAt(directory: string): Promise<DivergedBranch | undefined> {
    const { files, siteId, dataDirectory, failovers } = this.#o;
    const { machineId, generation } = generationOf(directory);
    const layout = new ProtectedLayout(dataDirectory, machineId, generation);
    // What a replica has in a directory of its own is no machine.
    if (layout.directory !== directory) return undefined;
    const diverged = await loadDiverged(files, layout, siteId);
    if (!diverged) return undefined;
    const { branchId } = diverged.branch;
    const known = this.#known.get(branchId);
    if (known) {
      known.about = diverged;
      return known;
    }
    const branch = await DivergedBranch.open(this.#o, directory, diverged);
    // Before anybody does anything with them, also where the records could not be read when the site started.
    if (branch.branches.length > 0) await failovers.recover([branch]);
    this.#known.set(branchId, branch);
    return branch;
  }

  /** The branch in one directory, if there is one. Throws what hinders reading its records: who writes or removes its disks must know. */
  at(directory: string): Promise<DivergedBranch | undefined> {
    return this.#opening.run(() => this.#openAt(directory));
  }

  /** Throws what hindered reading records of the machine when it was last looked: what is not found may be there. */
  checkRead(machineId: string): void {
    const unread = this.#unread.find((one) => one.machineId === machineId);
    if (unread) throw unread.failure;
  }

  /** By id, or by its name. Throws BRANCH_UNKNOWN, and as `checkRead`. */
  async need(machineId: string, reference: string): Promise<DivergedBranch> {
    const all = await this.list(machineId);
    const found = all.find(({ branchId, name }) => branchId === reference || name === reference);
    if (found) return found;
    this.checkRead(machineId);
    const said = `nothing called ${reference} was set apart here`;
    throw replicaFailure('BRANCH_UNKNOWN', said, { context: { branch: reference } });
  }

  /**
   * Reads the disks of a branch, or makes tests upon them: nobody writes them, and no act begins that would. Throws BRANCH_UNKNOWN,
   * MACHINE_CHANGING, REPLICATION_NOT_ENDED, and what hinders reading them.
   */
  async reading<T>(
    machineId: string,
    reference: string,
    work: (branch: DivergedBranch) => Promise<T>,
  ): Promise<T> {
    const { branchId, layout } = await this.need(machineId, reference);
    const release = this.#turns.read(layout.directory);
    try {
      // What came to its end in between may have made it the machine again, or removed it.
      await this.#checkEnded(await this.need(machineId, branchId));
      // So may what an earlier process has left, which looking at the machine has ended; and its disks may be other files since.
      const branch = await this.need(machineId, branchId);
      await branch.measure();
      return await work(branch);
    } finally {
      release();
    }
  }

  /** Nobody writes its disks: the machine has ended. Throws REPLICATION_NOT_ENDED. */
  async #checkEnded(branch: DivergedBranch): Promise<void> {
    const machine = this.#machineOf(branch);
    if (!machine) return;
    await machine.attach();
    checkEnded(machine);
  }

  /** The machine that it was, where that is still what the site has of it. */
  #machineOf(branch: DivergedBranch) {
    const machine = this.#o.machines.get(branch.record.machineId)?.machine;
    return machine?.layout.directory === branch.layout.directory ? machine : undefined;
  }

  /**
   * To be done with the disks of a machine alone: one such act comes after the other, and nobody begins to read them or to make a test
   * upon them meanwhile. Throws MACHINE_CHANGING if what came before has left nothing of the machine.
   */
  alone<T>(machine: Pick<ProtectedMachine, 'record' | 'layout'>, act: () => Promise<T>): Promise<T> {
    return this.aloneAt(machine.layout.directory, () => {
      if (this.#o.machines.get(machine.record.machineId)?.machine === machine) return act();
      throw changedMeanwhile(machine);
    });
  }

  /** As `alone`, with the directory of a machine of whatever generation. */
  aloneAt<T>(directory: string, act: () => Promise<T>): Promise<T> {
    return this.#turns.alone(directory, act);
  }

  /** To be asked, alone, before the disks of a machine are written, go, or are the machine again. Throws BRANCH_NEEDED, and as `at`. */
  async checkNothingUpon(machineId: string, directory?: string): Promise<void> {
    const meant = directory ?? this.#o.machines.get(machineId)?.machine.layout.directory;
    const branch = meant === undefined ? undefined : await this.at(meant);
    if (branch) await this.#checkUnread(branch);
  }

  async #checkUnread(branch: DivergedBranch): Promise<void> {
    const { name, branchId, layout } = branch;
    const isRead = this.#turns.isRead(layout.directory);
    // Of what nobody reads no test is being made, and its directory tells of all.
    if (!isRead) await branch.refreshBranches();
    const tests = branch.branches.map((test) => test.branchId).join(', ');
    if (tests === '' && !isRead) return;
    const said = tests === '' ? `${name} is being read` : `tests lie upon ${name}: ${tests}`;
    throw replicaFailure('BRANCH_NEEDED', said, { context: { branchId, above: tests } });
  }

  /**
   * Removes a branch with what it alone holds: the directory of the machine that it was. Files that its owner had before stay. Durable when
   * it has been decided, and ended by the next process if need be. Whether there was such a branch. Throws BRANCH_NEEDED,
   * GENERATION_NEEDED, MACHINE_LAYERS_KEPT, REPLICATION_NOT_ENDED, MACHINE_IN_GROUP, and as `checkRead`.
   */
  async remove(machineId: string, branchId: string, signal: AbortSignal): Promise<boolean> {
    const found = async () => {
      const all = await this.list(machineId);
      const branch = all.find((one) => one.branchId === branchId);
      if (!branch) this.checkRead(machineId);
      return branch;
    };
    const asked = await found();
    if (!asked) return false;
    return this.aloneAt(asked.layout.directory, async () => {
      throwIfAborted(signal);
      // It may be the machine again, or gone, since.
      const branch = await found();
      if (branch) await this.#remove(branch, signal);
      return branch !== undefined;
    });
  }

  async #remove(branch: DivergedBranch, signal: AbortSignal): Promise<void> {
    const { machines, generations, replicas, groups } = this.#o;
    const { machineId, machineName } = branch.record;
    const { directory } = branch.layout;
    await this.#checkUnread(branch);
    await checkNothingKept(this.#o.files, branch);
    const machine = this.#machineOf(branch);
    if (!machine) {
      const former = (await generations.former(machineId)).find((one) => one.directory === directory);
      if (former) await generations.remove(machineId, former);
      return;
    }
    const group = groups.of(machineId);
    if (group) throw controlFailure('MACHINE_IN_GROUP', `${machineName} is in the group ${group.name}`);
    // Whether its disks can be read does not matter any more; who writes them says so by his locks.
    await machine.attach().catch((error: unknown) => {
      if (!isFailure(error, 'IMAGE_UNREADABLE')) throw error;
    });
    checkEnded(machine);
    await branch.checkNotWritten();
    const { adopted } = machine.record;
    if (adopted && liesUpon(machine, replicas.get(machineId))) {
      const said = `${machineName} lies upon branch ${adopted.branchId} of its replica here, which its copies go on from`;
      throw controlFailure('GENERATION_NEEDED', said, { context: { machineId } });
    }
    const former = { kind: 'machine', epoch: branch.record.epoch, directory } as const;
    const [other] = await generations.needsOf(machineId, former, signal);
    if (other) {
      const said = `${other.path} lies upon it`;
      throw controlFailure('GENERATION_NEEDED', said, { context: { machineId, directory } });
    }
    throwIfAborted(signal);
    try {
      await machines.discard(machine, () => checkIsBranch(machine, branch));
    } finally {
      // Decided it is also where its files could not go yet.
      if (machines.get(machineId)?.machine !== machine) await this.#forgetHome(machineId);
    }
  }

  /** What was kept of a machine that is at home here no more. Who replicates it to this site may bring it home again. */
  async #forgetHome(machineId: string): Promise<void> {
    const { machines, replicas, alerts, triggerTokens } = this.#o;
    clearHomeAlerts(alerts, machineId);
    if (replicas.get(machineId) || machines.get(machineId)) return;
    alerts.clearMachine(machineId);
    await triggerTokens.remove((trigger) => trigger.machineId === machineId);
  }
}

/** Throws REPLICATION_NOT_ENDED. */
function checkEnded(machine: Pick<ProtectedMachine, 'record' | 'presence' | 'running'>): void {
  const { machineId, name } = machine.record;
  if (hasEnded(machine)) return;
  throw replicationFailure('REPLICATION_NOT_ENDED', `${name} has not ended here`, { context: { machineId } });
}

/** Whatever this site has heard in the meantime. Throws BRANCH_UNKNOWN for what is the machine again, REPLICATION_NOT_ENDED. */
function checkIsBranch(
  machine: Pick<ProtectedMachine, 'record' | 'presence' | 'running' | 'right'>,
  { branchId, name }: DivergedBranch,
): void {
  checkEnded(machine);
  if (machine.right.tenure.state !== 'holds' && machine.record.diverged?.branchId === branchId) return;
  throw replicaFailure('BRANCH_UNKNOWN', `${name} is the machine again`, { context: { branch: branchId } });
}

function isIn(unread: readonly Unread[], directory: string): boolean {
  return unread.some((one) => one.directory === directory);
}
