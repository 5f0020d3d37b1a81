import type {
  DrillBudgetRequest,
  DrillMachineView,
  DrillNowRequest,
  DrillPolicyShape,
  DrillPolicyView,
  DrillStatusView,
  DrillView,
  JobView,
} from '../../api/index.ts';
import type { CpuGroups, Failovers } from '../../failover/index.ts';
import { checkMachineConfiguration } from '../../hypervisor/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { checkProbes } from '../../probe/index.ts';
import { endOfWindows, pointFailure, satisfies, type Zones } from '../../recovery-point/index.ts';
import type { Replica } from '../../replica/index.ts';
import type { Audit } from '../base/audit.ts';
import type { JobHandler, Jobs } from '../base/jobs.ts';
import { hindranceWords } from '../drills/drill-alerts.ts';
import { howOf } from '../drills/drill-facts.ts';
import { drillViewOf } from '../drills/drill-outcome.ts';
import type { DrillSettings } from '../drills/drill-settings.ts';
import type { DrilledMachine, DrillLook, Drills } from '../drills/drills.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { type FailoverActs, pointOf, probesOf } from './failover-acts.ts';
import type { PointActs } from './point-acts.ts';

const LISTED_MAX = 200;

export interface DrillActsTools {
  readonly settings: DrillSettings;
  readonly drills: Drills;
  readonly failovers: Pick<Failovers, 'test'>;
  readonly acts: Pick<FailoverActs, 'tended'>;
  readonly cpuGroups: Pick<CpuGroups, 'check'>;
  readonly inventory: Inventory;
  readonly points: Pick<PointActs, 'publishedPoint'>;
  readonly jobs: () => Pick<Jobs, 'start' | 'ofMachine'>;
  readonly audit: Audit;
  readonly zones: Zones;
  readonly clock: Clock;
}

/** What a person does with drills, and how one is carried out. */
export class DrillActs {
  readonly #o: DrillActsTools;

  constructor(o: DrillActsTools) {
    this.#o = o;
  }

  async status(): Promise<DrillStatusView> {
    const { settings, drills } = this.#o;
    settings.checkRead();
    const look = await drills.look();
    const { budget, isPaused, sitePolicy } = settings;
    return {
      ...{ budget, isPaused, usedBytes: look.usedBytes, sitePolicy: sitePolicy ?? null },
      givesWay: look.givesWay,
      ...(look.quietUntilMs === undefined ? {} : { quietUntilMs: Math.ceil(look.quietUntilMs) }),
      machines: look.drilled.map((one, index) => machineViewOf(look, one, index, budget.memoryBytes)),
    };
  }

