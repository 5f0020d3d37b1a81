import type {
  CedeRequest,
  JobView,
  MachineView,
  TakeRequest,
  UndoRequest,
  WithdrawRequest,
} from '../../api/index.ts';
import {
  CEDE_STEPS,
  checkMayUndo,
  type FailoverReport,
  type Failovers,
  type UndoReport,
} from '../../failover/index.ts';
import { type Clock, throwIfAborted, withTimeout } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { unlessAborted } from '../../lib/unless-aborted.ts';
import { compareClaims } from '../../recovery-point/index.ts';
import { type Replica, tenureOfReplica } from '../../replica/index.ts';
import {
  checkHeld,
  claimElsewhere,
  type ProtectedMachine,
  protectionOf,
  type ReplicationTarget,
  type RightAnswer,
  type RightsTarget,
} from '../../replication/index.ts';
import type { Audit } from '../base/audit.ts';
import type { EventHub } from '../base/event-hub.ts';
import type { JobContext, JobHandler, Jobs } from '../base/jobs.ts';
import { controlFailure } from '../errors.ts';
import { checkNotOutdated, type Inventory } from '../inventory/inventory.ts';
import { peerMeant } from '../inventory/views.ts';
import type { Machines } from '../machines/machines.ts';
import { targetProgress } from '../machines/target-progress.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { DivergedBranches } from '../replicas/diverged-branches.ts';
import { changesOf, type FailoverActs, nameOf, networksOf, probesOf } from './failover-acts.ts';
import { takeBack } from './take-back.ts';

interface HandoverTools {
  readonly siteId: string;
  readonly machines: Machines;
  readonly inventory: Inventory;
  readonly links: Pick<PeerLinks, 'views'>;
  readonly target: (siteId: string) => ReplicationTarget;
  readonly failovers: Pick<Failovers, 'take' | 'undo'>;
  readonly acts: Pick<FailoverActs, 'tended'>;
  readonly diverged: Pick<DivergedBranches, 'alone' | 'checkNothingUpon'>;
  readonly events: EventHub;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly log: Log;
  readonly jobs: () => Jobs;
}

/** So long a guest may take to shut down. */
const GRACE_MS = 120_000;
/** So long the guest of a failover that is undone may take before its power is cut. */
const UNDO_GRACE_MS = 60_000;
/** Somebody may start the machine, or its schedule copy it, just before it is ceded: then it is copied once more, so often. */
const TRIES_MAX = 5;

/**
 * Planned failover: the right to run a machine is ceded where it runs and taken at the other site, each by a person of that site.
 * docs/failover.md says what is durable when.
 */
export class HandoverActs {
  readonly #o: HandoverTools;

  constructor(o: HandoverTools) {
    this.#o = o;
  }

