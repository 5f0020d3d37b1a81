import type { ReplicationView } from '../api/index.ts';
import type { MachineEvent } from '../hypervisor/index.ts';
import { type Clock, cancelled } from '../lib/clock.ts';
import { Failure, isFailure, messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import { type Backoff, pauseMs } from '../lib/retry.ts';
import type { Trigger, Zones } from '../recovery-point/index.ts';
import type {
  CutRecord,
  CutTogether,
  ProtectedMachine,
  Protection,
  ReplicationTarget,
} from '../replication/index.ts';
import { type AlertSink, failureOf } from './alerts.ts';
import type { Audit } from './audit.ts';
import { reportCopy } from './copy-alerts.ts';
import { CopyScheduler, rpoOf } from './copy-scheduler.ts';
import { controlFailure } from './errors.ts';
import type { EventHub } from './event-hub.ts';
import { presenceFailure } from './presence-failure.ts';
import { Tips } from './tips.ts';
import { Wakeup } from './wakeup.ts';

/** What the loop needs of a protected machine. */
export type LoopMachine = Pick<
  ProtectedMachine,
  | 'record'
  | 'presence'
  | 'cuts'
  | 'target'
  | 'unsent'
  | 'sendProgress'
  | 'chain'
  | 'look'
  | 'onEvent'
  | 'cut'
  | 'hasUncutChanges'
  | 'replicate'
>;

export interface LoopTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly files: Pick<FileSystem, 'sizeOf'>;
  readonly alerts: AlertSink;
  readonly audit: Pick<Audit, 'note'>;
  readonly events: EventHub;
  readonly zones: Zones;
  /** The recovery site as it is now; throws while it is not paired. */
  readonly target: (siteId: string) => ReplicationTarget;
}

/** A machine that is not running, or not to be reached, is looked for this often. */
export const LOOK_EVERY_MS = 5_000;
/** A conflict is not given up: it is looked at again this often, and when something has changed. */
export const BLOCKED_PAUSE_MS = 30_000;
const BACKOFF: Backoff = { firstMs: 500, maximumMs: 30_000, triesMax: Number.POSITIVE_INFINITY };
/** Whether an awaited seed has been imported is asked this often; also with each copy. */
const SEED_PAUSE_MS = 30_000;
/** A sealed layer that cannot be sent yet, because it takes in a younger one, is looked at again after this. */
const UNREADY_PAUSE_MS = 1_000;

/**
 * Keeps one machine replicated: makes copies when they are due and sends what has been copied, each in its own turn, so
 * that a slow link delays no copy. It waits for events and for the clock, never in a circle, and it never gives up:
 * failures are waited out, conflicts are reported and looked at again.
 */
export class ReplicationLoop {
  readonly #machine: LoopMachine;
  readonly #tools: LoopTools;
  readonly #scheduler: CopyScheduler;
  readonly #cutBell: Wakeup;
  readonly #sendBell: Wakeup;
  readonly #lookBell: Wakeup;
  readonly #retryBell: Wakeup;
  readonly #stop = new AbortController();
  /** What the machine's process does is known: before that, a machine that runs would be taken for one that does not. */
  readonly #looked = Promise.withResolvers<void>();
  readonly #whenAcknowledged = new Set<() => void>();
  #work: Promise<unknown> = Promise.resolve();
  #unlisten: () => void = () => undefined;
  #isCutting = false;
  #hasStopped = false;
  #sending: { readonly sinceMs: number } | undefined;
  #failure:
    | { readonly failure: Failure; readonly isBlocked: boolean; readonly retryAtMs: number }
    | undefined;
  #lastSkip: { readonly reason: string; readonly atMs: number } | undefined;
  readonly #tips: Tips;

