import type { PlanDocument, PlanRun, RehearsalView, SiteEvent } from '../../api/index.ts';
import { type Clock, throwIfAborted } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import {
  afterRuns,
  type KeptRehearsal,
  type RehearsalStanding,
  rehearsalsOf,
  standingOf,
} from '../../plan/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { hasEnded, type Jobs } from '../base/jobs.ts';
import { Wakeup } from '../base/wakeup.ts';
import { runWorker } from '../base/worker.ts';
import { controlFailure } from '../errors.ts';
import type { PlanStore } from './plan-store.ts';
import type { RehearsalStore } from './rehearsal-store.ts';

/** The clock may have been set, and something may have gone that hindered. */
const LOOK_AGAIN_MS = 60_000;
const KEY = 'rehearsals';

export interface RehearsalsTools {
  readonly rehearsals: RehearsalStore;
  readonly store: PlanStore;
  readonly clock: Clock;
  readonly alerts: AlertSink;
  readonly log: Log;
  /** Begins a rehearsal, in the name of the site. Throws what stands in the way. */
  readonly begin: (plan: string) => Promise<unknown>;
  readonly inEarnest: (document: PlanDocument) => Promise<EarnestLook>;
  readonly jobs: () => Pick<Jobs, 'underWay'>;
}

/** What there is in earnest here of a plan. */
export interface EarnestLook {
  /** A machine that runs. */
  readonly machine?: string;
  /** Why it is not known whether one runs, where none is known to. */
  readonly unread?: string;
}

/** One rehearsal as it is looked at. */
interface Looked {
  readonly before: KeptRehearsal;
  /** What is to be kept of it, after the runs that there were. */
  readonly kept: KeptRehearsal;
  readonly standing: RehearsalStanding;
  readonly earnest: EarnestLook;
  /** Its time has come. */
  readonly isDue: boolean;
  readonly newest: PlanRun | undefined;
}

/**
 * Rehearses plans by itself: looks which is due, lets pure rules decide, and begins one at a time as a run like any other. Only when a plan is
 * rehearsed is kept apart; the runs tell when that was done last. So what was missed while the site was away is made up once, and a run that is
 * killed with the site goes on with it and is no second one.
 */
export class PlanRehearsals {
  readonly #o: RehearsalsTools;
  readonly #bell: Wakeup;
  readonly #stop = new AbortController();
  /** Why the rehearsal of a plan that is due could not be begun. */
  readonly #hindrances = new Map<string, string>();
  /** What was said last of each plan, '' for nothing: alerts are durable, and are not renewed with every look. */
  readonly #said = new Map<string, string>();
  #work: Promise<void> | undefined;

  constructor(o: RehearsalsTools) {
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
  }

  begin(): void {
    const { log, alerts, store, rehearsals } = this.#o;
    // An earlier process may have ended between forgetting a rehearsal and clearing its alert; of what cannot be read nothing is forgotten.
    const held = rehearsals.isUnread ? [] : store.held;
    for (const { plan } of held) if (!this.#isKept(plan)) alerts.clear(keyOf(plan));
    const { signal } = this.#stop;
    const name = { alert: 'worker:rehearsals', event: 'rehearsals.broke', fields: () => ({}) };
    this.#work = runWorker({ log, alerts }, name, () => this.#go(signal), signal);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }

  heard(event: SiteEvent): void {
    const isOver = event.event === 'job' && hasEnded(event.job);
    if (isOver || event.event === 'plan') this.changed();
  }

  changed(): void {
    this.#bell.ring();
  }

  async #go(signal: AbortSignal): Promise<never> {
    for (;;) {
      throwIfAborted(signal);
      const waitMs = await this.#round(signal);
      if (waitMs > 0) await this.#bell.wait(waitMs, signal);
    }
  }

  /** Begins at most one rehearsal. Returns after which time the next look is due. */
  async #round(signal: AbortSignal): Promise<number> {
    const { rehearsals, store, log, clock, alerts } = this.#o;
    try {
      // One that is not here was not removed: it may be unread, or be told again by another site.
      const gone = rehearsals.all.filter(({ plan }) => store.isRemoved(plan));
      for (const { plan } of gone) await this.#forget(plan);
      const looked = await this.#look();
      for (const { before, kept } of looked) await rehearsals.settle(before, kept);
      // A person may have ended one meanwhile.
      for (const one of looked) if (this.#isKept(one.kept.plan)) this.#tell(one);
      alerts.clear(KEY);
      const due = looked.filter(({ isDue, earnest }) => isDue && !earnest.machine && !earnest.unread);
      for (const { kept } of due) {
        // One that cannot begin hinders no other; a run may have begun meanwhile.
        if (signal.aborted || this.#heldWords() !== undefined) break;
        if (this.#isKept(kept.plan) && (await this.#begin(kept.plan))) break;
      }
      const nextMs = Math.min(
        ...looked.flatMap(({ isDue, standing: { dueAtMs } }) => (isDue ? [] : (dueAtMs ?? []))),
      );
      return Math.max(1, Math.min(LOOK_AGAIN_MS, nextMs - clock.wallMs()));
    } catch (error) {
      if (!isFailure(error)) throw error;
      log.warn('rehearsals.hindered', { code: error.code, error });
      alerts.raise(KEY, 'warning', error);
      return LOOK_AGAIN_MS;
    }
  }

  #isKept(name: string): boolean {
    return this.#o.rehearsals.all.some(({ plan }) => plan === name);
  }

  /** Whether it has begun. */
  async #begin(plan: string): Promise<boolean> {
    try {
      await this.#o.begin(plan);
      this.#hindrances.delete(plan);
      return true;
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#hindrances.set(plan, messageOf(error));
      return false;
    }
  }

  /** Writes nothing: who only wants to see them must not fail by a full disk. */
  async #look(): Promise<readonly Looked[]> {
    const { rehearsals, store, clock } = this.#o;
    const looked: Looked[] = [];
    // Of plans that cannot be read nothing is known.
    for (const before of store.isUnread ? [] : rehearsals.all) {
      if (store.isRemoved(before.plan)) continue;
      const nowMs = clock.wallMs();
      const kept = afterRuns(before, store.runs, nowMs);
      const standing = standingOf(kept, store.runs, nowMs);
      const isDue = standing.dueAtMs !== undefined && standing.dueAtMs <= nowMs;
      if (!isDue) this.#hindrances.delete(kept.plan);
      const [newest] = rehearsalsOf(kept.plan, store.runs);
      looked.push({ before, kept, standing, isDue, newest, earnest: await this.#earnestOf(kept.plan) });
    }
    return looked;
  }

  async #earnestOf(name: string): Promise<EarnestLook> {
    const plan = this.#o.store.find(name);
    return plan ? this.#o.inEarnest(plan.document) : { unread: `this site has no plan ${name}` };
  }

  async views(): Promise<RehearsalView[]> {
    return (await this.#look()).map((one) => {
      const { kept, standing, newest } = one;
      const reason = this.#reason(one);
      const { plan, times, withinMs, lastPassedAtMs } = kept;
      return {
        ...{ plan, times, withinMs, state: stateOf(one), isFailing: standing.failing !== undefined },
        isOverdue: standing.isOverdue,
        ...(standing.dueAtMs === undefined ? {} : { nextAtMs: standing.dueAtMs }),
        ...(reason === undefined ? {} : { reason }),
        ...(newest ? { lastRunId: newest.runId } : {}),
        ...(lastPassedAtMs === undefined ? {} : { lastPassedAtMs }),
      };
    });
  }

