import { join } from 'node:path';
import Type from 'typebox';
import { type PlanDocument, PlanRun, type PlanView } from '../../api/index.ts';
import { canonicalJson, type Json } from '../../lib/canonical-json.ts';
import type { Clock } from '../../lib/clock.ts';
import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { isId } from '../../lib/random.ts';
import { loadRecord, recordKind, storeRecord } from '../../lib/records.ts';
import {
  afterHearing,
  afterPut,
  differenceOf,
  type HeldPlan,
  isCarriedOut,
  planDigest,
} from '../../plan/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { EventHub } from '../base/event-hub.ts';
import { Stored } from '../base/stored.ts';
import { controlFailure } from '../errors.ts';
import { VersionShape } from './plan-wire.ts';

const HeldShape = Type.Object({
  plan: Type.String(),
  ...VersionShape.properties,
  conflict: Type.Optional(Type.Object({ siteId: Type.String(), ...VersionShape.properties })),
});
const Plans = Type.Object({ plans: Type.Array(HeldShape) });
/** Plans of version 1 have been told to nobody: each is its own first version. */
const PLANS = recordKind('plans', 2, Plans, (value) => ({
  ...value,
  plans: (value as { plans: { document: PlanDocument; storedAtMs: number }[] }).plans.map(
    ({ document, storedAtMs }) => afterPut(document.plan, undefined, document, storedAtMs),
  ),
}));
/** What was removed is remembered, so that no other site brings it back; of the oldest only so many. */
const REMOVED_MAX = 200;
const PLAN_RUN = recordKind('plan-run', 2, PlanRun);

type Plans = Type.Static<typeof Plans>;

/** All plans of a site lie in one record. */
const PLANS_BYTES_MAX = 4 * 1024 * 1024;

/** Of rehearsals, and of runs in earnest, more are not kept: the oldest that has ended goes, and not the newest one of its plan. What was done in earnest outlives any number of nights. */
const RUNS_MAX = 200;

interface PlanStoreTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly alerts: AlertSink;
  readonly events: Pick<EventHub, 'emit'>;
}

/** `plans.json` of a site, and `plan-runs/<run>.json`: the plans that it holds, and how far they have been carried out. */
export class PlanStore {
  readonly #tools: PlanStoreTools;
  readonly #directory: string;
  readonly #plans: Stored<Plans>;
  readonly #runs: Map<string, PlanRun>;
  /** Keys of the alerts of runs that cannot be read. */
  readonly unreadRuns: ReadonlySet<string>;
  readonly #changing = new Mutex();
  readonly #watchers = new Set<() => void>();

  private constructor(
    tools: PlanStoreTools,
    directory: string,
    plans: Stored<Plans>,
    runs: Map<string, PlanRun>,
    unreadRuns: ReadonlySet<string>,
  ) {
    this.#tools = tools;
    this.#directory = directory;
    this.#plans = plans;
    this.#runs = runs;
    this.unreadRuns = unreadRuns;
    // An earlier process may have ended between the one and the other.
    for (const { plan } of this.held) this.#tellOfConflict(plan);
  }

  static async open(tools: PlanStoreTools, dataDirectory: string): Promise<PlanStore> {
    const { files, alerts } = tools;
    const path = join(dataDirectory, 'plans.json');
    const plans = await Stored.open(files, path, PLANS, { plans: [] }, { alerts });
    const directory = join(dataDirectory, 'plan-runs');
    await files.makeDirectory(directory);
    const runs = new Map<string, PlanRun>();
    const unreadRuns = new Set<string>();
    for (const name of ((await files.list(directory)) ?? []).toSorted()) {
      const runId = name.replace(/\.json$/, '');
      if (!isId(runId)) continue;
      const key = `plan-run:${runId}`;
      try {
        const run = await loadRecord(files, join(directory, name), PLAN_RUN);
        if (run) runs.set(runId, run);
        alerts.clear(key);
      } catch (error) {
        // One that cannot be read hinders no other, and no recovery.
        unreadRuns.add(key);
        alerts.raise(key, 'warning', failureOf(error));
      }
    }
    return new PlanStore(tools, directory, plans, runs, unreadRuns);
  }

  get plans(): readonly PlanView[] {
    return this.held.flatMap((held) => viewOf(held) ?? []);
  }

  /** With those that were removed. */
  get held(): readonly HeldPlan[] {
    return this.#plans.value.plans;
  }