  constructor(machine: LoopMachine, tools: LoopTools) {
    this.#machine = machine;
    this.#tools = tools;
    this.#tips = new Tips(machine, tools.files);
    this.#scheduler = new CopyScheduler({
      ...{ clock: tools.clock, zones: tools.zones },
      machine: {
        protection: () => machine.record.protection,
        lastCutAtMs: () => machine.cuts.at(-1)?.cutAtMs ?? this.#acknowledgedCutAtMs,
        hasCopy: () => machine.cuts.length > 0 || Boolean(machine.target?.acknowledged),
        isAcknowledged: () => machine.unsent.length === 0,
      },
    });
    this.#cutBell = new Wakeup(tools.clock);
    this.#sendBell = new Wakeup(tools.clock);
    this.#lookBell = new Wakeup(tools.clock);
    this.#retryBell = new Wakeup(tools.clock);
  }

  start(): void {
    this.#unlisten = this.#machine.onEvent((event) => this.#onEvent(event));
    const { signal } = this.#stop;
    this.#work = Promise.all([
      this.#running('look', () => this.#keepLooking(signal)),
      this.#running('cut', () => this.#keepCutting(signal)),
      this.#running('send', () => this.#keepSending(signal)),
    ]);
  }

  #onEvent({ name, data }: MachineEvent): void {
    const { machineId } = this.#machine.record;
    const { alerts, audit } = this.#tools;
    const frozen = `frozen:${machineId}`;
    switch (name) {
      case 'WARMSITE_GONE':
        this.#hasStopped = true;
        alerts.clear(frozen);
        this.#tellPresence();
        this.#lookBell.ring();
        this.#cutBell.ring();
        break;
      case 'WARMSITE_THAWED':
        alerts.clear(frozen);
        audit.note({ actor: 'site', act: 'vm.thaw', subject: machineId });
        break;
      case 'VSERPORT_CHANGE':
        if (data.open === true)
          this.#happened((trigger) => trigger.kind === 'guest' && trigger.port === data.id);
        break;
      case 'WARMSITE_LEFT_FROZEN':
        alerts.raise(frozen, 'critical', failureOf(data.error), machineId);
        break;
    }
  }

  /** Ends the loop; a transfer under way is broken off and resumed by the next one. */
  async stop(): Promise<void> {
    this.#unlisten();
    this.#stop.abort();
    await this.#work;
  }

  /** Something has changed that may help: the peer answers again, the policy or the process of the machine is new. */
  kick(): void {
    this.#lookBell.ring();
    this.#cutBell.ring();
    this.#retryBell.ring();
    this.#sendBell.ring();
  }

  /** Makes a copy now, on somebody's word. */
  cutNow(copyType: string): Promise<CutRecord> {
    return this.#cut(copyType);
  }

  /** Makes this machine's part of a cut of its group. Throws COPY_NOT_DUE if there is nothing to copy. */
  async cutTogether(copyType: string, together: CutTogether): Promise<CutRecord> {
    await this.#looked.promise;
    const reason = await this.#tips.reasonNotToCut();
    if (reason === undefined) return this.#cut(copyType, together);
    throw controlFailure('COPY_NOT_DUE', reason, { context: { machine: this.#machine.record.name } });
  }

  /** Resolves when the target has acknowledged the cut of this ordinal, or one above. */
  async acknowledged(ordinal: number, signal: AbortSignal): Promise<void> {
    const isDone = () => (this.#machine.target?.acknowledged?.ordinal ?? 0) >= ordinal;
    while (!isDone()) {
      if (signal.aborted) throw cancelled(signal);
      await new Promise<void>((resolve) => {
        const end = (): void => {
          this.#whenAcknowledged.delete(end);
          signal.removeEventListener('abort', end);
          resolve();
        };
        this.#whenAcknowledged.add(end);
        signal.addEventListener('abort', end, { once: true });
      });
    }
  }

  report(): ReplicationView {
    const nowMs = this.#tools.clock.monotonicMs();
    const due = this.#scheduler.next();
    const { acknowledged, seed } = this.#machine.target ?? {};
    const cutAtMs = this.#acknowledgedCutAtMs;
    const failure = this.#failure;
    const transfer = this.#transfer();
    return {
      phase: this.#phase(),
      unsentCuts: this.#machine.unsent.length,
      ...(acknowledged
        ? {
            acknowledged: {
              pointId: acknowledged.pointId,
              sequence: acknowledged.sequence,
              atMs: acknowledged.atMs,
              ...(cutAtMs === undefined ? {} : { cutAtMs }),
            },
          }
        : {}),
      ...(seed ? { seed: seed.state } : {}),
      ...(transfer ? { transfer } : {}),
      ...(due && Number.isFinite(due.dueAtMs)
        ? { nextDue: { copyType: due.copyType, why: due.why, inMs: Math.max(0, due.dueAtMs - nowMs) } }
        : {}),
      ...(this.#lastSkip ? { lastSkip: this.#lastSkip } : {}),
      ...(failure
        ? {
            failure: failure.failure.toJSON() as ReplicationView['failure'],
            retryInMs: Math.max(0, failure.retryAtMs - nowMs),
          }
        : {}),
      rpo: this.#rpo(),
    };
  }

  #phase(): ReplicationView['phase'] {
    if (this.#failure) return this.#failure.isBlocked ? 'blocked' : 'retrying';
    if (this.#sending && this.#machine.unsent.length > 0) return 'sending';
    return this.#isCutting ? 'cutting' : 'idle';
  }

  #transfer(): ReplicationView['transfer'] {
    const progress = this.#machine.sendProgress;
    if (!progress || !this.#sending) return undefined;
    const elapsedMs = this.#tools.clock.monotonicMs() - this.#sending.sinceMs;
    return {
      ...progress,
      complete: this.#machine.target?.acknowledged === null,
      ...(elapsedMs > 0 ? { bytesPerSecond: (progress.bytesDone / elapsedMs) * 1000 } : {}),
    };
  }

  #rpo(): ReplicationView['rpo'] {
    const { presence, unsent, target } = this.#machine;
    // Points whose base has not come save nothing.
    const isWithoutBase = target?.seed !== undefined;
    // A machine that does not run and whose every byte is there loses nothing.
    const isStill = presence.state === 'stopped' && this.#tips.areEmpty && unsent.length === 0;
    const cutAtMs = isWithoutBase ? undefined : isStill ? 'now' : this.#acknowledgedCutAtMs;
    return rpoOf(this.#protection?.schedules ?? [], cutAtMs, this.#tools.clock.wallMs());
  }

  get #protection(): Protection | null {
    return this.#machine.record.protection;
  }

  #happened(isMeant: (trigger: Trigger) => boolean): readonly string[] {
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

  /** Runs one of the three workers; a bug ends that worker, loudly, and no other machine's. */
  async #running(worker: string, work: () => Promise<never>): Promise<void> {
    try {
      this.#tools.alerts.clear(`worker-${worker}:${this.#machine.record.machineId}`);
      await work();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      const { name, machineId } = this.#machine.record;
      this.#tools.log.error('replication.worker-broke', { machine: name, worker, error });
      this.#tools.alerts.raise(`worker-${worker}:${machineId}`, 'critical', failureOf(error), machineId);
    }
  }

  // Looking: what the machine's process does.

  async #keepLooking(signal: AbortSignal): Promise<never> {
    for (;;) {
      await this.#look().finally(this.#looked.resolve);
      await this.#lookBell.wait(
        this.#machine.presence.state === 'running' ? Number.POSITIVE_INFINITY : LOOK_EVERY_MS,
        signal,
      );
    }
  }

  async #look(): Promise<void> {
    const { record } = this.#machine;
    const key = `presence:${record.machineId}`;
    const before = this.#machine.presence.state;
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
    if (this.#machine.presence.state === before) return;
    this.#tellPresence();
    this.#cutBell.ring();
    this.#retryBell.ring();
  }

  #tellPresence(): void {
    const { machineId } = this.#machine.record;
    this.#tools.events.emit({ event: 'machine', machineId, state: this.#machine.presence.state });
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
        if (this.#machine.presence.state !== 'stopped') this.#scheduler.postpone(copyType);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#scheduler.postpone(copyType);
      const { machineId } = this.#machine.record;
      this.#tools.alerts.raise(`copy:${machineId}`, 'warning', error, machineId);
      this.#skip(copyType, error.message);
    }
  }

  async #cut(copyType: string, together?: CutTogether): Promise<CutRecord> {
    const { machineId, name } = this.#machine.record;
    const { alerts, log, events } = this.#tools;
    this.#isCutting = true;
    try {
      const cut = await this.#machine.cut(copyType, together);
      await this.#tips.sealed();
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
      this.#sendBell.ring();
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

  // Sending: what has been cut, oldest first.

  async #keepSending(signal: AbortSignal): Promise<never> {
    const { machineId } = this.#machine.record;
    let attempt = 0;
    for (;;) {
      try {
        await this.#sendAll(signal);
        attempt = 0;
        this.#failure = undefined;
        this.#tools.alerts.clear(`replication:${machineId}`);
        await this.#sendBell.wait(this.#idleMs(), signal);
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        attempt += 1;
        await this.#waitOut(error, attempt, signal);
      }
    }
  }

  /** How long there is nothing to send: what waits for a seed to be exported is told when that has happened. */
  #idleMs(): number {
    const seed = this.#machine.target?.seed?.state;
    if (this.#machine.unsent.length > 0 && seed !== 'wanted') return UNREADY_PAUSE_MS;
    return seed === 'awaited' ? SEED_PAUSE_MS : Number.POSITIVE_INFINITY;
  }

  async #sendAll(signal: AbortSignal): Promise<void> {
    const siteId = this.#protection?.targetSiteId;
    if (siteId === undefined) return;
    try {
      for (;;) {
        this.#sending = { sinceMs: this.#tools.clock.monotonicMs() };
        const previousCutAtMs = this.#acknowledgedCutAtMs;
        const outcome = await this.#machine.replicate(this.#tools.target(siteId), signal);
        if (outcome.kind === 'nothing') return;
        if (outcome.kind === 'sent') {
          const { wireBytes: bytes } = outcome;
          const tookMs = this.#tools.clock.monotonicMs() - this.#sending.sinceMs;
          this.#scheduler.learn({ bytes, tookMs, previousCutAtMs, cutAtMs: this.#acknowledgedCutAtMs });
        }
        const { pointId, sequence } = outcome.acknowledgement;
        this.#failure = undefined;
        const { machineId, name } = this.#machine.record;
        this.#tools.log.info('copy.acknowledged', {
          ...{ machine: name, pointId, sequence, outcome: outcome.kind },
          ...(outcome.kind === 'sent' ? { wireBytes: outcome.wireBytes } : {}),
        });
        this.#tools.events.emit({ event: 'point', change: 'acknowledged', machineId, pointId, sequence });
        for (const told of [...this.#whenAcknowledged]) told();
        // A variable interval waits for this.
        this.#cutBell.ring();
      }
    } finally {
      this.#sending = undefined;
    }
  }

  /** Waits until it makes sense to try again: after a growing pause, or when somebody rings. */
  async #waitOut(error: unknown, attempt: number, signal: AbortSignal): Promise<void> {
    const { machineId, name } = this.#machine.record;
    const { clock, random, alerts, log } = this.#tools;
    const failure = failureOf(error);
    const isBlocked = failure.retry === 'never' || !(error instanceof Failure);
    const pause = isBlocked ? BLOCKED_PAUSE_MS : pauseMs(BACKOFF, attempt, random);
    const isNew = this.#failure?.failure.code !== failure.code;
    this.#failure = { failure, isBlocked, retryAtMs: clock.monotonicMs() + pause };
    if (isNew)
      log.warn('replication.failed', {
        machine: name,
        code: failure.code,
        reason: messageOf(error),
        pauseMs: pause,
        ...(failure.code === 'INTERNAL' ? { error } : {}),
      });
    if (isBlocked) alerts.raise(`replication:${machineId}`, 'critical', failure, machineId);
    await this.#retryBell.wait(pause, signal);
  }

  /** Undefined before the first acknowledgement, and after one that an earlier version recorded whose cut is merged away. */
  get #acknowledgedCutAtMs(): number | undefined {
    const acknowledged = this.#machine.target?.acknowledged;
    if (!acknowledged) return undefined;
    const { cutAtMs, pointId } = acknowledged;
    return cutAtMs ?? this.#machine.cuts.find(({ cutId }) => cutId === pointId)?.cutAtMs;
  }
}