  /** Why no rehearsal of any plan begins. */
  #heldWords(): string | undefined {
    const { store, jobs } = this.#o;
    if (jobs().underWay(['failover.start', 'failover.take']).length > 0) return 'a failover is under way';
    const [job] = jobs().underWay(['plan.run']);
    if (!job) return undefined;
    const isTest = store.runs.find(({ runId }) => runId === job.args.runId)?.request.mode === 'test';
    return `${job.machineId} is being ${isTest ? 'rehearsed' : 'carried out'}`;
  }

  #reason({ kept, isDue, earnest }: Looked): string | undefined {
    if (earnest.machine !== undefined) return `${earnest.machine} runs here in earnest`;
    return isDue ? (earnest.unread ?? this.#heldWords() ?? this.#hindrances.get(kept.plan)) : undefined;
  }

  #tell(one: Looked): void {
    const { kept, standing, earnest } = one;
    const { plan } = kept;
    if (earnest.machine !== undefined) this.#say(plan, undefined);
    else if (standing.failing) this.#say(plan, 'failed', failureWords(standing.failing));
    else if (standing.isOverdue) {
      const since = kept.lastPassedAtMs;
      const last =
        since === undefined ? 'it has never passed' : `it last passed ${new Date(since).toISOString()}`;
      const why =
        this.#reason(one) ?? (one.newest?.endedAtMs === undefined ? undefined : 'none has ended well');
      this.#say(plan, 'overdue', `the rehearsal of ${plan} is overdue: ${last}${why ? `; ${why}` : ''}`);
    } else this.#say(plan, undefined);
  }

  #say(plan: string, about: 'failed' | 'overdue' | undefined, said = ''): void {
    if (this.#said.get(plan) === said) return;
    this.#said.set(plan, said);
    const { alerts } = this.#o;
    const key = keyOf(plan);
    if (about === undefined) alerts.clear(key);
    else if (about === 'failed') {
      alerts.raise(key, 'critical', controlFailure('PLAN_REHEARSAL_FAILED', said, { context: { plan } }));
    } else alerts.raise(key, 'warning', controlFailure('PLAN_UNPROVEN', said, { context: { plan } }));
  }

  /** Its plan was removed. Durable on return. */
  async #forget(plan: string): Promise<void> {
    await this.#o.rehearsals.remove(plan);
    this.left(plan);
  }

  /** Nothing is said of it any more. */
  left(plan: string): void {
    this.#hindrances.delete(plan);
    this.#said.delete(plan);
    this.#o.alerts.clear(keyOf(plan));
  }
}

function keyOf(plan: string): string {
  return `plan-rehearsal:${plan}`;
}

function stateOf({ newest, isDue, earnest }: Looked): RehearsalView['state'] {
  if (newest && newest.endedAtMs === undefined) return 'running';
  if (earnest.machine !== undefined) return 'in-earnest';
  return isDue ? 'held' : 'waiting';
}

function failureWords({ document: { plan }, runId, steps, hooks = [] }: PlanRun): string {
  const step = steps.find(({ state }) => state === 'failed');
  const hook = hooks.find(({ outcome }) => outcome !== 'passed');
  const blocked = steps.find(({ state }) => state === 'blocked');
  const why = step
    ? `${step.machine}: ${step.reason ?? 'it did not come up'}`
    : hook
      ? `the hook ${hook.program} has failed`
      : (blocked?.reason ?? 'it did not come to its end');
  return `the rehearsal ${runId} of ${plan} has not passed: ${why}`;
}
