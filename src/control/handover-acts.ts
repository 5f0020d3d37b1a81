import type { CedeRequest, JobView, MachineView, TakeRequest, WithdrawRequest } from '../api/index.ts';
import type { FailoverReport, Failovers, TakeOptions } from '../failover/index.ts';
import { type Clock, withTimeout } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { unlessAborted } from '../lib/unless-aborted.ts';
import { compareClaims } from '../recovery-point/index.ts';
import type { Replica } from '../replica/index.ts';
import {
  type Cession,
  checkHeld,
  type ProtectedMachine,
  protectionOf,
  type ReplicationTarget,
  type RightAnswer,
  type RightsTarget,
} from '../replication/index.ts';
import type { Audit } from './audit.ts';
import { controlFailure } from './errors.ts';
import type { EventHub } from './event-hub.ts';
import type { Inventory } from './inventory.ts';
import type { JobArgs, JobContext, JobHandler, Jobs } from './jobs.ts';
import type { Machines } from './machines.ts';
import type { PeerLinks } from './peer-links.ts';
import type { ReplicaKeeper } from './replica-keeper.ts';
import { peerMeant } from './views.ts';

interface HandoverTools {
  readonly machines: Machines;
  readonly inventory: Inventory;
  readonly links: Pick<PeerLinks, 'views'>;
  readonly target: (siteId: string) => ReplicationTarget;
  readonly failovers: Pick<Failovers, 'take'>;
  readonly keeper: Pick<ReplicaKeeper, 'tend'>;
  readonly events: EventHub;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly log: Log;
  readonly jobs: () => Jobs;
}