  /** Throws POLICY_ZONE_UNKNOWN, POLICY_NEVER, FAILOVER_LIMIT_UNAVAILABLE; nothing has changed then. */
  budget(actor: string, request: DrillBudgetRequest): Promise<DrillStatusView> {
    const { cpuGroups, settings, zones, clock } = this.#o;
    const { cpuPercent, cpuWeight, quiet } = request;
    return this.#changing(actor, 'drill.budget', undefined, { ...request }, async () => {
      for (const { zone } of quiet ?? []) zones.check(zone);
      if (quiet && endOfWindows(quiet, clock.wallMs(), zones) === undefined) {
        throw pointFailure('POLICY_NEVER', 'the quiet hours leave no minute of the week for drills');
      }
      if (cpuPercent || cpuWeight) await cpuGroups.check();
      await settings.changeBudget(request);
    });
  }

  pause(actor: string, isPaused: boolean, reference: string | undefined): Promise<DrillStatusView> {
    const machineId =
      reference === undefined ? undefined : this.#o.inventory.replica(reference).record.machineId;
    return this.#changing(actor, isPaused ? 'drill.pause' : 'drill.resume', machineId, {}, () =>
      this.#o.settings.pause(machineId, isPaused),
    );
  }

  changeSitePolicy(actor: string, policy: DrillPolicyShape | undefined): Promise<DrillStatusView> {
    return this.#changing(actor, 'drill.policy', undefined, { policy: policy ?? null }, async () => {
      checkProbes(policy?.probes ?? []);
      await this.#o.settings.changeSite(policy);
    });
  }

  policy(reference: string): DrillPolicyView {
    this.#o.settings.checkRead();
    return this.#o.settings.of(this.#o.inventory.replica(reference).record.machineId);
  }

  /** undefined: what holds for all machines holds for this one. Throws FAILOVER_PROBE_INVALID. */
  async changePolicy(
    actor: string,
    reference: string,
    policy: DrillPolicyShape | null | undefined,
  ): Promise<DrillPolicyView> {
    const { machineId } = this.#o.inventory.replica(reference).record;
    const details = { policy: policy ?? null, isOwn: policy !== undefined };
    await this.#changing(actor, 'drill.policy', machineId, details, async () => {
      checkProbes(policy?.probes ?? []);
      await this.#o.settings.change(machineId, policy);
    });
    return this.#o.settings.of(machineId);
  }

  async #changing(
    actor: string,
    act: string,
    subject: string | undefined,
    details: Readonly<Record<string, unknown>>,
    change: () => Promise<void>,
  ): Promise<DrillStatusView> {
    const about = { actor, act, details, ...(subject === undefined ? {} : { subject }) };
    await this.#o.audit.acting(about, change);
    this.#o.drills.changed(subject);
    return this.status();
  }

  /** The newest first. */
  list(reference: string): DrillView[] {
    const { machineId } = this.#o.inventory.replica(reference).record;
    return this.#o.jobs().ofMachine('drill.run', machineId, LISTED_MAX).map(drillViewOf);
  }

  /** A person's word: at once, whatever is paused, quiet or full. Throws DRILL_NO_POINT. */
  async now(actor: string, reference: string, { point }: DrillNowRequest): Promise<JobView> {
    const { inventory, points, settings, jobs } = this.#o;
    const replica = inventory.replica(reference);
    const { machineId } = replica.record;
    const { policy } = settings.of(machineId);
    const pointId =
      point === undefined
        ? newestMeant(replica, policy ?? undefined)
        : await points.publishedPoint(replica, point);
    const { statement } = replica.point(pointId);
    const { memoryBytes } = checkMachineConfiguration(statement.configuration);
    return jobs().start({
      ...{ kind: 'drill.run', actor, machineId },
      args: {
        ...{ pointId, sequence: statement.sequence, ofOthers: false },
        ...(point === undefined ? { why: 'the newest of those that are drilled' } : {}),
        memoryBytes: policy?.memoryBytes ?? memoryBytes,
        ...howOf(policy),
      },
    });
  }

  readonly running: JobHandler = {
    // Whether and when it is done again is planned anew: a drill that ends the site must not be the first thing that the next one does.
    repeatable: false,
    // A failover must not wait for its turn behind drills.
    waits: true,
    run: ({ machineId, args, signal, progress }) =>
      this.#o.acts.tended(machineId, (replica) => {
        progress({ step: 'booting in isolation' });
        const { cpuPercent, cpuWeight, atOnce } = this.#o.settings.budget;
        const limits = {
          ...(typeof args.limitBytes === 'number' ? { memoryBytes: args.limitBytes } : {}),
          ...(cpuPercent === undefined ? {} : { cpuPercent: Math.max(1, Math.floor(cpuPercent / atOnce)) }),
          ...(cpuWeight === undefined ? {} : { cpuWeight }),
        };
        const how = { ...probesOf(args), limits, keep: false, asCut: true, givesWay: true, signal };
        return this.#o.failovers.test(replica, pointOf(String(args.pointId), args), how);
      }),
  };
}

function newestMeant({ points, record }: Replica, policy: DrillPolicyShape | undefined): string {
  const meant = points.findLast(({ statement: { copyType, consistency } }) =>
    policy?.copyTypes ? policy.copyTypes.includes(copyType) : satisfies(consistency, 'application'),
  );
  const point = meant ?? points.at(-1);
  if (point) return point.statement.pointId;
  throw controlFailure('DRILL_NO_POINT', `there is no point of ${record.machineName} yet`);
}

function machineViewOf(
  { plan, underWay, held }: DrillLook,
  { replica, view, facts, machine }: DrilledMachine,
  index: number,
  budgetBytes: number,
): DrillMachineView {
  const { machineId, policy } = machine;
  const standing = plan.standings[index]!;
  const { debt, failing, waiting, isOverdue } = standing;
  const isRunning = underWay.some((job) => job.machineId === machineId);
  const state = isRunning ? 'running' : stateOf(standing);
  const isWell = state === 'proven' || state === 'running';
  const reason = isWell ? failing?.reason : hindranceWords(machine, standing, { budgetBytes, held });
  return {
    ...{ machineId, name: replica.record.machineName, from: view.from, isPaused: machine.isPaused },
    ...{ state, waiting, isOverdue },
    ...(debt === undefined
      ? {}
      : {
          unprovenSinceMs: Math.floor(debt.sinceMs),
          dueAtMs: Math.ceil(debt.sinceMs + policy.proveWithinMs),
        }),
    ...(facts.newestProven ? { newestProven: facts.newestProven } : {}),
    ...(reason === undefined ? {} : { reason }),
  };
}

function stateOf(standing: DrillLook['plan']['standings'][number]): DrillMachineView['state'] {
  if (standing.impossible) return standing.impossible;
  if (standing.failing) return 'failing';
  if (standing.waiting > 0) return 'waiting';
  if (standing.hasNoneMeant) return 'none-meant';
  return standing.debt ? 'unproven' : 'proven';
}
