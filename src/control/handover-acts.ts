import type { CedeRequest, JobView, MachineView, TakeRequest, WithdrawRequest } from '../api/index.ts';
import type { FailoverReport, Failovers, TakeOptions } from '../failover/index.ts';
import { type Clock, cancelled, sleep, withTimeout } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { PeerClient } from '../peer/index.ts';
import type { Claim } from '../recovery-point/index.ts';
import { type Replica, tenureOfReplica } from '../replica/index.ts';
import {
  askToLetGo,
  type Cession,
  type ProtectedMachine,
  protectionOf,
  tellOffer,
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
  readonly links: Pick<PeerLinks, 'views' | 'client'>;
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
/** An offer that did not reach the other site is told again after this. */
const AGAIN_AFTER_MS = 1_000;
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

  /** Throws MACHINE_NOT_AT_HOME, PROTECTION_NOT_PROTECTED, PROTECTION_TARGET_UNKNOWN before anything is done. */
  cede(actor: string, reference: string, { to, graceMs = GRACE_MS, powerOff = false }: CedeRequest): JobView {
    const machine = this.#o.inventory.home(reference);
    const { targetSiteId } = protectionOf(machine.record);
    const siteId = to === undefined ? targetSiteId : peerMeant(this.#o.links.views(), to).siteId;
    progressOf(machine, siteId);
    const { machineId } = machine.record;
    const args = { siteId, graceMs, powerOff };
    return this.#o.jobs().start({ kind: 'failover.cede', args, actor, machineId });
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
        const { withdrawal, siteId } = machine.right.withdrawal();
        const tenure = confirmOtherSideDown
          ? await machine.right.seizeBack()
          : await machine.right.hear(await askToLetGo(this.#o.links.client(siteId), machineId, withdrawal));
        if (tenure.state !== 'holds') {
          throw controlFailure('MACHINE_TAKEN', `${name} was taken over by site ${siteId} before`, {
            context: { machineId, siteId },
          });
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
    run: async (job) => {
      const { machineId, args, signal, progress } = job;
      const machine = this.#o.inventory.home(machineId);
      const siteId = String(args.siteId);
      const client = this.#o.links.client(siteId);
      const cession =
        machine.right.tenure.state === 'cedes'
          ? await machine.right.cede(siteId)
          : await this.#cedeFromRunning(job, machine, client);
      progress({ step: 'telling the other site' });
      const tenure = await machine.right.hear(await this.#told(client, machineId, cession, signal));
      const { offer, pointId, sequence } = cession;
      return { siteId, epoch: offer.epoch, pointId, sequence, state: tenure.state };
    },
  };

  /** A machine that cannot be ceded, or is not to be any more, is started again if that was its site's to do before. */
  async #cedeFromRunning(job: JobContext, machine: ProtectedMachine, client: PeerClient): Promise<Cession> {
    const { args, signal, progress } = job;
    const siteId = String(args.siteId);
    await this.#checkPeer(machine, client, siteId);
    const wasRunning = machine.presence.state === 'running';
    if (wasRunning) {
      // What is copied while the guest runs need not be copied while nobody runs it.
      progress({ step: 'copying what was written so far' });
      await this.#copyAll(machine, siteId, signal);
    }
    try {
      progress({ step: 'shutting the guest down' });
      const how = { force: args.powerOff === true, limitMs: Number(args.graceMs), signal };
      await this.#o.machines.stop(machine, how);
      progress({ step: 'copying what was written last' });
      return await this.#cedeStill(machine, siteId, signal);
    } catch (error) {
      const isClosing = isFailure(signal.reason, 'JOB_INTERRUPTED');
      const mayRun = machine.right.tenure.state === 'holds' && machine.record.kind === 'managed';
      if (wasRunning && mayRun && !isClosing) await this.#startAgain(machine);
      throw error;
    }
  }

  /** Throws what keeps the site from taking the machine over, before the guest knows of it. */
  async #checkPeer(machine: ProtectedMachine, client: PeerClient, siteId: string): Promise<void> {
    const { machineId, name } = machine.record;
    try {
      // One's own claim withdraws nothing; the answer is what the other site knows.
      await machine.right.hear(await askToLetGo(client, machineId, machine.right.tenure.claim));
    } catch (error) {
      if (!isFailure(error, 'PEER_CALL_UNKNOWN')) throw error;
      const said = `the version of site ${siteId} takes no machines over`;
      throw controlFailure('SITE_PEER_OUTDATED', said, { cause: error, context: { siteId } });
    }
    if (progressOf(machine, siteId).record.seed === undefined) return;
    const said = `site ${siteId} awaits the seed of ${name}`;
    throw controlFailure('MACHINE_NOT_THERE', said, { context: { machineId, siteId } });
  }

  async #copyAll(machine: ProtectedMachine, siteId: string, signal: AbortSignal): Promise<void> {
    const loop = this.#o.machines.loopOf(machine);
    const { ordinal } = await loop.cutNow('crash');
    await loop.acknowledged(ordinal, signal, siteId);
  }

  async #cedeStill(machine: ProtectedMachine, siteId: string, signal: AbortSignal): Promise<Cession> {
    for (let tries = 1; ; tries++) {
      const last = machine.cuts.at(-1);
      const isCopied = last !== undefined && !(await machine.hasUncutChanges());
      if (!isCopied) await this.#copyAll(machine, siteId, signal);
      else await this.#o.machines.loopOf(machine).acknowledged(last.ordinal, signal, siteId);
      try {
        return await machine.right.cede(siteId);
      } catch (error) {
        if (!isFailure(error, 'PROTECTION_NOT_STILL') || tries === TRIES_MAX) throw error;
      }
    }
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

  /** Returns the highest claim that the other site knows; until it answers, nobody runs the machine. */
  async #told(client: PeerClient, machineId: string, cession: Cession, signal: AbortSignal): Promise<Claim> {
    for (;;) {
      try {
        return await tellOffer(client, machineId, cession, signal);
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        if (!isFailure(error) || error.retry === 'never') throw error;
        this.#o.log.warn('right.not-told', { machineId, reason: error.message });
      }
      await sleep(this.#o.clock, AGAIN_AFTER_MS, signal);
    }
  }

  readonly #taking: JobHandler = {
    // As with every failover, a person looks first.
    repeatable: false,
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

  /** Resolves when the machine is offered to this site, and after the time all the same. */
  async #offered(replica: Replica, waitMs: number, signal: AbortSignal): Promise<void> {
    const { events, clock } = this.#o;
    const isThere = () =>
      replica.record.offer !== undefined || tenureOfReplica(replica.record).state === 'holds';
    const heard = Promise.withResolvers<void>();
    const unlisten = events.listen(() => {
      if (isThere()) heard.resolve();
    });
    if (isThere()) heard.resolve();
    const late = () =>
      controlFailure(
        'MACHINE_NOT_OFFERED',
        `nobody has offered ${replica.record.machineName} in ${waitMs / 1000} s`,
      );
    const aborted = () => heard.reject(cancelled(signal));
    signal.addEventListener('abort', aborted, { once: true });
    try {
      await withTimeout(clock, waitMs, () => heard.promise, late);
    } finally {
      unlisten();
      signal.removeEventListener('abort', aborted);
    }
  }
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
