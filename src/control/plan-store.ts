import { join } from 'node:path';
import Type from 'typebox';
import { type PlanDocument, PlanRun, PlanView } from '../api/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { Mutex } from '../lib/mutex.ts';
import { isId } from '../lib/random.ts';
import { loadRecord, recordKind, storeRecord } from '../lib/records.ts';
import { type AlertSink, failureOf } from './alerts.ts';
import { controlFailure } from './errors.ts';
import { Stored } from './stored.ts';

const Plans = Type.Object({ plans: Type.Array(PlanView) });
const PLANS = recordKind('plans', 2, Plans);
const PLAN_RUN = recordKind('plan-run', 2, PlanRun);

/** More runs are not kept: the oldest that has ended goes. */
const RUNS_MAX = 200;

interface PlanStoreTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly alerts: AlertSink;
}

/** `plans.json` of a site, and `plan-runs/<run>.json`: the plans that it holds, and how far they have been carried out. */
export class PlanStore {
  readonly #tools: PlanStoreTools;
  readonly #directory: string;
  readonly #plans: Stored<Type.Static<typeof Plans>>;
  readonly #runs: Map<string, PlanRun>;
  readonly #changing = new Mutex();

  private constructor(
    tools: PlanStoreTools,
    directory: string,
    plans: Stored<Type.Static<typeof Plans>>,
    runs: Map<string, PlanRun>,
  ) {
    this.#tools = tools;
    this.#directory = directory;
    this.#plans = plans;
    this.#runs = runs;
  }

  static async open(tools: PlanStoreTools, dataDirectory: string): Promise<PlanStore> {
    const { files, alerts } = tools;
    const plans = await Stored.open(files, join(dataDirectory, 'plans.json'), PLANS, { plans: [] });
    const directory = join(dataDirectory, 'plan-runs');
    await files.makeDirectory(directory);
    const runs = new Map<string, PlanRun>();
    for (const name of ((await files.list(directory)) ?? []).toSorted()) {
      const runId = name.replace(/\.json$/, '');
      if (!isId(runId)) continue;
      try {
        const run = await loadRecord(files, join(directory, name), PLAN_RUN);
        if (run) runs.set(runId, run);
        alerts.clear(`plan-run:${runId}`);
      } catch (error) {
        // One that cannot be read hinders no other, and no recovery.
        alerts.raise(`plan-run:${runId}`, 'warning', failureOf(error));
      }
    }
    return new PlanStore(tools, directory, plans, runs);
  }

  get plans(): readonly PlanView[] {
    return this.#plans.value.plans;
  }

  find(name: string): PlanView | undefined {
    return this.plans.find(({ document }) => document.plan === name);
  }

  /** Throws PLAN_UNKNOWN. */
  need(name: string): PlanView {
    const found = this.find(name);
    if (found) return found;
    const names = this.plans.map(({ document }) => document.plan).join(', ') || 'none';
    throw controlFailure('PLAN_UNKNOWN', `this site has no plan ${name}; it has: ${names}`);
  }

  /** In the place of the one of that name. Durable on return. */
  async put(document: PlanDocument): Promise<void> {
    const view: PlanView = { document, storedAtMs: this.#tools.clock.wallMs() };
    await this.#plans.change(({ plans }) => ({
      plans: [...plans.filter((one) => one.document.plan !== document.plan), view],
    }));
  }

  /** Durable on return. Runs that have begun go on with what they have. Throws PLAN_UNKNOWN. */
  async remove(name: string): Promise<void> {
    this.need(name);
    await this.#plans.change(({ plans }) => ({
      plans: plans.filter(({ document }) => document.plan !== name),
    }));
  }

  /** The newest first. */
  get runs(): readonly PlanRun[] {
    return [...this.#runs.values()].reverse();
  }

  /** Throws PLAN_RUN_UNKNOWN. */
  needRun(runId: string): PlanRun {
    const run = this.#runs.get(runId);
    if (run) return run;
    throw controlFailure('PLAN_RUN_UNKNOWN', `there is no run ${runId} of a plan here`);
  }

  /** A run that begins. Durable on return. */
  addRun(run: PlanRun): Promise<void> {
    return this.#changing.run(() => this.#storeRun(run));
  }

  /** One change after the other; durable on return. Throws PLAN_RUN_UNKNOWN. */
  changeRun(runId: string, change: (run: PlanRun) => PlanRun): Promise<PlanRun> {
    return this.#changing.run(async () => {
      const run = change(this.needRun(runId));
      await this.#storeRun(run);
      return run;
    });
  }

  async #storeRun(run: PlanRun): Promise<void> {
    await storeRecord(this.#tools.files, join(this.#directory, `${run.runId}.json`), PLAN_RUN, run);
    this.#runs.set(run.runId, run);
    if (this.#runs.size <= RUNS_MAX) return;
    const oldest = [...this.#runs.values()].find(({ endedAtMs }) => endedAtMs !== undefined);
    if (!oldest) return;
    await this.#tools.files.remove(join(this.#directory, `${oldest.runId}.json`));
    this.#runs.delete(oldest.runId);
  }
}
