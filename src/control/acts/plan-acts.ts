import type {
  JobView,
  PlanCheck,
  PlanDocument,
  PlanEstimate,
  PlanRun,
  PlanView,
  RunPlanRequest,
  RunPlanWish,
  StartedRun,
} from '../../api/index.ts';
import type { SitePrograms } from '../../failover/index.ts';
import type { BootClock } from '../../lib/boot-clock.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { KeyedMutex } from '../../lib/keyed-mutex.ts';
import type { Log } from '../../lib/log.ts';
import { newId, type Random } from '../../lib/random.ts';
import {
  changesAt,
  differenceOf,
  directionOf,
  estimateOf,
  fencingOf,
  findingsAt,
  findingsOf,
  forNicsOf,
  gatesAt,
  isCarriedOut,
  type KnownMachine,
  needsOf,
  networksAt,
  programsOf,
  wavesOf,
} from '../../plan/index.ts';
import type { Audit } from '../base/audit.ts';
import type { EventHub } from '../base/event-hub.ts';
import { hasEnded, type JobHandler, type JobRequest, type Jobs } from '../base/jobs.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { touchedNow } from '../plans/absence.ts';
import { type PointOfCut, pointsOfCuts } from '../plans/plan-cuts.ts';
import { PlanHooks } from '../plans/plan-hooks.ts';
import { actorOf, isOfSchedule, type PlanActs, PlanRunner } from '../plans/plan-runner.ts';
import type { PlanStore } from '../plans/plan-store.ts';
import type { FailoverActs } from './failover-acts.ts';
import { groundInPlan } from './failover-grounds.ts';
import type { GroupActs } from './group-acts.ts';
import type { HandoverActs } from './handover-acts.ts';
import { chosen, configurationOf, isHandedOver, offeredTo, wishOf } from './plan-machines.ts';
import { BootsOfPoints, measuredMs } from './plan-proofs.ts';
import { PlanStanding } from './plan-standing.ts';

interface PlanTools {
  readonly store: PlanStore;
  readonly siteName: string;
  readonly inventory: Inventory;
  readonly failovers: FailoverActs;
  readonly programs: SitePrograms;
  readonly groups: Pick<GroupActs, 'points'>;
  readonly log: Log;
  readonly handovers: HandoverActs;
  readonly audit: Audit;
  readonly events: EventHub;
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly bootClock: BootClock;
  readonly random: Random;
  readonly jobs: () => Jobs;
}

/** So long a rehearsal has to make room for a run in earnest. */
const ROOM_WAIT_MS = 60_000;
/** In a planned move each machine has so long to be offered, if nobody says how long. */
const OFFER_WAIT_MS = 3_600_000;
const NEVER = new AbortController().signal;

/** What a person does with recovery plans: keep them, look at them, carry them out. docs/plans.md. */
export class RecoveryPlans {
  readonly standing: PlanStanding;
  readonly #o: PlanTools;
  readonly #runners = new Map<string, PlanRunner>();
  /** By plan: of two people who ask at once one hears that it is being carried out. */
  readonly #beginning = new KeyedMutex();

  constructor(o: PlanTools) {
    this.#o = o;
    this.standing = new PlanStanding(o);
  }

  list(): readonly PlanView[] {
    this.#o.store.checkRead();
    return this.#o.store.plans;
  }

  show(name: string): PlanView {
    return this.#o.store.need(name);
  }

  /** What is wrong with a plan, by itself and here; nothing is stored. */
  async check(document: PlanDocument): Promise<PlanCheck> {
    const { store, siteName, programs } = this.#o;
    const lacks = new Map<string, string | undefined>();
    for (const { program } of programsOf(document)) lacks.set(program, await programs.lackOf(program));
    const findings = [
      ...findingsOf(document),
      ...findingsAt(
        document,
        siteName,
        (machine) => this.#known(machine),
        (program) => lacks.get(program),
      ),
    ];
    const before = store.find(document.plan);
    return {
      plan: document.plan,
      order: (wavesOf(needsOf(document)) ?? []).map((wave) => [...wave]),
      findings,
      ...(before ? { changes: differenceOf(before.document, document) } : {}),
    };
  }