/** So long a guest may take to shut down. */
const GRACE_MS = 120_000;
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

  /** Throws MACHINE_NOT_AT_HOME, PROTECTION_NOT_PROTECTED, PROTECTION_CEDED, PROTECTION_FENCED, MACHINE_NOT_THERE before anything is done. */
  cede(actor: string, reference: string, { to, graceMs = GRACE_MS, powerOff = false }: CedeRequest): JobView {
    const machine = this.#o.inventory.home(reference);
    const { targetSiteId } = protectionOf(machine.record);
    const siteId = to === undefined ? targetSiteId : peerMeant(this.#o.links.views(), to).siteId;
    progressOf(machine, siteId);
    const { tenure } = machine.right;
    // An offer that was made already is told once more.
    if (tenure.state !== 'cedes' || tenure.offer.siteId !== siteId) checkHeld(machine.record);
    const { machineId } = machine.record;
    const wasRunning = machine.presence.state === 'running';
    const args: CedeArgs = { siteId, graceMs, powerOff, epoch: tenure.claim.epoch, wasRunning };
    return this.#o.jobs().start({ kind: 'failover.cede', args: { ...args }, actor, machineId });
  }

  /** Throws PROTECTION_NOT_CEDED, MACHINE_TAKEN, and what keeps the other site from answering. */
  withdraw(
    actor: string,
    reference: string,
    { confirmOtherSideDown }: WithdrawRequest,
  ): Promise<MachineView> {
    const machine = this.#o.inventory.home(reference);
    const { machineId, name } = machine.record;
    const details = { confirmOtherSideDown: confirmOtherSideDown ?? false };
    return this.#o.audit.acting(
      { actor, act: 'failover.withdraw', subject: machineId, details },
      async () => {
        if (confirmOtherSideDown) await machine.right.seizeBack();
        else {
          const { withdrawal, siteId } = machine.right.withdrawal();
          const { claim } = await this.#rightsAt(siteId).withdraw(machineId, withdrawal);
          const { state } = await machine.right.hear(claim);
          if (state === 'cedes') {
            const said = `site ${siteId} does not let go of ${name}`;
            throw controlFailure('MACHINE_UNSETTLED', said, { context: { machineId, siteId } });
          }
          if (state !== 'holds') {
            throw controlFailure('MACHINE_TAKEN', `${name} was taken over by site ${siteId} before`, {
              context: { machineId, siteId },
            });
          }
        }
        return this.#o.inventory.view(this.#o.inventory.find(machineId));
      },
    );
  }

  take(actor: string, reference: string, { waitMs, ...request }: TakeRequest): JobView {
    const replica = this.#o.inventory.replica(reference);
    const args = { ...request, ...(waitMs === undefined ? {} : { waitMs }) };
    const { machineId } = replica.record;
    return this.#o.jobs().start({ kind: 'failover.take', args, actor, machineId });
  }

  get handlers(): { readonly 'failover.cede': JobHandler; readonly 'failover.take': JobHandler } {
    return { 'failover.cede': this.#ceding, 'failover.take': this.#taking };
  }

  readonly #ceding: JobHandler = {
    // Each step is found done, or done again.
    repeatable: true,
    waits: true,
    run: async (job) => {
      const { machineId, args, signal, progress } = job;
      const machine = this.#o.inventory.home(machineId);
      const { siteId, epoch } = args as unknown as CedeArgs;
      const stands = standing(machine, args as unknown as CedeArgs);
      const cession = stands === 'held' ? await this.#cedeHeld(job, machine) : undefined;
      progress({ step: 'telling the other site' });
      await this.#untilTold(machine, signal);
      const { acknowledged } = progressOf(machine, siteId).record;
      const { pointId, sequence } = cession ?? acknowledged!;
      return { siteId, epoch: epoch + 1, pointId, sequence, state: machine.right.tenure.state };
    },
  };

  /** If it comes to nothing, a machine that this site had started before, and that has ended, is started again. */
  async #cedeHeld(job: JobContext, machine: ProtectedMachine): Promise<Cession> {
    const { siteId, wasRunning } = job.args as unknown as CedeArgs;
    const unhurry = machine.right.hurry(siteId);
    try {
      return await this.#shutDownAndCede(job, machine);
    } catch (error) {
      const isClosing = isFailure(job.signal.reason, 'JOB_INTERRUPTED');
      const mayRun = machine.right.tenure.state === 'holds' && machine.record.kind === 'managed';
      if (wasRunning && mayRun && !isClosing) await this.#startAgain(machine);
      throw error;
    } finally {
      unhurry();
    }
  }

  async #shutDownAndCede(
    { args, signal, progress }: JobContext,
    machine: ProtectedMachine,
  ): Promise<Cession> {
    const { siteId, graceMs, powerOff } = args as unknown as CedeArgs;
    if (progressOf(machine, siteId).record.acknowledged === null) {
      progress({ step: 'copying the machine for the first time' });
      await this.#copyAll(machine, siteId, signal);
    }
    await this.#checkPeer(machine, siteId, signal);
    if (machine.presence.state === 'running') {
      // What is copied while the guest runs need not be copied while nobody runs it.
      progress({ step: 'copying what was written so far' });
      await this.#copyAll(machine, siteId, signal);
    }
    progress({ step: 'shutting the guest down' });
    await this.#o.machines.stop(machine, { force: powerOff, limitMs: graceMs, signal });
    progress({ step: 'copying what was written last' });
    for (let tries = 1; ; tries++) {
      try {
        return await machine.right.cede(siteId);
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
    const { claim, state } = await this.#rightsAt(siteId).claim(
      machineId,
      machine.right.tenure.claim,
      signal,
    );
    await machine.right.hear(claim);
    checkHeld(machine.record);
    if (state !== 'follows') {
      const said = `site ${siteId} has to end what it runs of ${name} first`;
      throw controlFailure('MACHINE_NOT_THERE', said, { context });
    }
    if (progressOf(machine, siteId).record.seed === undefined) return;
    throw controlFailure('MACHINE_NOT_THERE', `site ${siteId} awaits the seed of ${name}`, { context });
  }

  /** Throws SITE_PEER_UNKNOWN; each call SITE_PEER_OUTDATED where an older version answers. */
  #rightsAt(siteId: string): RightsTarget {
    const rights = this.#o.target(siteId).rights!;
    const asked = async (answer: Promise<RightAnswer>): Promise<RightAnswer> => {
      try {
        return await answer;
      } catch (error) {
        if (!isFailure(error, 'PEER_CALL_UNKNOWN')) throw error;
        const said = `the version of site ${siteId} takes no machines over`;
        throw controlFailure('SITE_PEER_OUTDATED', said, { cause: error, context: { siteId } });
      }
    };
    return {
      claim: (...about) => asked(rights.claim(...about)),
      offer: (...about) => asked(rights.offer(...about)),
      withdraw: (...about) => asked(rights.withdraw(...about)),
    };
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

  /** The sender tells the other site, again and again, also when nobody waits here. Resolves too when the offer is over. */
  async #untilTold(machine: ProtectedMachine, signal: AbortSignal): Promise<void> {
    const { right } = machine;
    const heard = Promise.withResolvers<void>();
    const look = () => {
      if (right.isTold || right.tenure.state !== 'cedes') heard.resolve();
    };
    const unlisten = machine.onEvent(look);
    look();
    try {
      await unlessAborted(heard.promise, signal);
    } finally {
      unlisten();
    }
  }

  readonly #taking: JobHandler = {
    // As with every failover, a person looks first.
    repeatable: false,
    waits: true,
    run: async ({ machineId, args, signal, progress }): Promise<FailoverReport> => {
      const replica = this.#o.inventory.replica(machineId);
      if (typeof args.waitMs === 'number') {
        progress({ step: 'waiting for the offer' });
        await this.#offered(replica, args.waitMs, signal);
      }
      progress({ step: 'taking over' });
      try {
        return await this.#o.failovers.take(replica, { ...optionsOf(args), signal });
      } finally {
        this.#o.keeper.tend(replica);
      }
    },
  };

  /** Resolves when the machine is offered to this site. Throws MACHINE_NOT_OFFERED after the time. */
  async #offered(replica: Replica, waitMs: number, signal: AbortSignal): Promise<void> {
    const { events, clock } = this.#o;
    const heard = Promise.withResolvers<void>();
    const look = () => {
      if (replica.record.offer) heard.resolve();
    };
    const unlisten = events.listen(look);
    look();
    const late = () => {
      const said = `nobody has offered ${replica.record.machineName} in ${waitMs / 1000} s`;
      return controlFailure('MACHINE_NOT_OFFERED', said);
    };
    try {
      await withTimeout(clock, waitMs, (ended) => unlessAborted(heard.promise, ended), late, signal);
    } finally {
      unlisten();
    }
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