  /** Throws MACHINE_NOT_AT_HOME, PROTECTION_NOT_PROTECTED, PROTECTION_CEDED, PROTECTION_FENCED, PROTECTION_LEASED, MACHINE_NOT_THERE before anything is done. */
  cede(actor: string, reference: string, { to, graceMs = GRACE_MS, powerOff = false }: CedeRequest): JobView {
    const machine = this.#o.inventory.home(reference);
    const { targetSiteId } = protectionOf(machine.record);
    const siteId = to === undefined ? targetSiteId : peerMeant(this.#o.links.views(), to).siteId;
    targetProgress(machine, siteId);
    const { tenure } = machine.right;
    // An offer that was made already is told once more.
    if (tenure.state !== 'cedes' || tenure.offer.siteId !== siteId) checkHeld(machine.record);
    machine.right.checkParty(siteId);
    const { machineId } = machine.record;
    const wasRunning = machine.presence.state === 'running';
    const args: CedeArgs = { siteId, graceMs, powerOff, epoch: tenure.claim.epoch, wasRunning };
    return this.#o.jobs().start({ kind: 'failover.cede', args: { ...args }, actor, machineId });
  }

  /** As `takeBack`; on the word of a person that the other site is down nobody is asked. */
  withdraw(
    actor: string,
    reference: string,
    { confirmOtherSideDown }: WithdrawRequest,
  ): Promise<MachineView> {
    const machine = this.#o.inventory.home(reference);
    const { machineId } = machine.record;
    const details = { confirmOtherSideDown: confirmOtherSideDown ?? false };
    const work = async () => {
      await this.#o.diverged.checkNothingUpon(machineId);
      if (confirmOtherSideDown) {
        checkNotOutdated(this.#o.inventory.find(machineId));
        await machine.right.seizeBack();
      } else {
        await takeBack(machine, {
          ask: (siteId, ask) => this.#ask(siteId, ask),
          checkNotOutdated: () => checkNotOutdated(this.#o.inventory.find(machineId)),
        });
      }
      return this.#o.inventory.view(this.#o.inventory.find(machineId));
    };
    return this.#o.audit.acting({ actor, act: 'failover.withdraw', subject: machineId, details }, () =>
      // Also while the other site is asked: what it answers is the machine here.
      this.#o.diverged.alone(machine, work),
    );
  }

  take(actor: string, reference: string, { waitMs, ...request }: TakeRequest): JobView {
    const replica = this.#o.inventory.replica(reference);
    const args = { ...request, ...(waitMs === undefined ? {} : { waitMs }) };
    const { machineId } = replica.record;
    return this.#o.jobs().start({ kind: 'failover.take', args, actor, machineId });
  }

  /** Throws MACHINE_NO_REPLICA, and as `Failovers.undo` does before anything is done. */
  undo(actor: string, reference: string, { graceMs = UNDO_GRACE_MS }: UndoRequest): JobView {
    const replica = this.#o.inventory.replica(reference);
    checkMayUndo(replica, this.#o.siteId);
    const { machineId } = replica.record;
    const { epoch } = tenureOfReplica(replica.record, this.#o.siteId).claim;
    return this.#o.jobs().start({ kind: 'failover.undo', args: { graceMs, epoch }, actor, machineId });
  }

  get handlers(): Readonly<Record<'failover.cede' | 'failover.take' | 'failover.undo', JobHandler>> {
    return {
      'failover.cede': this.#ceding,
      'failover.take': this.#taking,
      'failover.undo': this.#undoing,
    };
  }

  readonly #undoing: JobHandler = {
    waits: true,
    // What has ended stays ended, and what was given up is found so.
    repeatable: true,
    run: ({ machineId, args, signal, progress }): Promise<UndoReport> =>
      this.#o.acts.tended(machineId, (replica) => {
        progress({ step: 'ending the machine, and giving it up' });
        checkSameFailover(replica, this.#o.siteId, args.epoch);
        return this.#o.failovers.undo(replica, { graceMs: Number(args.graceMs), signal });
      }),
  };

  readonly #ceding: JobHandler = {
    // Each step is found done, or done again.
    repeatable: true,
    // The machine is started again.
    unwinds: true,
    waits: true,
    run: async (job) => {
      const machine = this.#o.inventory.home(job.machineId);
      const { right } = machine;
      const asked = job.args as unknown as CedeArgs;
      if (isHeld(machine, asked)) await this.#cedeHeld(job, asked, machine);
      job.progress({ step: CEDE_STEPS.tell.name });
      // The sender tells it, again and again, also when nobody waits here.
      const isOver = () => right.isTold || right.tenure.state !== 'cedes';
      await untilSo(isOver, (look) => machine.onEvent(look), job.signal);
      const { siteId, epoch } = asked;
      const { pointId, sequence } = targetProgress(machine, siteId).record.acknowledged!;
      return { siteId, epoch: epoch + 1, pointId, sequence, state: right.tenure.state };
    },
  };

  /** If it comes to nothing, a machine that this site had started before, and that has ended, is started again. */
  async #cedeHeld(job: JobContext, asked: CedeArgs, machine: ProtectedMachine): Promise<void> {
    const unhurry = machine.right.hurry(asked.siteId);
    try {
      await this.#shutDownAndCede(job, asked, machine);
    } catch (error) {
      const isClosing = isFailure(job.signal.reason, 'JOB_INTERRUPTED');
      const mayRun = machine.right.tenure.state === 'holds' && machine.record.kind === 'managed';
      if (asked.wasRunning && mayRun && !isClosing) await this.#startAgain(machine);
      throw error;
    } finally {
      unhurry();
    }
  }

