import type { ReplicationView } from '../../api/index.ts';
import type { MachineEvent } from '../../hypervisor/index.ts';
import { isFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { copyTypeOf, type Trigger, type Zones } from '../../recovery-point/index.ts';
import {
  type CutRecord,
  type CutTogether,
  type MachinePresence,
  notHeldFailure,
  type ProtectedMachine,
  protectionOf,
  standstillOf,
} from '../../replication/index.ts';
import { failureOf } from '../base/alerts.ts';
import { Wakeup } from '../base/wakeup.ts';
import { runWorker } from '../base/worker.ts';
import { controlFailure } from '../errors.ts';
import { type ClaimingMachine, ClaimTeller } from './claim-teller.ts';
import { reportCopy } from './copy-alerts.ts';
import { CopyScheduler } from './copy-scheduler.ts';
import { type FenceTools, FenceWatch, isToldOfMachine } from './fence-watch.ts';
import type { IdentityWatch } from './machine-identity.ts';
import { News } from './news.ts';
import { presenceFailure } from './presence-failure.ts';
import { replicationOf } from './replication-view.ts';
import { type StandstillTools, StandstillWatch } from './standstill-watch.ts';
import { targetProgress } from './target-progress.ts';
import { type SenderTools, type SentCopy, TargetSender } from './target-sender.ts';
import { Tips } from './tips.ts';
import { type WriteProgress, WriteWatch } from './write-watch.ts';

/** What the loop needs of a protected machine. */
export type LoopMachine = Pick<
  ProtectedMachine,
  | 'record'
  | 'presence'
  | 'cuts'
  | 'targets'
  | 'chain'
  | 'running'
  | 'look'
  | 'onEvent'
  | 'cut'
  | 'hasUncutChanges'
  | 'replicate'
  | 'continueGuest'
> & { readonly right: ClaimingMachine['right'] };

export interface LoopTools extends SenderTools, StandstillTools, FenceTools {
  readonly files: Pick<FileSystem, 'sizeOf'>;
  readonly zones: Zones;
  readonly identities: Pick<IdentityWatch, 'look' | 'forget'>;
}

/** A machine that is not running, or not to be reached, is looked for this often. */
export const LOOK_EVERY_MS = 5_000;
/** How much a machine has written that does not tell it by itself is looked at this often. */
const MEASURE_EVERY_MS = 30_000;

/**
 * Keeps one machine replicated: makes copies when they are due and sends what has been copied to every target, each in its
 * own turn, so that a slow link delays no copy and no other target. It waits for events and for the clock, never in a circle, and it never gives up:
 * failures are waited out, conflicts are reported and looked at again.
 */
export class ReplicationLoop {
  readonly #machine: LoopMachine;
  readonly #tools: LoopTools;
  readonly #scheduler: CopyScheduler;
  readonly #cutBell: Wakeup;
  readonly #lookBell: Wakeup;
  readonly #stop = new AbortController();
  /** What the machine's process does is known: before that, a machine that runs would be taken for one that does not. */
  readonly #looked = Promise.withResolvers<void>();
  /** Something has been acknowledged, or may not be any more. */
  readonly #news = new News();
  #work: Promise<unknown> = Promise.resolve();
  #unlisten: () => void = () => undefined;
  #isCutting = false;
  #hasStopped = false;
  #senders: readonly TargetSender[] = [];
  #lastSkip: { readonly reason: string; readonly atMs: number } | undefined;
  readonly #tips: Tips;
  readonly #standstill: StandstillWatch;
  readonly #fence: FenceWatch;
  readonly #claims: ClaimTeller;
  readonly #writes: WriteWatch;
  readonly #writeBell: Wakeup;

  constructor(machine: LoopMachine, tools: LoopTools) {
    this.#machine = machine;
    this.#tools = tools;
    this.#tips = new Tips(machine, tools.files);
    this.#standstill = new StandstillWatch(machine, tools);
    this.#fence = new FenceWatch(machine, tools);
    this.#claims = new ClaimTeller(machine, tools);
    this.#scheduler = new CopyScheduler({
      ...{ clock: tools.clock, zones: tools.zones },
      machine: {
        protection: () => machine.record.protection,
        lastCutAtMs: () => machine.cuts.at(-1)?.cutAtMs ?? this.#acknowledgedCutAtMs,
        hasCopy: () => machine.cuts.length > 0 || machine.targets.some(({ record }) => record.acknowledged),
        isAcknowledged: () => machine.targets.some(({ unsent }) => unsent.length === 0),
      },
    });
    this.#writes = new WriteWatch({
      ...{ machine, files: tools.files },
      reached: (copyType) =>
        this.#happened((trigger, type) => trigger.kind === 'written' && type === copyType),
    });
    this.#writeBell = new Wakeup(tools.clock);
    this.#cutBell = new Wakeup(tools.clock);
    this.#lookBell = new Wakeup(tools.clock);
  }

  start(): void {
    this.#unlisten = this.#machine.onEvent((event) => this.#onEvent(event));
    const { signal } = this.#stop;
    this.#followTargets();
    this.#writes.begin();
    this.#work = Promise.all([
      this.#running('look', () => this.#keepLooking(signal)),
      this.#running('cut', () => this.#keepCutting(signal)),
      this.#running('writes', () => this.#keepWatchingWrites(signal)),
      this.#running('claims', () => this.#claims.keepTelling(signal)),
    ]);
  }

  #onEvent({ name, data }: MachineEvent): void {
    const { machineId } = this.#machine.record;
    const { alerts, audit } = this.#tools;
    const frozen = `frozen:${machineId}`;
    switch (name) {
      case 'WARMSITE_GONE':
        this.#hasStopped = true;
        this.#tools.identities.forget(machineId);
        alerts.clear(frozen);
        this.#tellPresence();
        this.#lookBell.ring();
        this.#cutBell.ring();
        break;
      case 'STOP':
      case 'RESUME':
        if (name === 'RESUME') this.#tips.moved();
        this.#lookBell.ring();
        break;
      case 'WARMSITE_TENURE':
        this.kick();
        this.#tellPresence();
        break;
      case 'WARMSITE_THAWED':
        alerts.clear(frozen);
        audit.note({ actor: 'site', act: 'vm.thaw', subject: machineId });
        break;
      case 'VSERPORT_CHANGE':
        if (data.open === true)
          this.#happened((trigger) => trigger.kind === 'guest' && trigger.port === data.id);
        break;
      case 'BLOCK_WRITE_THRESHOLD':
        this.#writeBell.ring();
        break;
      case 'WARMSITE_LEFT_FROZEN':
        alerts.raise(frozen, 'critical', failureOf(data.error), machineId);
        break;
    }
  }

  /** Ends the loop; a transfer under way is broken off and resumed by the next one. */
  async stop({ clearAlerts = false } = {}): Promise<void> {
    this.#unlisten();
    this.#stop.abort();
    this.#news.tell();
    await Promise.all([this.#work, ...this.#senders.map((sender) => sender.stop())]);
    if (!clearAlerts) return;
    for (const sender of this.#senders) sender.clearAlerts();
    this.#fence.clearAlert();
    this.#claims.clearAlerts();
  }

  /** Something has changed that may help: the peer answers again, the policy or the process of the machine is new. */
  kick(): void {
    this.#followTargets();
    this.#claims.ring();
    this.#lookBell.ring();
    this.#cutBell.ring();
    this.#writeBell.ring();
    for (const sender of this.#senders) {
      sender.retry();
      sender.ring();
    }
  }

  /** Makes a copy now, on somebody's word. */
  cutNow(copyType: string): Promise<CutRecord> {
    return this.#cut(copyType);
  }

  /** Makes this machine's part of a cut of its group. Throws COPY_NOT_DUE if there is nothing to copy. */
  async cutTogether(copyType: string, together: CutTogether): Promise<CutRecord> {
    await this.#looked.promise;
    // One that is missing would cost the others their common instant.
    const reason = await this.#tips.reasonNotToCut('still');
    if (reason === undefined) return this.#cut(copyType, together);
    throw controlFailure('COPY_NOT_DUE', reason, { context: { machine: this.#machine.record.name } });
  }

  /** Resolves when a target has acknowledged the cut of this ordinal, or one above. */
  async acknowledged(ordinal: number, signal: AbortSignal): Promise<void> {
    const isDone = () =>
      this.#machine.targets.some(({ record }) => (record.acknowledged?.ordinal ?? 0) >= ordinal);
    while (!isDone()) await this.#news.next(signal);
  }

  /**
   * As `acknowledged`, of one target. Throws what makes that impossible: MACHINE_NOT_THERE when it is none any more, and
   * MACHINE_UNSETTLED when the machine is not followed, or not held by this site.
   */
  async acknowledgedBy(siteId: string, ordinal: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      const { acknowledged } = targetProgress(this.#machine, siteId).record;
      if ((acknowledged?.ordinal ?? 0) >= ordinal) return;
      const notHeld = notHeldFailure(this.#machine.record);
      if (notHeld) throw notHeld;
      if (this.#stop.signal.aborted) {
        const { machineId, name } = this.#machine.record;
        const said = `${name} has been changed while its last copy was on its way`;
        throw controlFailure('MACHINE_UNSETTLED', said, { context: { machineId, siteId } });
      }
      await this.#news.next(signal);
    }
  }

  report(): ReplicationView {
    const nowMs = this.#tools.clock.monotonicMs();
    const due = this.#scheduler.next();
    return {
      ...replicationOf(
        this.#senders.map((sender) => sender.report(this.#tips.areEmpty)),
        this.#isCutting,
      ),
      ...(due && Number.isFinite(due.dueAtMs)
        ? { nextDue: { copyType: due.copyType, why: due.why, inMs: Math.max(0, due.dueAtMs - nowMs) } }
        : {}),
      ...(this.#lastSkip ? { lastSkip: this.#lastSkip } : {}),
    };
  }

  /** How much has been written of what copies are due after, measured now; nothing of a machine whose tips cannot be looked at. */
  async written(): Promise<WriteProgress[]> {
    try {
      return await this.#writes.progress();
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#tools.log.warn('writes.unmeasured', {
        machine: this.#machine.record.name,
        reason: error.message,
      });
      return [];
    }
  }

  #happened(isMeant: (trigger: Trigger, copyType: string) => boolean): readonly string[] {
    const types = this.#scheduler.happened(isMeant);
    if (types.length > 0) this.#cutBell.ring();
    return types;
  }

  /** Pulls the trigger of this name. Throws TRIGGER_UNKNOWN. */
  call(name: string): readonly string[] {
    const types = this.#happened((trigger) => trigger.kind === 'call' && trigger.name === name);
    if (types.length > 0) return types;
    throw controlFailure('TRIGGER_UNKNOWN', `${this.#machine.record.name} has no trigger ${name}`);
  }

  /**
   * One copy of this type is due, whether or not it has a schedule; otherwise it is an event like others. Throws COPY_TYPE_UNKNOWN,
   * PROTECTION_NOT_PROTECTED.
   */
  ask(copyType: string): void {
    copyTypeOf(copyType, protectionOf(this.#machine.record).copyTypes ?? []);
    this.#scheduler.ask(copyType);
    this.#cutBell.ring();
  }

  #running(worker: string, work: () => Promise<never>, signal = this.#stop.signal): Promise<void> {
    const { machineId } = this.#machine.record;
    const alert = `worker-${worker}:${machineId}`;
    const fields = () => ({ machine: this.#machine.record.name, worker });
    const about = { alert, event: 'replication.worker-broke', fields, machineId };
    return runWorker(this.#tools, about, work, signal);
  }

  // Looking: what the machine's process does.

  async #keepLooking(signal: AbortSignal): Promise<never> {
    for (;;) {
      await this.#look().finally(this.#looked.resolve);
      const pauseMs = Math.min(await this.#fence.look(signal), await this.#standstill.look());
      await this.#lookBell.wait(this.#machine.presence.state === 'running' ? pauseMs : LOOK_EVERY_MS, signal);
    }
  }

  async #look(): Promise<void> {
    const { record } = this.#machine;
    const key = `presence:${record.machineId}`;
    const before = doingOf(this.#machine.presence);
    try {
      const presence = await this.#machine.look();
      if (presence.state === 'stale' || presence.state === 'unreachable') {
        this.#tools.alerts.raise(key, 'critical', presenceFailure(record.name, presence), record.machineId);
      } else {
        this.#tools.alerts.clear(key);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#tools.alerts.raise(key, 'critical', error, record.machineId);
    }
    const { presence } = this.#machine;
    if (doingOf(presence) === 'running') this.#tips.moved();
    if (doingOf(presence) === before) return;
    this.#tellPresence();
    await this.#tools.identities.look(this.#machine);
    this.#cutBell.ring();
    this.#writeBell.ring();
    for (const sender of this.#senders) sender.retry();
  }

  #tellPresence(): void {
    const { machineId } = this.#machine.record;
    const { presence } = this.#machine;
    const standstill = standstillOf(presence)?.why;
    const event = { event: 'machine' as const, machineId, state: presence.state };
    this.#tools.events.emit(standstill === undefined ? event : { ...event, standstill });
  }

  // Watching: how much the guest writes.

  async #keepWatchingWrites(signal: AbortSignal): Promise<never> {
    await this.#looked.promise;
    for (;;) {
      const isWatched = await this.#watchWrites();
      await this.#writeBell.wait(isWatched ? Number.POSITIVE_INFINITY : MEASURE_EVERY_MS, signal);
    }
  }

  /** Whether the machine will tell when to look again. */
  async #watchWrites(): Promise<boolean> {
    try {
      await this.#writes.look();
      return true;
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#tools.log.warn('writes.unwatched', {
        machine: this.#machine.record.name,
        reason: error.message,
      });
      return false;
    }
  }

  // Cutting: copies when they are due.

  async #keepCutting(signal: AbortSignal): Promise<never> {
    await this.#looked.promise;
    for (;;) {
      const due = this.#scheduler.next();
      const inMs = due ? due.dueAtMs - this.#tools.clock.monotonicMs() : Number.POSITIVE_INFINITY;
      if (this.#hasStopped && due) {
        this.#hasStopped = false;
        await this.#makeScheduled('crash');
      } else if (due && inMs <= 0) {
        await this.#makeScheduled(due.copyType);
      } else {
        await this.#cutBell.wait(Math.min(inMs, this.#scheduler.patienceMs), signal);
      }
    }
  }

  async #makeScheduled(copyType: string): Promise<void> {
    this.#scheduler.made(copyType);
    try {
      const reason = await this.#tips.reasonNotToCut();
      if (reason === undefined) await this.#cut(copyType);
      else {
        this.#skip(copyType, reason);
        if (this.#tips.areStill) this.#writes.passed(copyType);
        else this.#scheduler.postpone(copyType);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      // A type that the policy has lost meanwhile is not asked for again.
      if (error.code !== 'COPY_TYPE_UNKNOWN') this.#scheduler.postpone(copyType);
      const { machineId } = this.#machine.record;
      if (!isToldOfMachine(error)) this.#tools.alerts.raise(`copy:${machineId}`, 'warning', error, machineId);
      this.#skip(copyType, error.message);
    }
  }

  async #cut(copyType: string, together?: CutTogether): Promise<CutRecord> {
    const { machineId, name } = this.#machine.record;
    const { alerts, log, events } = this.#tools;
    this.#isCutting = true;
    try {
      const sealed = this.#tips.sealing();
      const cut = await this.#machine.cut(copyType, together);
      this.#writes.copied(cut);
      this.#writeBell.ring();
      await sealed();
      alerts.clear(`copy:${machineId}`);
      // Why a group was not cut at one instant is told once, of the group.
      if (!together || cut.group) reportCopy(alerts, this.#machine.record, cut);
      log.info('copy.made', {
        machine: name,
        cutId: cut.cutId,
        copyType,
        consistency: cut.consistency,
        pauseMs: cut.pauseMs,
      });
      events.emit({ event: 'point', change: 'cut', machineId, pointId: cut.cutId });
      for (const sender of this.#senders) sender.ring();
      return cut;
    } finally {
      this.#isCutting = false;
    }
  }

  #skip(copyType: string, reason: string): void {
    if (this.#lastSkip?.reason !== reason) {
      this.#tools.log.info('copy.skipped', { machine: this.#machine.record.name, copyType, reason });
    }
    this.#lastSkip = { reason, atMs: this.#tools.clock.wallMs() };
  }

  // Sending: every target has its own sender.

  /** Senders for the targets that there are now. */
  #followTargets(): void {
    this.#news.tell();
    const wanted = this.#machine.targets.map(({ siteId }) => siteId);
    for (const siteId of wanted) {
      if (this.#senders.some((sender) => sender.siteId === siteId)) continue;
      const sender = new TargetSender(this.#machine, siteId, this.#tools, (sent) => this.#onSent(sent));
      this.#senders = [...this.#senders, sender];
      sender.start((work, signal) => this.#running(`send-${siteId}`, () => work(signal), signal));
    }
  }

  /** Ends the sending to one target, which is none any more or will not be one; a transfer under way is broken off. */
  async stopSending(siteId: string): Promise<void> {
    const sender = this.#senders.find((candidate) => candidate.siteId === siteId);
    if (!sender) return;
    await sender.stop();
    sender.clearAlerts();
    this.#senders = this.#senders.filter((candidate) => candidate !== sender);
  }

  #onSent({ siteId, transfer, previousCutAtMs }: SentCopy): void {
    const { record } = this.#machine.targets.find((target) => target.siteId === siteId) ?? {};
    const ordinal = record?.acknowledged?.ordinal ?? 0;
    // What the first target to have a copy tells of change rate and link counts; a slow one holds nobody up.
    const isFirst = this.#machine.targets.every(
      ({ siteId: other, record: { acknowledged } }) =>
        other === siteId || (acknowledged?.ordinal ?? 0) < ordinal,
    );
    const cutAtMs = this.#senders.find((sender) => sender.siteId === siteId)?.acknowledgedCutAtMs;
    if (transfer && isFirst) this.#scheduler.learn({ ...transfer, previousCutAtMs, cutAtMs });
    for (const sender of this.#senders) sender.tellOutrun();
    this.#news.tell();
    // A variable interval waits for this.
    this.#cutBell.ring();
  }

  /** When the newest copy was made that any target has. */
  get #acknowledgedCutAtMs(): number | undefined {
    const known = this.#senders.flatMap((sender) => sender.acknowledgedCutAtMs ?? []);
    return known.length > 0 ? Math.max(...known) : undefined;
  }
}

/** The machine's state and its guest's, in one word. */
function doingOf(presence: MachinePresence): string {
  return standstillOf(presence)?.why ?? presence.state;
}