/** Where the machine stands for a job that was begun before, in another process perhaps. Throws MACHINE_UNSETTLED if somebody else has decided since. */
function standing(machine: ProtectedMachine, { siteId, epoch }: CedeArgs): 'held' | 'ceded' {
  const { tenure } = machine.right;
  const offer = { epoch: epoch + 1, siteId };
  if (tenure.state === 'holds' && tenure.claim.epoch === epoch) return 'held';
  if (tenure.state === 'cedes' && compareClaims(tenure.offer, offer) === 0) return 'ceded';
  if (tenure.state === 'follows' && compareClaims(tenure.claim, offer) === 0) return 'ceded';
  const said = `the right to run ${machine.record.name} has changed since this was asked for`;
  throw controlFailure('MACHINE_UNSETTLED', said, { context: { machineId: machine.record.machineId } });
}

/** Throws PROTECTION_TARGET_UNKNOWN for a site that the machine is not replicated to. */
function progressOf(machine: ProtectedMachine, siteId: string) {
  const found = machine.targets.find((target) => target.siteId === siteId);
  if (found) return found;
  const { machineId, name } = machine.record;
  throw controlFailure('MACHINE_NOT_THERE', `${name} is not replicated to site ${siteId}`, {
    context: { machineId, siteId },
  });
}

function optionsOf(args: JobArgs): Omit<TakeOptions, 'signal'> {
  const { name, probes, networks } = args as TakeRequest;
  return {
    ...(name === undefined ? {} : { name }),
    ...(probes === undefined ? {} : { probes }),
    ...(networks === undefined ? {} : { networks }),
  };
}
