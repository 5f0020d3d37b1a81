import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import { type Backoff, pauseMs } from '../../lib/retry.ts';
import type { MachineRecord, ProtectedMachine, ReplicationTarget } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Wakeup } from '../base/wakeup.ts';

const BACKOFF: Backoff = { firstMs: 500, maximumMs: 30_000, triesMax: Number.POSITIVE_INFINITY };

/** What is told of one machine. */
export interface ClaimingMachine {
  readonly record: Pick<MachineRecord, 'machineId' | 'name'>;
  readonly right: Pick<ProtectedMachine['right'], 'untold' | 'tellSuperseded'>;
}

export interface ClaimTellerTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly alerts: AlertSink;
  /** A site as it is now; throws while it is not paired. */
  readonly target: (siteId: string) => ReplicationTarget;
}

/**
 * Tells a site over which a machine was claimed here, on somebody's word, of that claim, again and again until it has answered: it may run
 * the machine, and of one that is not replicated there it would hear nothing else.
 */
export class ClaimTeller {
  readonly #machine: ClaimingMachine;
  readonly #o: ClaimTellerTools;
  readonly #bell: Wakeup;
  /** By site, why it could not be told last. */
  readonly #failed = new Map<string, string>();

  constructor(machine: ClaimingMachine, o: ClaimTellerTools) {
    this.#machine = machine;
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
  }

  /** There may be something to tell, or somebody who hears it. */
  ring(): void {
    this.#bell.ring();
  }

  async keepTelling(signal: AbortSignal): Promise<never> {
    for (let attempt = 1; ; attempt++) {
      const isDone = await this.#tellAll(signal);
      if (isDone) attempt = 0;
      const limitMs = isDone ? Number.POSITIVE_INFINITY : pauseMs(BACKOFF, attempt, this.#o.random);
      await this.#bell.wait(limitMs, signal);
    }
  }

  /** Whether nothing is left to tell. */
  async #tellAll(signal: AbortSignal): Promise<boolean> {
    const { right } = this.#machine;
    // Side by side: one that does not answer keeps no other from hearing.
    const told = await Promise.all(right.untold.map((siteId) => this.#tell(siteId, signal)));
    return told.every(Boolean);
  }

  async #tell(siteId: string, signal: AbortSignal): Promise<boolean> {
    const { machineId, name } = this.#machine.record;
    const { target, log, alerts } = this.#o;
    try {
      const isTold = await this.#machine.right.tellSuperseded(target(siteId), signal);
      this.#failed.delete(siteId);
      alerts.clear(this.#key(siteId));
      return isTold;
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (signal.aborted) return false;
      const isNew = this.#failed.get(siteId) !== error.code;
      this.#failed.set(siteId, error.code);
      if (isNew)
        log.warn('claim.not-told', { machine: name, siteId, code: error.code, reason: error.message });
      // One that does not answer has an alert of its own, and one that is not paired any more is not to be told.
      if (error.retry === 'never' && error.code !== 'SITE_PEER_UNKNOWN')
        alerts.raise(this.#key(siteId), 'warning', error, machineId);
      return false;
    }
  }

  clearAlerts(): void {
    for (const siteId of this.#failed.keys()) this.#o.alerts.clear(this.#key(siteId));
  }

  #key(siteId: string): string {
    return `claim:${this.#machine.record.machineId}:${siteId}`;
  }
}