  async #shutDownAndCede(
    { signal, progress }: JobContext,
    { siteId, graceMs, powerOff }: CedeArgs,
    machine: ProtectedMachine,
  ): Promise<void> {
    throwIfAborted(signal);
    if (targetProgress(machine, siteId).record.acknowledged === null) {
      progress({ step: 'copying the machine for the first time' });
      await this.#copyAll(machine, siteId, signal);
    }
    progress({ step: CEDE_STEPS.ask.name });
    await this.#checkPeer(machine, siteId, signal);
    if (machine.presence.state === 'running') {
      // What is copied while the guest runs need not be copied while nobody runs it.
      progress({ step: CEDE_STEPS.copy.name });
      await this.#copyAll(machine, siteId, signal);
    }
    progress({ step: CEDE_STEPS.shutDown.name });
    await this.#o.machines.stop(machine, { force: powerOff, limitMs: graceMs, signal });
    progress({ step: CEDE_STEPS.copyLast.name });
    for (let tries = 1; ; tries++) {
      try {
        await machine.right.cede(siteId);
        return;
      } catch (error) {
        if (!isFailure(error, 'PROTECTION_NOT_STILL') || tries === TRIES_MAX) throw error;
      }
      await this.#copyAll(machine, siteId, signal);
    }
  }

  /** Throws what keeps the site from taking the machine over, before the guest knows of it. */
  async #checkPeer(machine: ProtectedMachine, siteId: string, signal: AbortSignal): Promise<void> {
    const { machineId, name } = machine.record;
    const context = { machineId, siteId };
    await machine.right.settle();
    const held = machine.right.tenure.claim;
    const { claim, state, hindrance } = await this.#ask(siteId, (rights) =>
      rights.claim(machineId, held, signal),
    );
    await machine.right.hear(claim);
    checkHeld(machine.record);
    if (state !== 'follows') {
      const said = `site ${siteId} has to end what it runs of ${name} first`;
      throw controlFailure('MACHINE_NOT_THERE', said, { context });
    }
    if (hindrance !== undefined) {
      const hint =
        'See to that at the other site (`warmsite failover check` there), or hand it over to another one.';
      throw controlFailure('MACHINE_NOT_THERE', `site ${siteId} says: ${hindrance}`, { context, hint });
    }
    if (targetProgress(machine, siteId).record.seed === undefined) return;
    throw controlFailure('MACHINE_NOT_THERE', `site ${siteId} awaits the seed of ${name}`, { context });
  }

  /** Throws SITE_PEER_UNKNOWN, and SITE_PEER_OUTDATED where an older version answers. */
  async #ask(siteId: string, ask: (rights: RightsTarget) => Promise<RightAnswer>): Promise<RightAnswer> {
    try {
      return await ask(this.#o.target(siteId).rights!);
    } catch (error) {
      if (!isFailure(error, 'PEER_CALL_UNKNOWN')) throw error;
      const said = `the version of site ${siteId} takes no machines over`;
      throw controlFailure('SITE_PEER_OUTDATED', said, { cause: error, context: { siteId } });
    }
  }

  async #copyAll(machine: ProtectedMachine, siteId: string, signal: AbortSignal): Promise<void> {
    const loop = this.#o.machines.loopOf(machine);
    const { ordinal } = await loop.cutNow('crash');
    await loop.acknowledgedBy(siteId, ordinal, signal);
  }

  async #startAgain(machine: ProtectedMachine): Promise<void> {
    const { name } = machine.record;
    try {
      await this.#o.machines.start(machine);
      this.#o.log.info('machine.started-again', { machine: name });
    } catch (error) {
      this.#o.log.error('machine.not-started-again', { machine: name, reason: messageOf(error) });
    }
  }

  readonly #taking: JobHandler = {
    // As with every failover, a person looks first.
    repeatable: false,
    waits: true,
    run: ({ machineId, args, signal, progress }): Promise<FailoverReport> =>
      this.#o.acts.tended(machineId, async (replica) => {
        if (typeof args.waitMs === 'number') {
          progress({ step: 'waiting for the offer' });
          await this.#offered(replica, args.waitMs, signal);
        }
        progress({ step: 'taking over' });
        const options = {
          ...nameOf(args),
          ...probesOf(args),
          ...networksOf(args),
          ...changesOf(args),
          signal,
        };
        return this.#o.failovers.take(replica, options);
      }),
  };

  /** Resolves when the machine is offered to this site. Throws MACHINE_NOT_OFFERED after the time. */
  #offered(replica: Replica, waitMs: number, outer: AbortSignal): Promise<void> {
    const { events, clock } = this.#o;
    const late = () => {
      const said = `nobody has offered ${replica.record.machineName} in ${waitMs / 1000} s`;
      return controlFailure('MACHINE_NOT_OFFERED', said);
    };
    const isThere = () => replica.record.offer !== undefined;
    const wait = (signal: AbortSignal) => untilSo(isThere, (look) => events.listen(look), signal);
    return withTimeout(clock, waitMs, wait, late, outer);
  }
}

