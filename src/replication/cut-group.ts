import type { CutReport, Hypervisor, PauseReport, PreparedCut } from '../hypervisor/index.ts';
import { assert } from '../lib/assert.ts';
import type { Clock } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { newId, type Random } from '../lib/random.ts';
import type { CutTogether, ReadyCut, SealedCut } from './cut-together.ts';
import { type Absence, apartFor, groupCutOf, reasonApart } from './group-plan.ts';
import type { CutRecord } from './records.ts';

/** A machine that is not ready by then is not waited for any longer. */
const ARRIVAL_LIMIT_MS = 15_000;
/** A guest that is not held by then (frozen, its hooks run) is not waited for: the others are. */
const HOLDING_LIMIT_MS = 5_000;

export interface GroupCutTools {
  readonly hypervisor: Pick<Hypervisor, 'whilePaused'>;
  readonly clock: Clock;
  readonly random: Random;
}

/** One machine of a group; `cut` makes its copy in the common way, as `ProtectedMachine.cut`. */
export interface GroupMember {
  readonly machineId: string;
  readonly name: string;
  cut(together: CutTogether): Promise<CutRecord>;
}

export interface GroupCutRequest {
  readonly group: { readonly groupId: string; readonly name: string };
  readonly members: readonly GroupMember[];
  /** Longest time for which a machine may stand still. */
  readonly limitMs: number;
}

export interface GroupCutOutcome {
  readonly cutId: string;
  /** Undefined if the points of all members are one state; else why they are single ones. */
  readonly apart?: string;
  readonly pauseMs: number;
  readonly members: readonly {
    readonly machineId: string;
    readonly name: string;
    readonly cut?: CutRecord;
    /** Why the machine has no copy of this occasion. */
    readonly error?: unknown;
  }[];
}

/**
 * One cut over all disks of all members: everything that takes time is done first, then all are stopped, sealed, continued. If
 * that is not to be had, because a machine is off, stale, busy or hangs, every member that can be copied is copied by itself,
 * with the reason on its record. Never throws for the state that a machine is in.
 */
export async function cutGroup(tools: GroupCutTools, request: GroupCutRequest): Promise<GroupCutOutcome> {
  const meeting = new Meeting(tools, request);
  const members = await Promise.all(
    request.members.map(async (member) => {
      const { machineId, name } = member;
      try {
        return { machineId, name, cut: await member.cut(meeting.placeOf(member)) };
      } catch (error) {
        meeting.absent(member, messageOf(error));
        if (!isFailure(error)) throw error;
        return { machineId, name, error };
      }
    }),
  );
  const { apart, pauseMs } = await meeting.ended;
  return { cutId: meeting.cutId, ...(apart === undefined ? {} : { apart }), pauseMs, members };
}

interface Arrival {
  readonly ready: ReadyCut;
  readonly prepared: PreparedCut;
  /** Settled when nobody is waited for any more, and guests may be held. */
  readonly called: PromiseWithResolvers<void>;
  readonly sealed: PromiseWithResolvers<SealedCut>;
  /** Its guest is held as it wants it; what is left is the instant. */
  isHeld: boolean;
}

/** Where the members of one cut wait for each other: first until all are ready, then until all guests are held. */
class Meeting {
  readonly cutId: string;
  /** How it ended, for all. */
  readonly ended: Promise<{ apart: string | undefined; pauseMs: number }>;
  readonly #tools: GroupCutTools;
  readonly #request: GroupCutRequest;
  readonly #arrived = new Map<string, Arrival>();
  readonly #absent = new Map<string, Absence>();
  readonly #outcome = Promise.withResolvers<{ apart: string | undefined; pauseMs: number }>();
  #disarm: () => void;
  #isCalled = false;
  /** Why latecomers are alone; undefined while all are waited for. */
  #closed: string | undefined;

  constructor(tools: GroupCutTools, request: GroupCutRequest) {
    this.#tools = tools;
    this.#request = request;
    this.cutId = newId(tools.clock, tools.random);
    this.ended = this.#outcome.promise;
    // A member gets it too, and may be the first.
    this.ended.catch(() => undefined);
    this.#disarm = this.#waitAtMost(ARRIVAL_LIMIT_MS, 'it was not ready');
  }

  placeOf(member: GroupMember): CutTogether {
    return {
      ready: (ready) => this.#ready(member, ready),
      seal: () => this.#seal(member),
      stopped: () => {
        this.absent(member, 'it does not run');
        return this.#closed ?? reasonApart([...this.#absent.values()])!;
      },
    };
  }