  /** In the place of what this site had of that name. Throws PLAN_INVALID; what only this site lacks is told, and no hindrance. */
  put(actor: string, document: PlanDocument): Promise<PlanCheck> {
    const { audit, store } = this.#o;
    const details = { document };
    return audit.acting({ actor, act: 'plan.put', subject: document.plan, details }, async () => {
      checkSound(document);
      const check = await this.check(document);
      await store.put(document);
      return check;
    });
  }

  /** Throws PLAN_UNKNOWN. */
  async remove(actor: string, name: string): Promise<void> {
    const { audit, store } = this.#o;
    await audit.acting({ actor, act: 'plan.remove', subject: name }, () => store.remove(name));
  }

  /** From what isolated boots of each machine took, the newest one that passed. */
  async estimate(name: string): Promise<PlanEstimate> {
    const { document } = this.#o.store.need(name);
    const measured = new Map<string, number>();
    for (const machine of Object.keys(document.machines)) {
      const replica = this.standing.single(machine)?.replica;
      const took = replica && (await measuredMs(this.#o.files, replica));
      if (took !== undefined) measured.set(machine, took);
    }
    return estimateOf(document, (machine) => measured.get(machine));
  }

  runs(): readonly PlanRun[] {
    return this.#o.store.runs;
  }

  showRun(runId: string): PlanRun {
    return this.#o.store.needRun(runId);
  }

  /**
   * Begins to carry a plan out. Throws PLAN_UNKNOWN, PLAN_INVALID, PLAN_RUNS_ALREADY, PLAN_UNCONFIRMED, PLAN_HELD_AT_BOTH, MACHINE_AMBIGUOUS, FAILOVER_GROUND_UNCLEAR,
   * PLAN_TOO_LARGE, PLAN_CUT_MISSING, PLAN_CUT_LOST, GROUP_UNKNOWN, FAILOVER_ADDRESS_TWICE, FAILOVER_ADDRESS_TAKEN, FAILOVER_NIC_UNKNOWN before anything is done. What one machine lacks is told by its step: the others come up.
   */
  run(actor: string, name: string, wish: RunPlanWish): Promise<StartedRun> {
    // One after the other: a rehearsal that begins by itself must not slip in beside a run in earnest.
    return this.#beginning.run(name, async () => {
      const { document } = this.#o.store.need(name);
      checkSound(document);
      return this.#begin(actor, document, await this.#requestOf(document, wish));
    });
  }

