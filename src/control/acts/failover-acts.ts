import type {
  BranchView,
  ExportBranchRequest,
  FailoverRequest,
  FailoverRules,
  FailoverRulesRequest,
  FencingProgram,
  ForwardRequest,
  JobView,
  MachineChanges,
  PrepareRequest,
  ProbeRequest,
  RestartRequest,
  StartCheckView,
  StopBranchRequest,
  TestBranchRequest,
  TestFailoverRequest,
} from '../../api/index.ts';
import type { Failovers, PointChoice, StartOptions } from '../../failover/index.ts';
import type { Claim } from '../../recovery-point/index.ts';
import { findBranch, type Replica, type Trunk } from '../../replica/index.ts';
import type { Audit } from '../base/audit.ts';
import type { JobArgs, JobContext, JobHandler, Jobs } from '../base/jobs.ts';
import { GRACE_MS, preparationArgs } from '../drills/preparation-args.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { LeaseVotes } from '../leases/lease-votes.ts';
import type { ReplicaFences } from '../replicas/replica-fences.ts';
import type { ReplicaKeeper } from '../replicas/replica-keeper.ts';
import type { StoredTestRules } from '../replicas/test-rules.ts';
import { type DivergedActs, testView } from './diverged-acts.ts';
import { groundOf } from './failover-grounds.ts';
import type { FencingActs } from './fencing-acts.ts';
import type { PointActs } from './point-acts.ts';

interface FailoverTools {
  readonly failovers: Failovers;
  readonly inventory: Inventory;
  readonly points: PointActs;
  readonly keeper: ReplicaKeeper;
  readonly fences: Pick<ReplicaFences, 'look'>;
  readonly audit: Audit;
  readonly testRules: StoredTestRules;
  readonly diverged: DivergedActs;
  readonly fencing: Pick<FencingActs, 'need' | 'by'>;
  readonly votes: Pick<LeaseVotes, 'need' | 'isParty' | 'seek' | 'confirm' | 'held' | 'letGo'>;
}

/** How the point was chosen that a request names, where no person has named it. */
interface ChosenPoint {
  readonly why?: string;
}

/** What a person does with branches. Everything that boots or ends a machine is a job; its result is the report. */
export class FailoverActs {
  readonly #o: FailoverTools;
  readonly #jobs: () => Jobs;

  constructor(o: FailoverTools & { jobs: () => Jobs }) {
    this.#o = o;
    this.#jobs = o.jobs;
  }

  get handlers() {
    return {
      'failover.test': this.#testing,
      'failover.start': this.#starting,
      'failover.restart': this.#restarting,
      'failover.stop': this.#stopping,
      'failover.forward': this.#forwarding,
      'failover.prepare': this.#preparing,
      'failover.cleanup': this.#cleaning,
      ...this.#o.diverged.handlers,
    } as const satisfies Partial<Record<JobView['kind'], JobHandler>>;
  }

  async list(reference: string): Promise<BranchView[]> {
    const { machineId, replica } = this.#o.inventory.find(reference);
    const diverged = await this.#o.diverged.list(machineId);
    if (!replica && diverged.length > 0) return diverged;
    if (!replica) this.#o.diverged.checkRead(machineId);
    const { points } = this.#o.inventory.replica(reference);
    const branches = replica ? await this.#o.failovers.list(replica) : [];
    const ofReplica = branches.map((branch) => {
      const point = points.find(({ statement }) => statement.pointId === branch.pointId);
      return {
        ...{ ...testView(branch), machineId },
        ...(point ? { sequence: point.statement.sequence } : {}),
      };
    });
    return [...ofReplica, ...diverged];
  }

  /** Of a branch that diverged, as `test` of a point. */
  testBranch(actor: string, reference: string, branch: string, request: TestBranchRequest): Promise<JobView> {
    return this.#o.diverged.test(actor, reference, branch, request);
  }

  /** Writes the disks of a branch that does not run to files. */
  export(actor: string, reference: string, branch: string, request: ExportBranchRequest): Promise<JobView> {
    return this.#o.diverged.export(actor, reference, branch, request);
  }