  /** Told whenever another version is held; returns the function that ends it. */
  watch(listener: () => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  find(name: string): PlanView | undefined {
    return this.plans.find(({ document }) => document.plan === name);
  }

  /** Somebody removed it, as far as that is remembered; what this site has lost, or cannot read, was not removed. */
  isRemoved(name: string): boolean {
    return this.held.some(({ plan, document }) => plan === name && !document);
  }

  /** Which plans there are cannot be read. */
  get isUnread(): boolean {
    return this.#plans.unread !== undefined;
  }

  /** Throws why it is not known which plans there are. */
  checkRead(): void {
    void this.#plans.said;
  }

  /** Throws PLAN_UNKNOWN, and why it is not known which plans there are. */
  need(name: string): PlanView {
    this.checkRead();
    const found = this.find(name);
    if (found) return found;
    const names = this.plans.map(({ document }) => document.plan).join(', ') || 'none';
    throw controlFailure('PLAN_UNKNOWN', `this site has no plan ${name}; it has: ${names}`);
  }

  /** In the place of the one of that name; a conflict about it is settled. Durable on return. Throws PLAN_INVALID for one too many. */
  async put(document: PlanDocument): Promise<void> {
    await this.#change(document.plan, (own) =>
      afterPut(document.plan, own, document, this.#tools.clock.wallMs()),
    );
  }

  /** Durable on return. Runs that have begun go on with what they have. Throws PLAN_UNKNOWN. */
  async remove(name: string): Promise<void> {
    this.need(name);
    await this.#change(name, (own) => afterPut(name, own, undefined, this.#tools.clock.wallMs()));
  }

  /** What another site has of a plan; `isNews`: another version is held here by it, or beside what is. Durable on return. Throws PLAN_INVALID for one that is not what it says that it is. */
  async hear(
    told: Parameters<typeof afterHearing>[1],
    siteId: string,
  ): Promise<ReturnType<typeof afterHearing> & { readonly isNews: boolean }> {
    const isSound =
      told.digest === planDigest(told.document) && (told.document?.plan ?? told.plan) === told.plan;
    if (!isSound) throw controlFailure('PLAN_INVALID', `the plan ${told.plan} that was told is another one`);
    let heard: ReturnType<typeof afterHearing> | undefined;
    const isNews = await this.#change(told.plan, (own) => {
      heard = afterHearing(own, told, siteId);
      return heard.held;
    });
    return { ...heard!, isNews };
  }

  /** Whether that is news: what was held before, told once more, is told to nobody, however often a site answers again. */
  async #change(plan: string, next: (own: HeldPlan | undefined) => HeldPlan): Promise<boolean> {
    let isNews = false;
    await this.#plans.change((before) => {
      const own = before.plans.find((held) => held.plan === plan);
      const held = next(own);
      isNews = own === undefined || versionsOf(own) !== versionsOf(held);
      if (own !== undefined && isSame(own, held)) return before;
      const all = [...before.plans.filter((one) => one.plan !== plan), held];
      const removed = all.filter(({ document }) => !document);
      const forgotten = new Set(removed.slice(0, Math.max(0, removed.length - REMOVED_MAX)));
      const plans = all.filter((one) => !forgotten.has(one));
      const sizeBytes = Buffer.byteLength(JSON.stringify(plans));
      if (sizeBytes > PLANS_BYTES_MAX) {
        const said = `the plans of this site would be ${sizeBytes} bytes long; at most ${PLANS_BYTES_MAX} are kept`;
        throw controlFailure('PLAN_INVALID', said);
      }
      return { plans: plans as Plans['plans'] };
    });
    if (!isNews) return false;
    this.#tellOfConflict(plan);
    this.#tools.events.emit({ event: 'plan', plan });
    for (const listener of this.#watchers) listener();
    return true;
  }

  #tellOfConflict(plan: string): void {
    const { alerts } = this.#tools;
    const conflict = this.held.find((held) => held.plan === plan)?.conflict;
    if (!conflict) {
      alerts.clear(`plan:${plan}`);
      return;
    }
    const said = `the plan ${plan} was changed here and at site ${conflict.siteId}, each without the other`;
    alerts.raise(
      `plan:${plan}`,
      'warning',
      controlFailure('PLAN_CHANGED_TWICE', said, { context: { plan } }),
    );
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

  /** A run that nobody carries out, and nobody will. */
  dropRun(runId: string): Promise<void> {
    return this.#changing.run(() => this.#removeRun(runId));
  }

  async #removeRun(runId: string): Promise<void> {
    await this.#tools.files.remove(join(this.#directory, `${runId}.json`));
    this.#runs.delete(runId);
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
    const alike = [...this.#runs.values()].filter((one) => isRehearsal(one) === isRehearsal(run));
    if (alike.length <= RUNS_MAX) return;
    const telling = this.#telling(alike);
    const oldest = alike.find((one) => one.endedAtMs !== undefined && !telling.has(one));
    if (oldest) await this.#removeRun(oldest.runId);
  }

  /** Of each plan that there is the newest run that came to an end by itself: by it is known how the plan stands, however long it is ago. */
  #telling(runs: readonly PlanRun[]): ReadonlySet<PlanRun> {
    const newest = new Map<string, PlanRun>();
    for (const run of runs) {
      const { document, endedAtMs, verdict } = run;
      const isThere = this.isUnread || this.find(document.plan) !== undefined;
      if (!isThere || endedAtMs === undefined || verdict === 'cancelled' || !isCarriedOut(run)) continue;
      newest.set(document.plan, run);
    }
    return new Set(newest.values());
  }
}

function isRehearsal({ request }: PlanRun): boolean {
  return request.mode === 'test';
}

/** Which versions a site has of a plan; of whom, and what each takes the place of, is left out. */
function versionsOf({ conflict, ...own }: HeldPlan): string {
  return [own, ...(conflict ? [conflict] : [])]
    .map(({ counter, digest }) => `${counter}-${digest}`)
    .join(' ');
}

function isSame(own: HeldPlan, held: HeldPlan): boolean {
  return canonicalJson(own as unknown as Json) === canonicalJson(held as unknown as Json);
}

function viewOf({ document, storedAtMs, counter, conflict }: HeldPlan): PlanView | undefined {
  if (!document) return undefined;
  const other = conflict && {
    ...{ siteId: conflict.siteId, storedAtMs: conflict.storedAtMs },
    changes: conflict.document ? differenceOf(document, conflict.document) : ['it was removed there'],
  };
  return { document, storedAtMs, counter, ...(other ? { conflict: other } : {}) };
}