  /** Throws PLAN_HELD_AT_BOTH, MACHINE_AMBIGUOUS. */
  async #requestOf(document: PlanDocument, { mode, ...wish }: RunPlanWish): Promise<RunPlanRequest> {
    if (mode !== 'planned') return { ...wish, mode };
    const held = await this.standing.held(document);
    const runs = this.#o.store.runs.filter((run) => run.document.plan === document.plan);
    const direction = directionOf(held, runs);
    if (direction === 'take') return { waitMs: OFFER_WAIT_MS, ...wish, mode: direction };
    if (direction === 'cede') return { ...wish, mode: direction };
    const { here, elsewhere, unread } = direction;
    const known = [
      ...(here.length > 0 ? [`${here.join(', ')} here`] : []),
      ...(elsewhere.length > 0 ? [`${elsewhere.join(', ')} elsewhere`] : []),
      ...(unread.length > 0 ? [`${unread.join(', ')} where cannot be read`] : []),
    ];
    const said = `the machines of ${document.plan} are held at both sites, as far as is known: ${known.join('; ')}`;
    throw controlFailure('PLAN_HELD_AT_BOTH', said, { context: { plan: document.plan } });
  }

  async #begin(actor: string, document: PlanDocument, request: RunPlanRequest): Promise<StartedRun> {
    const { store, clock, random } = this.#o;
    const { plan: name } = document;
    if (request.mode === 'unplanned') this.#checkGround(name, request);
    for (const run of store.runs) {
      if (run.document.plan === name && run.endedAtMs === undefined) await this.#endLeft(run, request);
    }
    const cuts =
      request.mode === 'unplanned' || request.mode === 'test' ? await this.#cuts(document) : new Map();
    if (request.mode === 'unplanned' || request.mode === 'take') await this.#checkTogether(document, cuts);
    if (request.mode === 'test') this.#checkRoom(document);
    const runId = newId(clock, random);
    const run: PlanRun = {
      ...{ runId, actor, request, document, startedAtMs: clock.wallMs(), ...touchedNow(this.#o) },
      steps: Object.keys(document.machines).map((machine) => {
        const machineId = this.standing.single(machine)?.machineId ?? '';
        return { machine, machineId, state: 'waiting', ...cuts.get(machine) };
      }),
    };
    await store.addRun(run);
    const job = await this.#started({ kind: 'plan.run', args: { runId }, actor, machineId: name }, runId);
    return { run: await store.changeRun(runId, (begun) => ({ ...begun, jobId: job.jobId })), job };
  }

  /**
   * Drops runs that an earlier process recorded and was killed before their jobs were: nobody was told of them, and nobody would carry them
   * out. To be called when the site starts.
   */
  async dropUnbegun(): Promise<void> {
    const { store, jobs, log } = this.#o;
    const underWay = new Set(
      jobs()
        .underWay(['plan.run'])
        .map(({ args }) => args.runId),
    );
    for (const run of store.runs) {
      const { runId, endedAtMs } = run;
      if (endedAtMs !== undefined || isCarriedOut(run) || underWay.has(runId)) continue;
      try {
        await store.dropRun(runId);
      } catch (error) {
        // The next start drops it, or the next run of the plan ends it.
        log.warn('plan.run-left', { runId, reason: messageOf(error) });
      }
    }
  }

  /** Of a run for whose job there is no room nothing stays: it would be one more with each try. Throws SITE_DATABASE_FULL. */
  async #started(request: JobRequest, runId: string): Promise<JobView> {
    const { store, jobs } = this.#o;
    try {
      return jobs().start(request);
    } catch (error) {
      if (isFailure(error, 'SITE_DATABASE_FULL')) await store.dropRun(runId);
      throw error;
    }
  }

  #checkGround(name: string, request: RunPlanRequest): void {
    const { confirmOtherSideDown, askWitness, fence } = request;
    if (!confirmOtherSideDown && !askWitness && !fence) {
      throw controlFailure('PLAN_UNCONFIRMED', `nobody has confirmed that the machines of ${name} are down`);
    }
    groundInPlan(request, false);
  }

  /**
   * Of a run that has not ended: one that nobody carries out any more is ended here, and a rehearsal that the site has begun by itself makes
   * room for a run in earnest. Throws PLAN_RUNS_ALREADY.
   */
  async #endLeft(run: PlanRun, { mode }: RunPlanRequest): Promise<void> {
    const { store, clock, jobs } = this.#o;
    // A process that was killed may have left a run that does not name its job.
    const job = jobs()
      .underWay(['plan.run'])
      .find(({ args }) => args.runId === run.runId);
    if (job) {
      const makesRoom = isOfSchedule(run) && mode !== 'test';
      if (makesRoom) jobs().cancel(job.jobId);
      const left = makesRoom ? await jobs().waitFor(job.jobId, ROOM_WAIT_MS, NEVER) : job;
      if (!hasEnded(left)) {
        throw controlFailure(
          'PLAN_RUNS_ALREADY',
          `${run.document.plan} is being carried out: run ${run.runId}`,
        );
      }
    }
    // Nobody carries it out: it was begun and never came to its job, or that ended without a word.
    await store.changeRun(run.runId, (left) =>
      left.endedAtMs === undefined ? { ...left, endedAtMs: clock.wallMs(), verdict: 'cancelled' } : left,
    );
  }

  /** The points of machines that are to come up from one cut. */
  #cuts(document: PlanDocument): Promise<ReadonlyMap<string, PointOfCut>> {
    const { groups, files } = this.#o;
    const proofs = new BootsOfPoints(files);
    return pointsOfCuts(document, {
      points: (group) => groups.points(group),
      idOf: (machine) => this.standing.single(machine)?.machineId,
      atLeast: (machine) => wishOf(document, machine).atLeast ?? 'crash',
      upFrom: async (machine) => {
        const found = this.standing.single(machine);
        return found && (await this.standing.branchThatRuns(found))?.pointId;
      },
      hasFailed: async (machineId, pointId) => {
        const replica = this.standing.single(machineId)?.replica;
        return replica !== undefined && proofs.hasFailed(replica, pointId);
      },
    });
  }

  /** All machines of a test are up at its end. Throws PLAN_TOO_LARGE. */
  #checkRoom({ plan, machines }: PlanDocument): void {
    const { mostRunning } = this.#o.failovers.rules;
    const wanted = Object.keys(machines).length;
    if (wanted <= mostRunning) return;
    const said = `${plan} has ${wanted} machines, and this site runs no more than ${mostRunning} tests at a time`;
    throw controlFailure('PLAN_TOO_LARGE', said, { context: { wanted, mostRunning } });
  }

  /** One slip of the pen must not leave half of the machines here and half of them nowhere. */
  async #checkTogether(document: PlanDocument, cuts: ReadonlyMap<string, PointOfCut>): Promise<void> {
    const members: Parameters<FailoverActs['checkTogether']>[0][number][] = [];
    for (const machine of Object.keys(document.machines)) {
      const found = this.standing.single(machine);
      const pointId = cuts.get(machine)?.pointId ?? found?.replica?.newest?.statement.pointId;
      // What runs already is where it is; where that cannot be read, its own step says so.
      if (!found?.replica || pointId === undefined || !(await this.standing.isStill(found))) continue;
      const networks = this.#networks(document, machine);
      const hasNewMacs = changesAt(document, machine, this.#o.siteName, false)?.mac === 'new';
      members.push({ replica: found.replica, pointId, networks, hasNewMacs });
    }
    await this.#o.failovers.checkTogether(members);
  }

  /** Says yes to what a run asks before it starts a machine. Throws PLAN_RUN_UNKNOWN, PLAN_NOT_ASKED. */
  approve(actor: string, runId: string, machine: string): Promise<PlanRun> {
    const { audit, store } = this.#o;
    const details = { machine };
    return audit.acting({ actor, act: 'plan.approve', subject: runId, details }, async () => {
      store.needRun(runId);
      if (!(await this.#runners.get(runId)?.approve(machine, actor))) {
        throw controlFailure('PLAN_NOT_ASKED', `run ${runId} asks nothing about ${machine} now`);
      }
      return store.needRun(runId);
    });
  }

  get handlers(): { readonly 'plan.run': JobHandler } {
    return {
      'plan.run': {
        // Every step is on record, and found done or done again.
        repeatable: true,
        // What it has begun is cancelled with it.
        unwinds: true,
        waits: true,
        run: async (job) => {
          const runId = String(job.args.runId);
          const runner = new PlanRunner({ ...this.#o, acts: this.#acts }, runId);
          this.#runners.set(runId, runner);
          try {
            return await runner.carryOut(job);
          } finally {
            this.#runners.delete(runId);
          }
        },
      },
    };
  }

  get #hooks(): PlanHooks {
    const { programs, clock, siteName } = this.#o;
    return new PlanHooks({ programs, clock, siteName });
  }

  readonly #acts: PlanActs = {
    hooks: { run: (...asked) => this.#hooks.run(...asked) },
    openTest: ({ runId }) => this.#o.failovers.together.open(runId),
    closeTest: ({ runId }) => this.#o.failovers.together.close(runId),
    begin: async (run, machine) => {
      const { failovers, handovers, inventory } = this.#o;
      const found = inventory.find(machine);
      const { machineId } = found;
      const actor = actorOf(run);
      // An offer that was made before is told once more.
      const { mode, waitMs, to = offeredTo(found) } = run.request;
      const { graceMs } = run.document.machines[machine]!;
      const choice = chosen(run, machine);
      switch (mode) {
        case 'test':
          return failovers.test(actor, machineId, { ...choice, ...this.#asked(run, machine) }, run.runId);
        case 'unplanned':
          return failovers.start(
            actor,
            machineId,
            {
              ...choice,
              ...this.#how(run, machine),
              ...groundInPlan(run.request, failovers.hasWitness(machineId)),
            },
            fencingOf(run.document, machine),
          );
        case 'take':
          return handovers.take(actor, machineId, {
            ...this.#how(run, machine),
            ...(waitMs === undefined ? {} : { waitMs }),
          });
        case 'cede':
          return handovers.cede(actor, machineId, {
            ...(to === undefined ? {} : { to }),
            ...(graceMs === undefined ? {} : { graceMs }),
          });
      }
    },
    branches: async (machine) =>
      (await this.#o.failovers.list(machine)).filter(({ purpose }) => purpose === 'failover'),
    idOf: (machine) => this.standing.single(machine)?.machineId,
    isSo: async (run, machine, signal) => {
      const found = this.standing.found(machine);
      const { mode, to } = run.request;
      if (mode === 'cede') return found && to === undefined && isHandedOver(found) ? {} : undefined;
      if (mode === 'test' || !found || !(await this.standing.runs(found))) return undefined;
      const branch = await this.standing.branchThatRuns(found);
      if (!branch) return {};
      const { branchId, sequence, state } = branch;
      const up = { branchId, ...(sequence === undefined ? {} : { sequence }) };
      if (state === 'probed') return up;
      const objection = await this.#objection(run, machine, branchId, signal);
      const reason = this.#acts.isHeld(machine) ? objection : 'another site holds it';
      return reason === undefined ? up : { ...up, state: 'failed', reason };
    },
    objection: (...asked) => this.#objection(...asked),
    isHeld: (machine) => {
      const found = this.standing.found(machine);
      return found !== undefined && this.standing.isHeld(found);
    },
    restart: (run, machine, branchId): Promise<JobView> =>
      this.#o.failovers.restart(actorOf(run), machine, branchId, {
        ...this.#gates(run, machine),
        ...this.#connected(run, machine),
      }),
  };

  /** Why the guest of a branch that runs does not answer its gates; undefined if it does. */
  async #objection(
    run: PlanRun,
    machine: string,
    branchId: string,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { probes } = this.#gates(run, machine);
    const results = await this.#o.failovers.probeAgain(machine, branchId, probes, signal);
    if (!results) return 'it runs, and this site is not connected to it';
    const failed = results.filter(({ passed }) => !passed);
    if (failed.length === 0) return undefined;
    return `it runs, and does not answer: ${failed.map(({ reason }) => reason).join('; ')}`;
  }

  /** Throws PLAN_INVALID where a gate asks an address that the plan does not give the machine here. */
  #gates({ document }: PlanRun, machine: string) {
    const { gates, unknownNics } = gatesAt(document, machine, this.#o.siteName);
    const [nicId] = unknownNics;
    if (nicId === undefined) return gates ? { probes: gates } : {};
    const said = `a gate of ${machine} asks {${nicId}}, which has no address at ${this.#o.siteName} by the plan`;
    throw controlFailure('PLAN_INVALID', said);
  }

  #asked(run: PlanRun, machine: string) {
    const changes = changesAt(run.document, machine, this.#o.siteName, run.request.mode === 'test');
    const nics = this.#known(machine)?.nics ?? [];
    return { ...this.#gates(run, machine), ...(changes ? { changes: forNicsOf(changes, nics) } : {}) };
  }

  #connected(run: PlanRun, machine: string) {
    return { networks: { ...this.#networks(run.document, machine) } };
  }

  /** For what begins with a point; a branch that is booted again has its changes. */
  #how(run: PlanRun, machine: string) {
    return { ...this.#asked(run, machine), ...this.#connected(run, machine) };
  }

  #networks(document: PlanDocument, machine: string) {
    return networksAt(document, machine, this.#known(machine)?.nics ?? [], this.#o.siteName);
  }

  #known(machine: string): KnownMachine | undefined {
    const named = this.standing.named(machine);
    if (named.length > 1) return { nics: [], hasAgent: false, isReady: false, namesakes: named.length };
    const [found] = named;
    const configuration = found && configurationOf(found);
    if (!configuration) return found && { nics: [], hasAgent: false, isReady: false };
    const { nics, guestAgent } = configuration;
    const isReady = found.home !== undefined || found.replica?.awaitsSeed === false;
    return { nics, hasAgent: guestAgent, isReady };
  }
}

/** Throws PLAN_INVALID. */
function checkSound(document: PlanDocument): void {
  const errors = findingsOf(document).filter(({ severity }) => severity === 'error');
  if (errors.length === 0) return;
  const said = errors.map(({ message }) => message).join('; ');
  throw controlFailure('PLAN_INVALID', `${document.plan}: ${said}`);
}