  /** `together`: the test of several machines that it is part of, which is open. */
  async test(
    actor: string,
    reference: string,
    request: TestFailoverRequest & ChosenPoint,
    together?: string,
  ): Promise<JobView> {
    const replica = this.#o.inventory.replica(reference);
    const { keep, name, probes, limits, lifetimeMs, changes, wish, why } = request;
    const args = {
      ...(why === undefined ? {} : { why }),
      ...(limits ? { limits } : {}),
      ...(wish ? { wish } : {}),
      ...(changes ? { changes } : {}),
      ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
      ...(name ? { name } : {}),
      ...(await this.#pointOf(replica, request.point)),
      ...(probes ? { probes } : {}),
      ...(together === undefined ? {} : { together }),
      keep: keep ?? false,
    };
    return this.#start('failover.test', actor, replica, args);
  }

  /** Changes nothing, and may be asked at any time. */
  async check(reference: string, point: string): Promise<StartCheckView> {
    const replica = this.#o.inventory.replica(reference);
    return this.#o.keeper.starts.check(replica, await this.#o.points.publishedPoint(replica, point));
  }

  /** `fencing`: what fences in the place of the site's own program. */
  async start(
    actor: string,
    reference: string,
    request: FailoverRequest & ChosenPoint,
    fencing?: FencingProgram,
  ): Promise<JobView> {
    const replica = this.#o.inventory.replica(reference);
    const { machineId, machineName } = replica.record;
    const { wish, name, probes, networks, changes, why } = request;
    const ground = groundOf(request, { name: machineName, hasWitness: this.hasWitness(machineId) });
    if ('askWitness' in ground) this.#o.votes.need(machineId);
    const args = {
      ...(name ? { name } : {}),
      ...(why === undefined ? {} : { why }),
      ...(await this.#pointOf(replica, request.point)),
      ...(wish ? { wish } : {}),
      ...(probes ? { probes } : {}),
      ...(networks ? { networks } : {}),
      ...(changes ? { changes } : {}),
      ...('fence' in ground ? { fence: fencing ?? this.#o.fencing.need() } : ground),
    };
    return this.#start('failover.start', actor, replica, args);
  }

  /** Whether this site may ask a witness for the right to run a machine. */
  hasWitness(machineId: string): boolean {
    return this.#o.votes.isParty(machineId);
  }

  /** As the failovers do. */
  probeAgain(
    reference: string,
    branchId: string,
    probes: readonly ProbeRequest[] | undefined,
    signal: AbortSignal,
  ): ReturnType<Failovers['probeAgain']> {
    return this.#o.failovers.probeAgain(this.#o.inventory.replica(reference), branchId, probes, signal);
  }

  /** Tests of several machines. */
  get together(): Failovers['together'] {
    return this.#o.failovers.together;
  }

  /** As the failovers do. */
  checkTogether(machines: Parameters<Failovers['checkTogether']>[0]): Promise<void> {
    return this.#o.failovers.checkTogether(machines);
  }

  async prepare(actor: string, reference: string, request: PrepareRequest): Promise<JobView> {
    const replica = this.#o.inventory.replica(reference);
    const { point, ...others } = request;
    const pointId = await this.#o.points.publishedPoint(replica, point);
    return this.#start('failover.prepare', actor, replica, preparationArgs(pointId, others));
  }

  async restart(actor: string, reference: string, branch: string, request: RestartRequest): Promise<JobView> {
    const { machineId, ...meant } = await this.#o.diverged.withMachine(reference, branch);
    const { probes, networks } = request;
    const args = { ...meant, ...(probes ? { probes } : {}), ...(networks ? { networks } : {}) };
    return this.#jobs().start({ kind: 'failover.restart', args, actor, machineId });
  }

  async stop(
    actor: string,
    reference: string,
    branch: string,
    { graceMs = GRACE_MS }: StopBranchRequest,
  ): Promise<JobView> {
    const { machineId, ...meant } = await this.#o.diverged.withMachine(reference, branch);
    return this.#jobs().start({ kind: 'failover.stop', args: { ...meant, graceMs }, actor, machineId });
  }

  async forward(actor: string, reference: string, branch: string, request: ForwardRequest): Promise<JobView> {
    const replica = this.#o.inventory.replica(reference);
    const { branchId, purpose } = findBranch(replica, branch);
    const { to, name, probes, networks } = request;
    const { pointId } = await this.#pointOf(replica, to);
    const oldBranch = request.oldBranch ?? (purpose === 'failover' ? 'keep' : 'discard');
    const graceMs = request.graceMs ?? (oldBranch === 'keep' ? GRACE_MS : 0);
    const args = {
      ...{ branchId, oldBranch, graceMs },
      ...(pointId ? { to: pointId } : {}),
      ...(name ? { name } : {}),
      ...(probes ? { probes } : {}),
      ...(networks ? { networks } : {}),
    };
    return this.#start('failover.forward', actor, replica, args);
  }

  async cleanup(actor: string, reference: string, branch: string): Promise<JobView> {
    const { machineId, ...args } = await this.#o.diverged.meant(reference, branch);
    return this.#jobs().start({ kind: 'failover.cleanup', args, actor, machineId });
  }

  /** As they hold. */
  get rules(): FailoverRules {
    return this.#o.testRules.rules;
  }

  /** Throws why they cannot be read: those that hold then are nobody's word. */
  showRules(): FailoverRules {
    return this.#o.testRules.said;
  }

  changeRules(actor: string, request: FailoverRulesRequest): Promise<FailoverRules> {
    return this.#o.testRules.change(this.#o.audit, actor, request);
  }

  #start(
    kind: Extract<JobView['kind'], `failover.${string}`>,
    actor: string,
    replica: Replica,
    args: JobArgs,
  ): JobView {
    return this.#jobs().start({ kind, args, actor, machineId: replica.record.machineId });
  }

  /** Decided when the person asks, not when the job begins: `latest` means the latest that the person saw. */
  async #pointOf(replica: Replica, point: string | undefined): Promise<{ pointId?: string }> {
    return point === undefined ? {} : { pointId: await this.#o.points.publishedPoint(replica, point) };
  }

  readonly #testing: JobHandler = {
    // A half-made test is removed when the site starts; nobody waits for another one unasked.
    repeatable: false,
    run: async ({ machineId, args, signal, progress }) => {
      const options = {
        ...probesOf(args),
        ...nameOf(args),
        ...changesOf(args),
        ...(args.limits ? { limits: args.limits as NonNullable<TestFailoverRequest['limits']> } : {}),
        ...(typeof args.lifetimeMs === 'number' ? { lifetimeMs: args.lifetimeMs } : {}),
        ...(typeof args.together === 'string' ? { together: args.together } : {}),
        keep: args.keep === true,
        signal,
      };
      progress({ step: 'booting in isolation' });
      const { diverged } = args;
      if (typeof diverged !== 'string')
        return this.tended(machineId, (replica) => this.#o.failovers.test(replica, choiceOf(args), options));
      return this.#o.diverged.reading(machineId, diverged, (branch) =>
        this.#o.failovers.testDiverged(branch, branch.branchId, options),
      );
    },
  };

  readonly #starting: JobHandler = {
    // It waits for no test's turn.
    waits: true,
    // Whether to fail over is decided by a person who knows what stands, not by a restart.
    repeatable: false,
    run: (job) =>
      this.tended(job.machineId, (replica) => {
        const { args, signal, progress } = job;
        progress({ step: 'failing over' });
        return this.#o.failovers.start(replica, choiceOf(args), {
          ...probesOf(args),
          ...networksOf(args),
          ...nameOf(args),
          ...changesOf(args),
          ...this.#groundOf(job),
          signal,
        });
      }),
  };

  /** As it was decided when the job was begun. */
  #groundOf({
    jobId,
    machineId,
    args,
    signal,
    progress,
  }: JobContext): Pick<StartOptions, 'voting' | 'fencing' | 'confirmedOtherSideDown'> {
    const { votes, fencing } = this.#o;
    if (args.askWitness) {
      const asking = () => progress({ step: 'asking the witness' });
      const seek = () => {
        asking();
        return votes.seek(machineId, signal);
      };
      const confirm = (claim: Claim) => {
        asking();
        return votes.confirm(machineId, claim, signal);
      };
      return { voting: { seek, confirm, letGo: (makeSure) => votes.letGo(machineId, makeSure) } };
    }
    if (args.fence) {
      const { actor } = this.#jobs().get(jobId);
      const onBegin = () => progress({ step: 'fencing the other side' });
      return { fencing: fencing.by(args.fence as FencingProgram, { jobId, actor, signal, onBegin }) };
    }
    // The request's schema admits nothing but true; the failover looks again.
    return { confirmedOtherSideDown: args.confirmOtherSideDown as true };
  }

  readonly #restarting: JobHandler = {
    // A machine that is down must not wait for exports.
    waits: true,
    // As with a failover, a person looks first.
    repeatable: false,
    run: ({ jobId, machineId, args, signal, progress }) => {
      const reason = reasonOf(this.#jobs().get(jobId));
      const restart = (trunk: Trunk) => {
        progress({ step: 'booting again' });
        return this.#o.failovers.restart(trunk, String(args.branchId), {
          ...probesOf(args),
          ...networksOf(args),
          ...{ reason, signal },
        });
      };
      const { diverged } = args;
      return typeof diverged === 'string'
        ? this.#o.diverged.reading(machineId, diverged, restart)
        : this.tended(machineId, restart);
    },
  };

  readonly #preparing: JobHandler = {
    // What is half prepared is removed when the site starts.
    repeatable: false,
    run: ({ machineId, args, signal, progress }) =>
      this.tended(machineId, (replica) => {
        progress({ step: 'preparing the point' });
        return this.#o.failovers.prepare(replica, String(args.pointId), {
          programs: args.programs as PrepareRequest['programs'],
          graceMs: Number(args.graceMs),
          ...probesOf(args),
          ...nameOf(args),
          signal,
        });
      }),
  };

  readonly #stopping: JobHandler = {
    waits: true,
    repeatable: true,
    run: ({ machineId, args, signal, progress }) =>
      this.#upon(machineId, args, async (trunk) => {
        progress({ step: 'ending the machine' });
        const graceMs = Number(args.graceMs);
        return { ended: await this.#o.failovers.stop(trunk, String(args.branchId), { graceMs, signal }) };
      }),
  };

  readonly #forwarding: JobHandler = {
    waits: true,
    // As with a failover, a person looks first.
    repeatable: false,
    run: ({ machineId, args, signal, progress }) =>
      this.tended(machineId, (replica) => {
        progress({ step: 'going forward to a later point' });
        const oldBranch = args.oldBranch === 'discard' ? 'discard' : 'keep';
        return this.#o.failovers.forward(replica, String(args.branchId), {
          ...{ oldBranch, graceMs: Number(args.graceMs) },
          ...(typeof args.to === 'string' ? { to: args.to } : {}),
          ...probesOf(args),
          ...networksOf(args),
          ...nameOf(args),
          signal,
        });
      }),
  };

  readonly #cleaning: JobHandler = {
    repeatable: true,
    run: async ({ machineId, args, signal, progress }) => {
      progress({ step: 'ending the machine and removing its files' });
      const branchId = String(args.branchId);
      if (args.diverged === branchId)
        return { removed: await this.#o.diverged.remove(machineId, branchId, signal) };
      return this.#upon(machineId, args, async (trunk) => ({
        removed: await this.#o.failovers.cleanup(trunk, branchId),
      }));
    },
  };

  /** With what the branch of a job is one of. */
  async #upon<T>(machineId: string, args: JobArgs, work: (trunk: Trunk) => Promise<T>): Promise<T> {
    const diverged = await this.#o.diverged.of(machineId, args);
    return diverged ? work(diverged) : this.tended(machineId, work);
  }

  /** Proofs and branches decide what retention may let go: it is applied after each of these acts. */
  async tended<T>(machineId: string, work: (replica: Replica) => Promise<T>): Promise<T> {
    const replica = this.#o.inventory.replica(machineId);
    try {
      return await work(replica);
    } finally {
      await this.#o.votes.held(machineId);
      this.#o.keeper.tend(replica);
      this.#o.fences.look(replica);
    }
  }
}

