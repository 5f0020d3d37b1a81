import type { CutReport, Hypervisor, PauseReport, PreparedCut } from '../hypervisor/index.ts';
import { assert } from '../lib/assert.ts';
import type { Clock } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { newId, type Random } from '../lib/random.ts';
import type { CutTogether, ReadyCut, SealedCut } from './cut-together.ts';
import { type Absence, apartFor, groupCutOf, reasonApart } from './group-plan.ts';
import type { CutRecord } from './records.ts';

/** A machine that is not ready by then is not waited for any longer: the others hold their guests for it. */
const ARRIVAL_LIMIT_MS = 15_000;

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
  readonly sealed: PromiseWithResolvers<SealedCut>;
}

/** Where the members of one cut wait for each other. */
class Meeting {
  readonly cutId: string;
  /** How it ended, for all. */
  readonly ended: Promise<{ apart: string | undefined; pauseMs: number }>;
  readonly #tools: GroupCutTools;
  readonly #request: GroupCutRequest;
  readonly #arrived = new Map<string, Arrival>();
  readonly #absent = new Map<string, Absence>();
  readonly #outcome = Promise.withResolvers<{ apart: string | undefined; pauseMs: number }>();
  readonly #disarm: () => void;
  /** Why latecomers are alone; undefined while all are waited for. */
  #closed: string | undefined;

  constructor(tools: GroupCutTools, request: GroupCutRequest) {
    this.#tools = tools;
    this.#request = request;
    this.cutId = newId(tools.clock, tools.random);
    this.ended = this.#outcome.promise;
    // A member gets it too, and may be the first.
    this.ended.catch(() => undefined);
    this.#disarm = tools.clock.after(ARRIVAL_LIMIT_MS, () => this.#waitNoLonger());
  }

  placeOf(member: GroupMember): CutTogether {
    return {
      seal: (ready) => this.#seal(member, ready),
      stopped: () => {
        this.absent(member, 'it does not run');
        return this.#closed ?? reasonApart([...this.#absent.values()])!;
      },
    };
  }

  /** The member does not come. Said again, or of one that has been there, it changes nothing. */
  absent({ machineId, name }: GroupMember, reason: string): void {
    if (this.#arrived.has(machineId) || this.#absent.has(machineId)) return;
    this.#absent.set(machineId, { name, reason });
    this.#meetIfAllSpoke();
  }

  async #seal({ machineId }: GroupMember, ready: ReadyCut): Promise<SealedCut> {
    const prepared = await ready.running.prepareCut(ready.disks);
    if (this.#closed !== undefined) return this.#alone(prepared.seal(), this.#closed);
    const sealed = Promise.withResolvers<SealedCut>();
    this.#arrived.set(machineId, { ready, prepared, sealed });
    this.#meetIfAllSpoke();
    return sealed.promise;
  }

  #waitNoLonger(): void {
    for (const member of this.#request.members) {
      this.absent(member, `it was not ready in ${ARRIVAL_LIMIT_MS / 1000} s`);
    }
  }

  #meetIfAllSpoke(): void {
    if (this.#closed !== undefined) return;
    if (this.#arrived.size + this.#absent.size < this.#request.members.length) return;
    this.#disarm();
    this.#closed = reasonApart([...this.#absent.values()]) ?? apartFor('the others have been cut');
    this.#meet().then(this.#outcome.resolve, (bug) => {
      this.#outcome.reject(bug);
      for (const { sealed } of this.#arrived.values()) sealed.reject(bug);
    });
  }

  async #meet(): Promise<{ apart: string | undefined; pauseMs: number }> {
    const arrivals = [...this.#arrived.values()];
    const seals: Promise<CutReport>[] = [];
    const cutAtMs = { value: this.#tools.clock.wallMs() };
    const pause = await this.#pause(arrivals, async () => {
      cutAtMs.value = this.#tools.clock.wallMs();
      for (const { prepared } of arrivals) seals.push(prepared.seal());
      await Promise.all(seals);
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
