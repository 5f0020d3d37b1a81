import type { JobView, Progress } from '../../api/index.ts';
import { throwIfAborted } from '../../lib/clock.ts';
import { failuresOf, isFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { findSeed, REPLICA_ERRORS, type Replica, type Replicas, SeedFile } from '../../replica/index.ts';
import type { JobHandler, Jobs } from '../base/jobs.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { Machines } from '../machines/machines.ts';
import type { Forwards } from '../replicas/forwards.ts';
import type { ReplicaKeeper } from '../replicas/replica-keeper.ts';

const replicaFailure = failuresOf(REPLICA_ERRORS);

interface SeedTools {
  readonly files: FileSystem;
  readonly machines: Machines;
  readonly inventory: Inventory;
  readonly replicas: Replicas;
  readonly keeper: ReplicaKeeper;
  readonly forwards: Pick<Forwards, 'arrived'>;
  /** The id of a target that a person names. */
  readonly targetMeant: (reference: string) => string;
}

/** What a person does with seeds: the base of a machine, carried by a courier. Paths are of the site's host. */
export class SeedActs {
  readonly #o: SeedTools;
  readonly #jobs: () => Jobs;

  constructor(o: SeedTools & { jobs: () => Jobs }) {
    this.#o = o;
    this.#jobs = o.jobs;
  }

  /** At the site where the machine is at home: writes its base to a directory or a file. */
  export(actor: string, reference: string, o: { path: string; target?: string }): JobView {
    const { machineId } = this.#o.inventory.home(reference).record;
    const siteId = o.target === undefined ? undefined : this.#o.targetMeant(o.target);
    const args = { path: o.path, ...(siteId === undefined ? {} : { siteId }) };
    return this.#jobs().start({ kind: 'seed.export', args, actor, machineId });
  }

  /** At the recovery site. What cannot be a seed of a replica here is refused at once. */
  async import(actor: string, path: string): Promise<JobView> {
    const { files } = this.#o;
    const file = await findSeed(files, path);
    await using seed = await SeedFile.open(files, file);
    const { machineId } = this.#replicaOf(seed).record;
    return this.#jobs().start({ kind: 'seed.import', args: { path: file }, actor, machineId });
  }

  #replicaOf(seed: SeedFile): Replica {
    const { machineId, machineName } = seed.statement;
    const replica = this.#o.replicas.get(machineId);
    if (replica) return replica;
    throw replicaFailure(
      'REPLICA_SEED_REFUSED',
      `this site holds no replica of ${machineName} (${machineId})`,
      {
        context: { machineId, path: seed.path },
        hint: 'Its base is awaited where its protection sends it, and only once that site has been told: look whether the sites reach each other.',
      },
    );
  }

  readonly exporting: JobHandler = {
    // What is on the medium already is not written again.
    repeatable: true,
    // A medium may be needed for something else.
    unwinds: true,
    run: async ({ machineId, args, signal, progress }) => {
      const { machines, inventory } = this.#o;
      const machine = inventory.home(machineId);
      const path = String(args.path);
      const siteId = args.siteId === undefined ? undefined : String(args.siteId);
      try {
        throwIfAborted(signal);
        return await machines.exportSeed(machine, path, {
          ...{ signal, siteId },
          onProgress: ({ bytesDone, bytesTotal }) =>
            progress({ step: 'writing the seed', bytesDone, bytesTotal }),
        });
      } catch (error) {
        // What the next process of the site goes on with stays.
        const isCancelled = signal.aborted && !isFailure(signal.reason, 'JOB_INTERRUPTED');
        if (isCancelled) await machine.dropSeed(path, siteId);
        throw error;
      }
    },
  };

  readonly importing: JobHandler = {
    // Goes on where it was interrupted.
    repeatable: true,
    run: async ({ args, signal, progress }) => {
      await using seed = await SeedFile.open(this.#o.files, String(args.path));
      const replica = this.#replicaOf(seed);
      try {
        return await replica.seeding.import(seed, {
          signal,
          onProgress: (at) => progress(progressOf(at)),
        });
      } finally {
        this.#o.keeper.tend(replica);
        // What was held back for want of a base can go on to further sites.
        this.#o.forwards.arrived(replica.record.machineId);
      }
    },
  };
}

function progressOf(at: { step: 'reading' | 'verifying'; bytesDone: number; bytesTotal: number }): Progress {
  const step = at.step === 'reading' ? 'reading the seed' : 'verifying the newest point upon it';
  return { ...at, step };
}