/** A point, and if no person has named it, how it was chosen. */
export function pointOf(pointId: string, { why }: JobArgs): PointChoice {
  return { pointId, ...(typeof why === 'string' ? { why } : {}) };
}

function choiceOf(args: JobArgs): PointChoice {
  if (typeof args.pointId === 'string') return pointOf(args.pointId, args);
  return { wish: (args as Pick<FailoverRequest, 'wish'>).wish ?? {} };
}

export function nameOf({ name }: JobArgs): { name?: string } {
  return typeof name === 'string' ? { name } : {};
}

export function probesOf(args: JobArgs): { probes?: readonly ProbeRequest[] } {
  return args.probes === undefined ? {} : { probes: args.probes as ProbeRequest[] };
}

export function changesOf({ changes }: JobArgs): { changes?: MachineChanges } {
  return changes === undefined ? {} : { changes: changes as MachineChanges };
}

export function networksOf(args: JobArgs): { networks?: NonNullable<FailoverRequest['networks']> } {
  return args.networks === undefined
    ? {}
    : { networks: args.networks as NonNullable<FailoverRequest['networks']> };
}

/** Why a branch is booted again, as its report says it. */
export function reasonOf({ actor }: Pick<JobView, 'actor'>): string {
  const [, runId] = /^plan:(.*)$/.exec(actor) ?? [];
  return runId === undefined ? 'restarted by a person' : `restarted by run ${runId} of a plan`;
}