/** Resolves as soon as something is so: it is asked now, and whenever a word comes. Throws CANCELLED. */
async function untilSo(
  isSo: () => boolean,
  listen: (look: () => void) => () => void,
  signal: AbortSignal,
): Promise<void> {
  const heard = Promise.withResolvers<void>();
  const look = () => {
    if (isSo()) heard.resolve();
  };
  const unlisten = listen(look);
  look();
  try {
    await unlessAborted(heard.promise, signal);
  } finally {
    unlisten();
  }
}

/** What a job needs that cedes a machine, as it was when the person asked. */
interface CedeArgs {
  readonly siteId: string;
  readonly graceMs: number;
  readonly powerOff: boolean;
  /** Of the claim by which the machine was held. */
  readonly epoch: number;
  readonly wasRunning: boolean;
}

/**
 * Whether the machine is still to be ceded, for a job that was begun before, in another process perhaps; else it has been. Throws
 * MACHINE_UNSETTLED if somebody else has decided since.
 */
function isHeld(machine: ProtectedMachine, { siteId, epoch }: CedeArgs): boolean {
  const { tenure } = machine.right;
  if (tenure.state === 'holds' && tenure.claim.epoch === epoch) return true;
  const claim = claimElsewhere(machine.record);
  const isOurs = tenure.state === 'cedes' || tenure.state === 'follows';
  if (isOurs && claim && compareClaims(claim, { epoch: epoch + 1, siteId }) === 0) return false;
  const said = `the right to run ${machine.record.name} has changed since this was asked for`;
  throw controlFailure('MACHINE_UNSETTLED', said, { context: { machineId: machine.record.machineId } });
}

/**
 * Asked for was the undoing of what was brought up by one claim; a job that waited, or is carried out once more, ends nothing that came up
 * by a later one. Throws MACHINE_UNSETTLED.
 */
function checkSameFailover({ record }: Replica, siteId: string, epoch: unknown): void {
  const { claim } = tenureOfReplica(record, siteId);
  // An earlier version has not kept which one was meant. What another site holds the undoing refuses by itself.
  if (typeof epoch !== 'number' || claim.siteId !== siteId || claim.epoch === epoch) return;
  const { machineId, machineName } = record;
  const said = `${machineName} has been brought up here once more since this was asked for`;
  throw controlFailure('MACHINE_UNSETTLED', said, { context: { machineId } });
}
