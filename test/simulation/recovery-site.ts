import { isFailure } from '../../src/lib/errors.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { newId } from '../../src/lib/random.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import {
  type Acknowledgement,
  branchLayer,
  createBranch,
  type Replica,
  Replicas,
  type ReplicaTools,
  removeBranch,
  verifyPoint,
} from '../../src/replica/index.ts';
import { NOTHING_AT_HOME, OfferedRights, ReplicationReceiver } from '../../src/replication/index.ts';
import { FakeImages, ImageLocks } from '../support/fake-images.ts';
import { DiskFaults } from './faults.ts';
import { watchOffers } from './offers.ts';
import { MACHINE_ID, type Wrappers } from './protected-site.ts';
import { isSigned } from './signing.ts';
import { SimDisk } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';
import type { SimServer } from './sim-net.ts';
import type { SimRandom } from './sim-random.ts';
import type { Swarm } from './swarm.ts';
import { SimProcess, type Turns } from './turns.ts';

export interface RecoverySiteOptions {
  readonly siteId: string;
  readonly name: string;
  readonly turns: Turns;
  readonly random: SimRandom;
  readonly swarm: Swarm;
  readonly wrap: Wrappers;
  readonly onTrouble: (where: string, error: unknown) => void;
  readonly onPublished: (acknowledgement: Acknowledgement) => void;
}

/** So many branches are there at once at most. */
const BRANCHES_MAX = 3;

/** The recovery host: replicas, the receiver of deltas, retention, proofs and branches. */
export class RecoverySite {
  readonly disk = new SimDisk();
  readonly faults = new DiskFaults();
  readonly locks = new ImageLocks();
  readonly #o: RecoverySiteOptions;
  process: SimProcess | undefined;
  replicas: Replicas | undefined;
  server: SimServer | undefined;
  #opened: SimFiles | undefined;
  #wake: () => void = () => undefined;
  proofs = 0;
  isBusy = true;

  constructor(o: RecoverySiteOptions) {
    this.#o = o;
  }

  get name(): string {
    return this.#o.name;
  }

  get siteId(): string {
    return this.#o.siteId;
  }

  /** The epoch that its record of the machine names; 0 if it has none. */
  epochOnDisk(): number {
    const file = this.disk.file(`/data/replicas/${MACHINE_ID}/replica.json`);
    if (!file) return 0;
    const bytes = Buffer.alloc(file.sizeBytes);
    file.read(bytes, 0);
    const { epoch }: { epoch: number } = JSON.parse(bytes.toString());
    return epoch;
  }

  async setUp(): Promise<void> {
    const files = new SimFiles(this.disk);
    await files.makeDirectory('/data');
    await files.syncDirectory('/');
  }

  tools(process: SimProcess, files: FileSystem): ReplicaTools {
    const { wrap } = this.#o;
    const dropCache = (path: string) => this.disk.file(path)?.evict();
    const images = new FakeImages({ files, locks: this.locks, owner: process, dropCache });
    return {
      files: wrap.files?.(files, this.disk) ?? files,
      images: wrap.images?.(images, this.disk) ?? images,
      clock: process.clock,
      log: silentLog,
      zones: new Zones(),
      isSignedBySource: isSigned,
    };
  }

  /** The images of another disk in the same state, for a probe. */
  imagesOn(disk: SimDisk): FakeImages {
    return new FakeImages({ files: new SimFiles(disk), locks: new ImageLocks() });
  }

