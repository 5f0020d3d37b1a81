import type { DrillPolicyView, JobView, SiteEvent } from '../../api/index.ts';
import { type Clock, throwIfAborted } from '../../lib/clock.ts';
import { type Failure, isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import {
  type DrillMachine,
  type DrillPlan,
  endOfWindows,
  isMeant,
  nextDrill,
  type RunningDrill,
  type Zones,
} from '../../recovery-point/index.ts';
import type { Replica, Replicas } from '../../replica/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { hasEnded, type Jobs } from '../base/jobs.ts';
import { Wakeup } from '../base/wakeup.ts';
import { runWorker } from '../base/worker.ts';
import { clearDrillAlerts, tellOfDrills, tellOfReading } from './drill-alerts.ts';
import type { DrillDebts } from './drill-debts.ts';
import { type DrillFacts, type DrillFactsTools, drillFactsOf, drillMachineOf, howOf } from './drill-facts.ts';
import type { DrillSettings } from './drill-settings.ts';

/** Something may have changed that nothing tells of, such as a replica that could not be opened. */
const LOOK_AGAIN_MS = 60_000;
/** When what was decided could not be done. */
const AGAIN_MS = 15_000;
const KEY = 'drills';
/** What boots machines within the budget. */
const BOOTING = ['drill.run', 'failover.prepare'] as const;

export interface DrillsTools extends DrillFactsTools {
  readonly settings: DrillSettings;
  readonly debts: DrillDebts;
  readonly replicas: Pick<Replicas, 'list'>;
  readonly zones: Zones;
  readonly clock: Clock;
  readonly alerts: AlertSink;
  readonly log: Log;
  /** A failover is under way. */
  readonly isUrgent: () => boolean;
  readonly jobs: () => Pick<Jobs, 'ofMachine' | 'underWay' | 'start'>;
}

/** One machine as it is looked at. */
export interface DrilledMachine {
  readonly replica: Replica;
  readonly view: DrillPolicyView;
  readonly facts: DrillFacts;
  readonly machine: DrillMachine;
}

/** What drills look at, and what follows from it. */
export interface DrillLook {
  readonly drilled: readonly DrilledMachine[];
  /** Machines of which it cannot be read how they stand; they hinder no other. */
  readonly unread: ReadonlyMap<string, Failure>;
  readonly plan: DrillPlan;
  readonly underWay: readonly JobView[];
  readonly usedBytes: number;
  readonly quietUntilMs: number | undefined;
  /** Why no drill begins by itself, whatever its machine. */
  readonly held: string | undefined;
  /** A failover is under way. */
  readonly givesWay: boolean;
}

/**
 * Drills points by itself: looks what has arrived, what is proven and what runs, lets `nextDrill` decide, and begins that as a job. The
 * job is all there is of a drill that is under way: one that ends with its process is found as interrupted by the next one, its
 * branch is removed as that of any test, and the point is drilled again.
 */
export class Drills {
  readonly #o: DrillsTools;
  readonly #bell: Wakeup;
  readonly #stop = new AbortController();
  /** By machine, until something happens to it. */
  readonly #known = new Map<string, Promise<DrillFacts | undefined>>();
  /** Machines of which alerts may stand. */
  #told: ReadonlySet<string> = new Set();
  /** What was said last under each key, '' for nothing: alerts are durable, and are not renewed with every look. */
  readonly #said = new Map<string, string>();
  #work: Promise<void> | undefined;

  constructor(o: DrillsTools) {
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
  }

  begin(): void {
    const { log, alerts, replicas } = this.#o;
    // What an earlier process told may be over, and nothing is known of it here.
    this.#told = new Set(replicas.list().map(({ record }) => record.machineId));
    const { signal } = this.#stop;
    const name = { alert: 'worker:drills', event: 'drills.broke', fields: () => ({}) };
    this.#work = runWorker({ log, alerts }, name, () => this.#go(signal), signal);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }

  /** Something has happened at the site. */
  heard(event: SiteEvent): void {
    if (event.event === 'point') this.changed(event.machineId);
    else if (event.event === 'job' && hasEnded(event.job)) this.changed(event.job.machineId);
  }

  /** What was known of a machine, or of none in particular, counts no more. */
  changed(machineId?: string): void {
    if (machineId !== undefined) this.#known.delete(machineId);
    this.#bell.ring();
  }

  async #go(signal: AbortSignal): Promise<never> {
    for (;;) {
      throwIfAborted(signal);
      const waitMs = await this.#round();
      if (waitMs > 0) await this.#bell.wait(waitMs, signal);
    }
  }

  /** Begins at most one drill. Returns after which time the next look is due. */
  async #round(): Promise<number> {
    const { clock, debts, log } = this.#o;
    const alerts = this.#onChange;
    try {
      const look = await this.look();
      await debts.settle(look.plan.standings);
      this.#tell(look);
      alerts.clear(KEY);
      if (look.plan.start && !this.#stop.signal.aborted) {
        this.#start(look, look.plan.start);
        return 0;
      }
      return Math.min(LOOK_AGAIN_MS, (look.plan.lookAgainAtMs ?? Number.POSITIVE_INFINITY) - clock.wallMs());
    } catch (error) {
      if (!isFailure(error)) throw error;
      log.warn('drills.hindered', { code: error.code, error });
      alerts.raise(KEY, 'warning', error);
      return AGAIN_MS;
    }
  }

  /** How things stand now. */
  async look(): Promise<DrillLook> {
    const { settings, clock, zones, isUrgent } = this.#o;
    const { drilled, unread } = await this.#read();
    const jobs = this.#o.jobs();
    const nowMs = clock.wallMs();
    const { budget, isPaused } = settings;
    // One that waits for its turn among other jobs comes first as well.
    const givesWay = isUrgent() || jobs.underWay(['failover.start']).length > 0;
    const calmAtMs = endOfWindows(budget.quiet, nowMs, zones) ?? Number.POSITIVE_INFINITY;
    const booting = jobs.underWay(BOOTING);
    const running = booting.map((job) => this.#runningOf(job, drilled));
    const plan = nextDrill({
      ...{ machines: drilled.map(({ machine }) => machine), budget, running, nowMs },
      heldUntilMs: isPaused || givesWay ? Number.POSITIVE_INFINITY : calmAtMs,
    });
    return {
      ...{ drilled, unread, plan, givesWay, held: heldWords(isPaused, givesWay, calmAtMs > nowMs) },
      underWay: booting.filter(({ kind }) => kind === 'drill.run'),
      usedBytes: running.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0),
      quietUntilMs: calmAtMs > nowMs && Number.isFinite(calmAtMs) ? calmAtMs : undefined,
    };
  }

  /** What there is to know of the machines that are drilled. */
  async #read(): Promise<Pick<DrillLook, 'drilled' | 'unread'>> {
    const { settings, debts, replicas } = this.#o;
    const drilled: DrilledMachine[] = [];
    const unread = new Map<string, Failure>();
    for (const replica of replicas.list()) {
      const { machineId, adopted } = replica.record;
      const view = settings.of(machineId);
      // A machine that is at home here gets no points any more.
      if (!view.policy || replica.awaitsSeed || adopted !== undefined) continue;
      try {
        const facts = await this.#factsOf(replica);
        if (!facts) continue;
        const about = { isPaused: settings.isMachinePaused(machineId), debt: debts.of(machineId) };
        drilled.push({ replica, view, facts, machine: drillMachineOf(machineId, view.policy, facts, about) });
      } catch (error) {
        if (!isFailure(error)) throw error;
        this.#known.delete(machineId);
        unread.set(machineId, error);
      }
    }
    return { drilled, unread };
  }

  /** Kept until something happens to the machine; what happens meanwhile makes the next look read it anew. */
  #factsOf(replica: Replica): Promise<DrillFacts | undefined> {
    const { machineId } = replica.record;
    const facts = this.#known.get(machineId) ?? drillFactsOf(this.#o, replica);
    this.#known.set(machineId, facts);
    return facts;
  }

  #runningOf({ machineId, args }: JobView, drilled: readonly DrilledMachine[]): RunningDrill {
    const own = drilled.find(({ machine }) => machine.machineId === machineId)?.facts.memoryBytes;
    const memoryBytes = typeof args.memoryBytes === 'number' ? args.memoryBytes : (own ?? 0);
    return { machineId, memoryBytes };
  }

  #start({ drilled }: DrillLook, { machineId, pointId }: NonNullable<DrillPlan['start']>): void {
    const { machine, view } = drilled.find((one) => one.machine.machineId === machineId)!;
    const point = machine.points.find((one) => one.pointId === pointId)!;
    this.#o.jobs().start({
      ...{ kind: 'drill.run', actor: 'site', machineId },
      args: {
        ...{ pointId, sequence: point.sequence, memoryBytes: machine.memoryBytes },
        why: 'the next that this site drills by itself',
        ofOthers: !isMeant(machine.policy, point),
        ...howOf(view.policy),
      },
    });
  }

  #tell({ drilled, unread, plan, held }: DrillLook): void {
    const { settings } = this.#o;
    // Nobody knows which machines are drilled: what was told of them stands.
    if (settings.isUnread) return;
    const alerts = this.#onChange;
    const site = { budgetBytes: settings.budget.memoryBytes, held };
    drilled.forEach(({ replica, machine }, index) => {
      tellOfDrills(alerts, replica.record.machineName, machine, plan.standings[index]!, site);
      tellOfReading(alerts, machine.machineId, undefined);
    });
    for (const [machineId, failure] of unread) tellOfReading(alerts, machineId, failure);
    const told = new Set([...drilled.map(({ machine }) => machine.machineId), ...unread.keys()]);
    for (const machineId of this.#told) if (!told.has(machineId)) clearDrillAlerts(alerts, machineId);
    this.#told = told;
  }

  get #onChange(): AlertSink {
    const { alerts } = this.#o;
    const isNew = (key: string, said: string) => {
      if (this.#said.get(key) === said) return false;
      this.#said.set(key, said);
      return true;
    };
    return {
      raise: (key, severity, failure, machineId) => {
        if (isNew(key, failure.message)) alerts.raise(key, severity, failure, machineId);
      },
      clear: (key) => {
        if (isNew(key, '')) alerts.clear(key);
      },
    };
  }
}

/** Why no drill begins, whatever its machine; undefined: nothing hinders them. */
function heldWords(isPaused: boolean, givesWay: boolean, isQuiet: boolean): string | undefined {
  if (isPaused) return 'drills are paused';
  if (givesWay) return 'drills give way to a failover';
  return isQuiet ? 'these are quiet hours' : undefined;
}