  /** The member does not come. Said again, or of one that waits already, it changes nothing. */
  absent({ machineId, name }: GroupMember, reason: string): void {
    if (this.#isWaiting(machineId) || this.#absent.has(machineId)) return;
    this.#absent.set(machineId, { name, reason });
    this.#goOn();
  }

  /** It is as far as it can come at this stage. */
  #isWaiting(machineId: string): boolean {
    const arrival = this.#arrived.get(machineId);
    return arrival !== undefined && (arrival.isHeld || !this.#isCalled);
  }

  #waitAtMost(limitMs: number, what: string): () => void {
    return this.#tools.clock.after(limitMs, () => {
      for (const member of this.#request.members) this.absent(member, `${what} in ${limitMs / 1000} s`);
    });
  }

  async #ready({ machineId }: GroupMember, ready: ReadyCut): Promise<void> {
    const prepared = await ready.running.prepareCut(ready.disks);
    const [called, sealed] = [Promise.withResolvers<void>(), Promise.withResolvers<SealedCut>()];
    // Of a copy that fails before its instant nobody asks for that.
    sealed.promise.catch(() => undefined);
    const arrival: Arrival = { ready, prepared, called, sealed, isHeld: false };
    this.#arrived.set(machineId, arrival);
    this.#goOn();
    if (this.#closed === undefined) await called.promise;
  }

  async #seal({ machineId }: GroupMember): Promise<SealedCut> {
    const arrival = this.#arrived.get(machineId);
    assert(arrival !== undefined, 'a machine is ready before it is sealed');
    if (this.#closed !== undefined) return this.#alone(arrival.prepared.seal(), this.#closed);
    arrival.isHeld = true;
    this.#goOn();
    return arrival.sealed.promise;
  }

  /** The next stage, if nobody is waited for at this one. */
  #goOn(): void {
    if (this.#closed !== undefined) return;
    const { members } = this.#request;
    if (!members.every(({ machineId }) => this.#absent.has(machineId) || this.#isWaiting(machineId))) return;
    this.#disarm();
    const apart = reasonApart([...this.#absent.values()]);
    if (apart === undefined && !this.#isCalled) {
      this.#isCalled = true;
      this.#disarm = this.#waitAtMost(HOLDING_LIMIT_MS, 'its guest was not held');
    } else {
      this.#closed = apart ?? apartFor('the others have been cut');
      this.#meet().then(this.#outcome.resolve, (bug) => {
        this.#outcome.reject(bug);
        for (const { sealed } of this.#arrived.values()) sealed.reject(bug);
      });
    }
    for (const { called } of this.#arrived.values()) called.resolve();
  }

  async #meet(): Promise<{ apart: string | undefined; pauseMs: number }> {
    const arrivals = [...this.#arrived.values()].filter(({ isHeld }) => isHeld);
    const seals: Promise<CutReport>[] = [];
    const cutAtMs = { value: this.#tools.clock.wallMs() };
    const pause = await this.#pause(arrivals, async () => {
      cutAtMs.value = this.#tools.clock.wallMs();
      for (const { prepared } of arrivals) seals.push(prepared.seal());
      await Promise.all(seals);
      await Promise.all(arrivals.map(({ ready }) => ready.held?.()));
    });
    const group = groupCutOf({
      ...{ group: this.#request.group, cutId: this.cutId, pauseMs: pause.pausedMs },
      points: new Map([...this.#arrived].map(([machineId, { ready }]) => [machineId, ready.pointId])),
    });
    const apart = pause.together ? undefined : (reasonApart([...this.#absent.values()]) ?? pause.reason);
    for (const [index, { prepared, sealed }] of arrivals.entries()) {
      const pauseMs = pause.eachMs[index] ?? 0;
      if (apart === undefined) {
        sealed.resolve({ cutAtMs: cutAtMs.value, pauseMs, group });
      } else {
        this.#alone(seals[index] ?? prepared.seal(), apart, pauseMs).then(sealed.resolve, sealed.reject);
      }
    }
    return { apart, pauseMs: pause.pausedMs };
  }

  /** Never throws: what went wrong is the reason why there is no common cut. */
  async #pause(arrivals: readonly Arrival[], work: () => Promise<void>): Promise<PauseReport> {
    const none = { together: false, pausedMs: 0, eachMs: [] };
    if (this.#absent.size > 0 || arrivals.length === 0) return none;
    const machines = arrivals.map(({ ready }) => ready.running);
    try {
      const report = await this.#tools.hypervisor.whilePaused(machines, this.#request.limitMs, work);
      return report.together ? report : { ...report, reason: apartFor(report.reason ?? 'nobody knows why') };
    } catch (error) {
      if (!isFailure(error)) throw error;
      return { ...none, reason: apartFor(error.message) };
    }
  }

  /** A copy of one machine, whenever it is made. */
  async #alone(report: Promise<CutReport>, apart: string, pausedMs = 0): Promise<SealedCut> {
    const cutAtMs = this.#tools.clock.wallMs();
    const { pauseMs } = await report;
    assert(apart.length > 0, 'a copy is alone for a reason');
    return { cutAtMs, pauseMs: Math.max(pauseMs, pausedMs), apart };
  }
}