  boot(): void {
    const process = new SimProcess(this.#o.turns, this.name);
    const files = new SimFiles(this.disk, process, this.faults);
    this.process = process;
    this.#opened = files;
    const tools = this.tools(process, files);
    const run = (name: string, work: () => Promise<void>) => {
      work().catch((error: unknown) => this.#o.onTrouble(`${this.name} ${name}`, error));
    };
    run('main', async () => {
      const replicas = await this.#open(process, tools);
      this.replicas = replicas;
      watchOffers(
        replicas,
        (replica) => this.#o.wrap.replica?.(replica),
        (said) => this.#o.onTrouble('R offer', new Error(said)),
      );
      const receiver = new ReplicationReceiver({
        home: NOTHING_AT_HOME,
        checkRoom: () => Promise.resolve(),
        replicas,
        wallMs: () => process.clock.wallMs(),
        log: silentLog,
        onPublished: (_replica, acknowledgement) => {
          this.#o.onPublished(acknowledgement);
          this.#wake();
        },
        acceptOrigin: () => Promise.reject(new Error('nothing is forwarded')),
        preview: () => Promise.reject(new Error('nobody asks for a preview')),
        olderDisks: () => undefined,
      });
      const rights = new OfferedRights({
        home: NOTHING_AT_HOME,
        siteId: this.#o.siteId,
        replicas,
        onChanged: () => undefined,
        hindrance: () => Promise.resolve(undefined),
      });
      this.server = { process, calls: { ...receiver.calls, ...rights.calls }, upload: receiver.upload };
      run('retention', () => this.#retire(process, replicas));
      run('proofs', () => this.#prove(process, tools, replicas));
      const taken = new Set<string>();
      for (let actor = 0; actor < BRANCHES_MAX; actor++) {
        run('branches', () => this.#branch(process, files, replicas, taken));
      }
    });
  }

  /** Every second start leaves an interrupted merge to what comes. */
  #starts = 0;

  /** A replica that cannot be opened is tried again: its disk may have been at fault. */
  async #open(process: SimProcess, tools: ReplicaTools): Promise<Replicas> {
    for (;;) {
      try {
        const replicas = await Replicas.open(tools, '/data', this.#starts++ % 2 === 0 ? 'left' : 'ended');
        const [broken] = replicas.broken;
        if (!broken) return replicas;
        throw broken.error;
      } catch (error) {
        this.#o.onTrouble(`${this.name} open`, error);
        await process.sleep(this.#o.random.between(5, 30));
      }
    }
  }

  async #retire(process: SimProcess, replicas: Replicas): Promise<never> {
    for (;;) {
      try {
        const replica = replicas.get(MACHINE_ID);
        if (replica) await replica.retire(replica.record.retention, () => false);
      } catch (error) {
        this.#o.onTrouble(`${this.name} retire`, error);
      }
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#wake = resolve;
        }),
        process.sleep(this.#o.random.between(20, 200)),
      ]);
    }
  }

  async #prove(process: SimProcess, tools: ReplicaTools, replicas: Replicas): Promise<never> {
    const { random } = this.#o;
    for (;;) {
      await process.sleep(random.between(50, 400));
      const replica = replicas.get(MACHINE_ID);
      if (!replica || replica.points.length === 0 || !this.isBusy) continue;
      const { pointId } = random.pick(replica.points).statement;
      try {
        await verifyPoint(tools, replica, pointId);
        this.proofs += 1;
      } catch (error) {
        this.#o.onTrouble(`${this.name} verify`, error);
      }
    }
  }

  /**
   * Test failovers without their machines: one branch after the other is made, stays for a while, and goes. Several do so at
   * once; `taken` are the branches that somebody sees to. What an earlier process left is taken over.
   */
  async #branch(
    process: SimProcess,
    files: FileSystem,
    replicas: Replicas,
    taken: Set<string>,
  ): Promise<never> {
    const { random } = this.#o;
    let mine: string | undefined;
    for (;;) {
      await process.sleep(random.between(50, 500));
      const replica = replicas.get(MACHINE_ID);
      if (!replica || replica.points.length === 0) continue;
      try {
        await replica.refreshBranches();
        if (mine === undefined) mine = await this.#takeBranch(process, files, replica, taken);
        else {
          const leaving = mine;
          await checkBranch(files, replica, leaving);
          mine = undefined;
          // Should that fail half way: whoever comes next takes away what is left.
          await removeBranch(files, replica, leaving).finally(() => taken.delete(leaving));
        }
      } catch (error) {
        this.#o.onTrouble(`${this.name} branch`, error);
      }
    }
  }

  async #takeBranch(
    process: SimProcess,
    files: FileSystem,
    replica: Replica,
    taken: Set<string>,
  ): Promise<string | undefined> {
    const { random } = this.#o;
    const left = replica.branches.find(({ branchId }) => !taken.has(branchId))?.branchId;
    if (left !== undefined || !this.isBusy) {
      if (left !== undefined) await removeBranch(files, replica, left);
      return undefined;
    }
    const branchId = newId(process.clock, random);
    taken.add(branchId);
    try {
      await createBranch(files, replica, {
        ...{ branchId, purpose: 'test', createdAtMs: process.clock.wallMs() },
        pointId: random.pick(replica.points).statement.pointId,
      });
      return branchId;
    } catch (error) {
      taken.delete(branchId);
      if (isFailure(error) && error.context.system === 'ENOENT') {
        throw new Error(`branch ${branchId} was taken away while it was made: ${error.message}`);
      }
      throw error;
    }
  }

  killProcess(): void {
    this.process?.kill();
    if (this.process) this.locks.releaseAll(this.process);
    this.process = undefined;
    this.replicas = undefined;
    this.server = undefined;
    this.#opened = undefined;
  }

  get openHandles(): string[] {
    return [...(this.#opened?.opened ?? [])].map(({ path }) => path);
  }
}

/** A branch that was made is there, with its point and all of its layers, until somebody removes it. */
async function checkBranch(files: FileSystem, replica: Replica, branchId: string): Promise<void> {
  const branch = replica.branches.find((candidate) => candidate.branchId === branchId);
  if (!branch) throw new Error(`branch ${branchId} has gone by itself`);
  if (!replica.points.some(({ statement }) => statement.pointId === branch.pointId)) {
    throw new Error(`the point of branch ${branchId} has gone`);
  }
  for (const diskId of branch.diskIds) {
    const layer = branchLayer(replica.layout, branchId, diskId);
    if ((await files.sizeOf(layer)) === undefined) throw new Error(`${layer} has gone by itself`);
  }
}
