import type { TargetReplicationView } from '../../api/index.ts';
import { type Clock, cancelled } from '../../lib/clock.ts';
import { Failure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import { type Backoff, pauseMs } from '../../lib/retry.ts';
import {
  type CutRecord,
  type MachineRecord,
  type ReplicateOutcome,
  type ReplicationTarget,
  type TargetProgress,
  targetOf,
} from '../../replication/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { EventHub } from '../base/event-hub.ts';
import { Wakeup } from '../base/wakeup.ts';
import { controlFailure } from '../errors.ts';
import { rpoOf } from './copy-scheduler.ts';
import { isToldOfMachine } from './fence-watch.ts';

/**
 * Nothing is given up, a conflict neither: all is looked at again after a growing pause of at most this, and when something has
 * changed. What hinders may be gone in a moment (somebody's tool held the lock of a disk).
 */
export const RETRY_PAUSE_MAX_MS = 30_000;
const BACKOFF: Backoff = {
  firstMs: 500,
  maximumMs: RETRY_PAUSE_MAX_MS,
  triesMax: Number.POSITIVE_INFINITY,
};
/** Whether an awaited seed has been imported is asked this often; also with each copy. */
const SEED_PAUSE_MS = 30_000;
/** A sealed layer that cannot be sent yet, because it takes in a younger one, is looked at again after this. */
const UNREADY_PAUSE_MS = 1_000;
/** Whether an offered machine has been taken is asked this often. */
const CEDED_PAUSE_MS = 2_000;

export interface SenderTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly alerts: AlertSink;
  readonly events: EventHub;
  /** The recovery site as it is now; throws while it is not paired. */
  readonly target: (siteId: string) => ReplicationTarget;
}

/** A copy that a target has acknowledged. */
export interface SentCopy {
  readonly siteId: string;
  /** Undefined if the target was found to have it already. */
  readonly transfer: { readonly bytes: number; readonly tookMs: number } | undefined;
  readonly previousCutAtMs: number | undefined;
}

/** What is sent of one machine: of one that is protected here, or of a replica. */
export interface SentMachine {
  readonly record: Pick<MachineRecord, 'machineId' | 'name' | 'protection' | 'tenure'>;
  readonly cuts: readonly Pick<CutRecord, 'cutId' | 'cutAtMs'>[];
  readonly targets: readonly SentProgress[];
  replicate(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome>;
}

interface SentProgress extends Omit<TargetProgress, 'unsent'> {
  readonly unsent: readonly unknown[];
}

/** Sends what has been cut of one machine to one target, the oldest first, and never gives up. */
export class TargetSender {
  readonly siteId: string;
  readonly #machine: SentMachine;
  readonly #tools: SenderTools;
  readonly #onSent: (sent: SentCopy) => void;
  readonly #stop = new AbortController();
  readonly #bell: Wakeup;
  readonly #retryBell: Wakeup;
  #work: Promise<void> = Promise.resolve();
  #sinceMs: number | undefined;
  #failure:
    | { readonly failure: Failure; readonly isBlocked: boolean; readonly retryAtMs: number }
    | undefined;

  constructor(machine: SentMachine, siteId: string, tools: SenderTools, onSent: (sent: SentCopy) => void) {
    this.#machine = machine;
    this.siteId = siteId;
    this.#tools = tools;
    this.#onSent = onSent;
    this.#bell = new Wakeup(tools.clock);
    this.#retryBell = new Wakeup(tools.clock);
  }

  /** `running` sees to what a bug in the work leads to. */
  start(
    running: (work: (signal: AbortSignal) => Promise<never>, signal: AbortSignal) => Promise<void>,
  ): void {
    this.#work = running((signal) => this.#keepSending(signal), this.#stop.signal);
  }

  /** A transfer under way is broken off; the next sender resumes it. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }

  /** A copy has been made. */
  ring(): void {
    this.#bell.ring();
  }

  /** What failed may work now. */
  retry(): void {
    this.#retryBell.ring();
  }

