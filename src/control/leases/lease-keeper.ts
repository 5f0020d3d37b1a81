import { dirname } from 'node:path';
import type { LeaseGuard, LeaseGuards } from '../../hypervisor/index.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Claim, compareClaims, holderShareMs } from '../../recovery-point/index.ts';
import { isUnseen, type ProtectedMachine } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { Wakeup } from '../base/wakeup.ts';
import { runWorker } from '../base/worker.ts';
import { controlFailure } from '../errors.ts';
import { askVoter, CALL_LIMIT_MS, LATE_MS_MAX, partiesOf, type WireAnswer } from './lease-wire.ts';

export interface LeaseKeeperTools {
  readonly siteId: string;
  /** Counts also while the host sleeps. */
  readonly bootClock: Clock;
  readonly clock: Clock;
  readonly log: Log;
  readonly alerts: AlertSink;
  readonly audit: Pick<Audit, 'note'>;
  readonly guards: LeaseGuards;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  /** Where what is heard of the other sites is shown. */
  readonly onChanged: (machineId: string) => void;
}

/** A lease is asked for again when this part of it has passed. */
const RENEW_AFTER = 0.25;
/** After this time a guard that could not be started, or a keeper that broke, is begun again. */
const AGAIN_AFTER_MS = 1_000;

/** A guard is looked for this often where nothing else answers of a machine that was seen to be off, if nothing changes before. */
const LOOK_AGAIN_AFTER_MS = 60_000;

/** How a machine that runs by leases is doing. */
export interface LeaseStanding {
  /** By site: how much longer it lends the machine; 0: not at all. */
  readonly lentMs: Readonly<Record<string, number>>;
  /** What the guard has done to the guest, if the machine runs. */
  readonly guest?: 'runs' | 'stopped';
}

/**
 * Keeps one machine of this site in leases while it runs: asks both lenders again and again, and tells its guard how long it may run. What
 * stops the guest is the guard, which is a process of its own; this one may end at any moment.
 */
export class LeaseKeeper {
  readonly #machine: ProtectedMachine;
  readonly #o: LeaseKeeperTools;
  readonly #stop = new AbortController();
  readonly #asking = new AbortController();
  /** What was asked last. */
  #round: Promise<void> = Promise.resolve();
  readonly #bell: Wakeup;
  /** Until when a site lends it, and to which claim. */
  readonly #lent = new Map<string, { readonly untilMs: number; readonly claim: Claim }>();
  #guard: LeaseGuard | undefined;
  #connecting: Promise<LeaseGuard> | undefined;
  #guest: LeaseStanding['guest'];
  #ended: Promise<void> = Promise.resolve();

  constructor(machine: ProtectedMachine, o: LeaseKeeperTools) {
    this.#machine = machine;
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
  }

  begin(): void {
    const { machineId, name } = this.#machine.record;
    const about = {
      alert: `worker-lease:${machineId}`,
      event: 'lease.worker-broke',
      fields: () => ({ machine: name, worker: 'lease' }),
      machineId,
    };
    this.#ended = this.#goOn(() => runWorker(this.#o, about, () => this.#keep(), this.#stop.signal));
  }