  /** Ends the alerts of a target that is none any more. */
  clearAlerts(): void {
    for (const about of ['replication', 'outrun']) this.#tools.alerts.clear(this.#key(about));
  }

  #key(about: string): string {
    return `${about}:${this.#machine.record.machineId}:${this.siteId}`;
  }

  get #progress(): SentProgress | undefined {
    return this.#machine.targets.find(({ siteId }) => siteId === this.siteId);
  }

  async #keepSending(signal: AbortSignal): Promise<never> {
    let attempt = 0;
    for (;;) {
      try {
        const idleMs = await this.#sendAll(signal);
        attempt = 0;
        this.#failure = undefined;
        this.#tools.alerts.clear(this.#key('replication'));
        await this.#bell.wait(idleMs, signal);
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        attempt += 1;
        await this.#waitOut(error, attempt, signal);
      }
    }
  }

  /** Returns how long there will be nothing to send. */
  async #sendAll(signal: AbortSignal): Promise<number> {
    const { clock } = this.#tools;
    try {
      for (;;) {
        if (!this.#progress) return Number.POSITIVE_INFINITY;
        this.#sinceMs = clock.monotonicMs();
        const previousCutAtMs = this.acknowledgedCutAtMs;
        const outcome = await this.#machine.replicate(this.#tools.target(this.siteId), signal);
        if (outcome.kind === 'nothing') return this.#idleMs(outcome.isUnready === true);
        this.#failure = undefined;
        const { machineId, name } = this.#machine.record;
        const { pointId, sequence } = outcome.acknowledgement;
        const bytes = outcome.kind === 'sent' ? outcome.wireBytes : undefined;
        this.#tools.log.info('copy.acknowledged', {
          ...{ machine: name, siteId: this.siteId, pointId, sequence, outcome: outcome.kind },
          ...(bytes === undefined ? {} : { wireBytes: bytes }),
          ...(outcome.kind === 'sent' && outcome.olderBytes ? { olderBytes: outcome.olderBytes } : {}),
        });
        this.#tools.events.emit({ event: 'point', change: 'acknowledged', machineId, pointId, sequence });
        const tookMs = clock.monotonicMs() - this.#sinceMs;
        this.#onSent({
          ...{ siteId: this.siteId, previousCutAtMs },
          transfer: bytes === undefined ? undefined : { bytes, tookMs },
        });
      }
    } finally {
      this.#sinceMs = undefined;
    }
  }

  /** What waits for a seed to be exported is told when that has happened. */
  #idleMs(isUnready: boolean): number {
    if (isUnready) return UNREADY_PAUSE_MS;
    if (this.#machine.record.tenure?.state === 'cedes') return CEDED_PAUSE_MS;
    return this.#progress?.record.seed?.state === 'awaited' ? SEED_PAUSE_MS : Number.POSITIVE_INFINITY;
  }

  /** Waits until it makes sense to try again: after a growing pause, or when somebody rings. */
  async #waitOut(error: unknown, attempt: number, signal: AbortSignal): Promise<void> {
    const { machineId, name } = this.#machine.record;
    const { clock, random, alerts, log } = this.#tools;
    const failure = failureOf(error);
    const isBlocked = failure.retry === 'never' || !(error instanceof Failure);
    const pause = pauseMs(BACKOFF, attempt, random);
    const isNew = this.#failure?.failure.code !== failure.code;
    this.#failure = { failure, isBlocked, retryAtMs: clock.monotonicMs() + pause };
    if (isNew)
      log.warn('replication.failed', {
        ...{
          machine: name,
          siteId: this.siteId,
          code: failure.code,
          reason: messageOf(error),
          pauseMs: pause,
        },
        ...(failure.code === 'INTERNAL' ? { error } : {}),
      });
    if (isToldOfMachine(failure)) alerts.clear(this.#key('replication'));
    else if (isBlocked) alerts.raise(this.#key('replication'), 'critical', failure, machineId);
    await this.#retryBell.wait(pause, signal);
  }

  /** A target that the others have left behind is told of, unless it wants its copies far apart; until it has caught up. */
  tellOutrun(): void {
    const record = this.#progress?.record;
    const { protection } = this.#machine.record;
    const policy = protection && targetOf(protection, this.siteId);
    if (!record?.outrun || policy?.spacingMs !== undefined) {
      this.#tools.alerts.clear(this.#key('outrun'));
      return;
    }
    const { machineId, name } = this.#machine.record;
    const said = `${name}: site ${this.siteId} lacks ${this.#missed(record)} copies that another one has`;
    this.#tools.alerts.raise(
      this.#key('outrun'),
      'warning',
      controlFailure('TARGET_OUTRUN', said),
      machineId,
    );
  }

  #missed({ outrun }: TargetProgress['record']): number {
    return outrun ? outrun.missed.length + outrun.unlisted : 0;
  }

  /** Undefined before the first acknowledgement, and after one that an earlier version recorded whose cut is merged away. */
  get acknowledgedCutAtMs(): number | undefined {
    const acknowledged = this.#progress?.record.acknowledged;
    if (!acknowledged) return undefined;
    const { cutAtMs, pointId } = acknowledged;
    return cutAtMs ?? this.#machine.cuts.find(({ cutId }) => cutId === pointId)?.cutAtMs;
  }

  /** `isStill`: the machine does not run, and every byte of it has been copied. */
  report(isStill: boolean): TargetReplicationView {
    const nowMs = this.#tools.clock.monotonicMs();
    const { unsent = [], record } = this.#progress ?? {};
    const { acknowledged, seed } = record ?? {};
    const failure = this.#standingFailure;
    const cutAtMs = this.acknowledgedCutAtMs;
    const transfer = this.#transfer();
    const missed = record ? this.#missed(record) : 0;
    return {
      siteId: this.siteId,
      phase: this.#phase(unsent.length),
      unsentCuts: unsent.length + missed,
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
      ...(record?.outrun ? { outrun: true as const } : {}),
      ...(transfer ? { transfer } : {}),
      ...(failure
        ? {
            failure: failure.failure.toJSON() as NonNullable<TargetReplicationView['failure']>,
            retryInMs: Math.max(0, failure.retryAtMs - nowMs),
          }
        : {}),
      rpo: this.#rpo(isStill && unsent.length === 0, seed !== undefined),
    };
  }

  #phase(unsent: number): TargetReplicationView['phase'] {
    const failure = this.#standingFailure;
    if (failure) return failure.isBlocked ? 'blocked' : 'retrying';
    return this.#sinceMs !== undefined && unsent > 0 ? 'sending' : 'idle';
  }

  /** What failed before is over as soon as bytes flow, which may take long before it ends well. */
  get #standingFailure() {
    const isFlowing = this.#sinceMs !== undefined && (this.#progress?.sending?.bytesDone ?? 0) > 0;
    return isFlowing ? undefined : this.#failure;
  }

  #transfer(): TargetReplicationView['transfer'] {
    const { sending, record } = this.#progress ?? {};
    if (!sending || this.#sinceMs === undefined) return undefined;
    const elapsedMs = this.#tools.clock.monotonicMs() - this.#sinceMs;
    return {
      ...sending,
      complete: record?.acknowledged === null,
      ...(elapsedMs > 0 ? { bytesPerSecond: (sending.bytesDone / elapsedMs) * 1000 } : {}),
    };
  }

  /** Points whose base has not come save nothing; a machine whose every byte is there loses nothing. */
  #rpo(hasEverything: boolean, isWithoutBase: boolean): TargetReplicationView['rpo'] {
    const { protection } = this.#machine.record;
    const cutAtMs = isWithoutBase ? undefined : hasEverything ? 'now' : this.acknowledgedCutAtMs;
    const rpo = rpoOf(protection?.schedules ?? [], cutAtMs, this.#tools.clock.wallMs());
    const spacingMs = protection ? targetOf(protection, this.siteId)?.spacingMs : undefined;
    if (spacingMs === undefined) return rpo;
    return { ...rpo, targetMs: Math.max(rpo.targetMs ?? 0, spacingMs) };
  }
}