  /** What breaks is told, and begun again: without it the machine would run by nothing, or stand still. */
  async #goOn(work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await work();
      try {
        await sleep(this.#o.clock, AGAIN_AFTER_MS, signal);
      } catch {
        return; // The keeper is closed.
      }
    }
  }

  /**
   * From here on nobody is asked for a lease, and what was asked has been answered or given up on return. The guest stays under its guard, or
   * under another one if that ends.
   */
  async rest(): Promise<void> {
    this.#asking.abort();
    await Promise.allSettled([this.#round]);
  }

  /** The guard goes on with what it was lent last. */
  async close(): Promise<void> {
    this.#asking.abort();
    this.#stop.abort();
    await this.#ended;
    this.#guard?.disconnect();
    this.#clearAlerts();
  }

  /** Something has changed: the machine has started, or its right. */
  ring(): void {
    this.#bell.ring();
  }

  get standing(): LeaseStanding {
    const nowMs = this.#nowMs();
    const lentMs = Object.fromEntries(
      this.#lenders.map((siteId) => [siteId, Math.max(0, this.#untilMsOf(siteId) - nowMs)]),
    );
    return { lentMs, ...(this.#guest ? { guest: this.#guest } : {}) };
  }

  /** Has the machine lent before it starts. Throws LEASE_NOT_LENT, and what storing its record does. */
  async acquire(): Promise<void> {
    await this.#machine.right.settle();
    await this.#renew(async () => undefined);
    // It may have heard meanwhile that somebody else holds it, which its start tells.
    if (this.#untilMs > this.#nowMs() || this.#machine.right.tenure.state !== 'holds') return;
    const { name } = this.#machine.record;
    throw controlFailure('LEASE_NOT_LENT', `${name} is not started: neither of its lenders lends it`);
  }

  async #keep(): Promise<never> {
    const { signal } = this.#stop;
    // As far as was seen last. Else it may run with nobody to stop it: its guard was killed, and another one could not be started.
    let isOff = false;
    for (;;) {
      const { record, presence } = this.#machine;
      const mayRun = this.#mayRun;
      if (!mayRun) isOff = !isUnseen(presence);
      if (!mayRun || !record.lease || this.#machine.right.tenure.state !== 'holds') {
        this.#clearAlerts();
        if (!mayRun) this.#forgetGuard();
        await this.#bell.wait(Number.POSITIVE_INFINITY, signal);
        continue;
      }
      // The guard first: nobody hears that the machine runs by leases before there is one.
      await this.#lendOn();
      isOff &&= !this.#isThere;
      if (!this.#isThere) {
        // Nobody has been asked to lend what is only looked for: that nobody lends it is no alert. What changes rings.
        this.#clearAlerts();
        await this.#bell.wait(isOff ? LOOK_AGAIN_AFTER_MS : record.lease.leaseMs * RENEW_AFTER, signal);
        continue;
      }
      if (await this.#isSettled()) {
        this.#round = this.#renew(() => this.#lendOn());
        await this.#round;
      }
      this.#tellPeople();
      const untilOverMs = this.#untilMs - this.#nowMs();
      const nextMs = record.lease.leaseMs * RENEW_AFTER;
      await this.#bell.wait(untilOverMs > 0 ? Math.min(nextMs, untilOverMs + 50) : nextMs, signal);
    }
  }

  /**
   * It runs as far as its guard knows, which ends with it, or may: this site may have lost its monitor for a while, to one that changes its
   * files for it.
   */
  get #mayRun(): boolean {
    return this.#isThere || this.#machine.presence.state !== 'stopped';
  }

  get #isThere(): boolean {
    return this.#machine.running !== undefined || this.#guard !== undefined;
  }

  /**
   * Whether this site would find its leases after a power cut: else it would start the machine without any, while those who were told of
   * them give it to another.
   */
  async #isSettled(): Promise<boolean> {
    try {
      await this.#machine.right.settle();
      return true;
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#o.log.error('lease.not-stored', { machine: this.#machine.record.name, reason: error.message });
      return false;
    }
  }

  #forgetGuard(): void {
    this.#guard?.disconnect();
    this.#guard = undefined;
    this.#guest = undefined;
  }

  /**
   * Asks both lenders at once, for no longer than it takes until the next time; `onLent` is called for each that lends, at once. That the
   * machine runs by leases is durable.
   */
  async #renew(onLent: () => Promise<void>): Promise<void> {
    await Promise.all(
      this.#lenders.map(async (siteId) => {
        if (await this.#renewAt(siteId)) await onLent();
      }),
    );
  }

  async #renewAt(siteId: string): Promise<boolean> {
    const { record, right } = this.#machine;
    const { bootClock, log } = this.#o;
    const { lease } = record;
    const { state, claim } = right.tenure;
    const { signal } = this.#asking;
    if (!lease || state !== 'holds' || signal.aborted) return false;
    const o = { timeoutMs: Math.min(lease.leaseMs * RENEW_AFTER, CALL_LIMIT_MS), signal };
    const sentMs = bootClock.monotonicMs();
    let answer: WireAnswer;
    try {
      const ask = { kind: 'renew', claim } as const;
      answer = await askVoter(this.#o.client(siteId), partiesOf(record, lease, this.#o.siteId), ask, o);
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (signal.aborted) return false;
      log.warn('lease.not-asked', { machine: record.name, siteId, reason: error.message });
      // It was told that these have ended, and whoever wanted that was interrupted: from here on they are others, also by a clock that was
      // set back since; and of these ends the lender knows that they were before what ends later.
      if (error.code === 'LEASE_UNKNOWN') {
        const begunAtMs = Math.max(this.#o.clock.wallMs(), (lease.begunAtMs ?? 0) + LATE_MS_MAX - 1);
        await right.runBy({ ...lease, begunAtMs });
      }
      return false;
    }
    // Counted from before it was asked: the lender counts from after that, and so longer.
    if (answer.granted) this.#lent.set(siteId, { untilMs: sentMs + holderShareMs(lease.leaseMs), claim });
    else if (answer.isHeld && compareClaims(answer.entitled, claim) > 0) await right.hear(answer.entitled);
    else log.warn('lease.refused', { machine: record.name, siteId, reason: answer.why });
    return answer.granted;
  }

  /** Tells the guard, whoever has started it, what was lent to this process; one that is gone is started anew. */
  async #lendOn(): Promise<void> {
    const { audit, log } = this.#o;
    const { machineId, name, dissolving } = this.#machine.record;
    const before = this.#guest;
    const wasThere = this.#guard !== undefined;
    try {
      this.#guard ??= await this.#connected();
      // What an earlier process was lent stands with the guard; a guest that stands still to change its files goes on when that is done.
      if (this.#lent.size === 0 || dissolving === 'pivoting') return;
      this.#guest = await this.#guard.lend(this.#untilMs);
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#forgetGuard();
      if (!this.#machine.running) return;
      // It has ended: another one takes its place at once.
      if (wasThere) return this.#lendOn();
      log.error('lease.unguarded', { machine: name, reason: error.message });
      this.#o.alerts.raise(`lease-guard:${machineId}`, 'critical', error, machineId);
      // Soon again: until then nobody would stop it.
      this.#o.clock.after(AGAIN_AFTER_MS, () => this.#bell.ring());
      return;
    }
    this.#o.alerts.clear(`lease-guard:${machineId}`);
    if (before === this.#guest) return;
    if (before !== undefined || this.#guest === 'stopped') {
      const act = this.#guest === 'runs' ? 'lease.runs' : 'lease.stopped';
      audit.note({ actor: 'site', act, subject: machineId });
    }
    this.#o.onChanged(machineId);
  }

  /** Both lenders may answer at once when a guard has just gone: one is started in its place. */
  #connected(): Promise<LeaseGuard> {
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  /** The guard, and an eye on it: from its end on nobody would stop the guest. */
  async #connect(): Promise<LeaseGuard> {
    const guard = await this.#o.guards.of(runDirectoryOf(this.#machine), { goesOn: true });
    void guard.gone.then(() => {
      if (this.#guard !== guard) return;
      this.#guard = undefined;
      this.#bell.ring();
    });
    return guard;
  }

  #tellPeople(): void {
    const { alerts } = this.#o;
    const { machineId, name } = this.#machine.record;
    const missing = this.#lenders.filter((siteId) => this.#untilMsOf(siteId) <= this.#nowMs());
    const isOver = this.#untilMs <= this.#nowMs();
    const [over, risk] = [`lease:${machineId}`, `lease-risk:${machineId}`];
    if (isOver) {
      const said = `${name} stands still: neither of its lenders, ${missing.join(' and ')}, lends it`;
      alerts.raise(over, 'critical', controlFailure('LEASE_NOT_LENT', said), machineId);
    } else alerts.clear(over);
    if (!isOver && missing.length > 0) {
      const said = `site ${missing.join()} does not lend ${name}`;
      alerts.raise(risk, 'warning', controlFailure('LEASE_AT_RISK', said), machineId);
    } else alerts.clear(risk);
    this.#tellOfFurther();
  }

  /** A site that gets copies and is none of its lenders may bring it up on somebody's word, and neither of them would hear of that. */
  #tellOfFurther(): void {
    const { record, targets } = this.#machine;
    const { machineId, name, lease } = record;
    const further = targets.filter(({ siteId }) => siteId !== lease?.recoverySiteId);
    const key = `lease-further:${machineId}`;
    if (further.length === 0) {
      this.#o.alerts.clear(key);
      return;
    }
    const sites = further.map(({ siteId }) => siteId).join(' and ');
    const said = `${name} runs by leases, and site ${sites} gets copies of it as well`;
    this.#o.alerts.raise(key, 'warning', controlFailure('LEASE_FURTHER_TARGET', said), machineId);
  }

  #clearAlerts(): void {
    const { machineId } = this.#machine.record;
    for (const key of ['lease', 'lease-risk', 'lease-guard', 'lease-further'])
      this.#o.alerts.clear(`${key}:${machineId}`);
  }

  get #lenders(): string[] {
    const { lease } = this.#machine.record;
    return lease ? [lease.recoverySiteId, lease.witnessSiteId] : [];
  }

  get #untilMs(): number {
    return Math.max(0, ...this.#lenders.map((siteId) => this.#untilMsOf(siteId)));
  }

  /** What was lent was lent to one claim. */
  #untilMsOf(siteId: string): number {
    const lent = this.#lent.get(siteId);
    const { claim } = this.#machine.right.tenure;
    return lent && compareClaims(lent.claim, claim) === 0 ? lent.untilMs : 0;
  }

  #nowMs(): number {
    return this.#o.bootClock.monotonicMs();
  }
}

/** Where a machine that this site starts has its sockets. */
export function runDirectoryOf({ record: { sockets } }: Pick<ProtectedMachine, 'record'>): string {
  return dirname(sockets.qmpPath);
}
