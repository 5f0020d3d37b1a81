import { type Clock, withTimeout } from '../lib/clock.ts';
import { Failure, isFailure, messageOf } from '../lib/errors.ts';
import { hypervisorFailure } from './errors.ts';
import type { PauseReport, RunningMachine } from './hypervisor.ts';

/** One that does not answer by then has the command, and the guard goes on to see to it. */
const CONFIRM_LIMIT_MS = 2_000;

/** Somebody who continues the machines when this process cannot. */
export interface PauseWatch {
  /** The machines are being stopped from now on. */
  arm(): void;
  /** All of them run. */
  release(): Promise<void>;
  /** Not all of them have confirmed that they run. */
  continueAll(): void;
  /** Whether it watches at all. */
  readonly isAlive: boolean;
}

export type PausedMachine = Pick<RunningMachine, 'state' | 'pause' | 'resume' | 'onEvent'>;

interface Member<M> {
  readonly machine: M;
  /** Stopped by us: it ran before. */
  readonly isOurs: boolean;
  sentMs: number;
  runsMs: number;
  /** It was continued by somebody else while it was to stand still. */
  wasWoken: boolean;
}

/**
 * `Hypervisor.whilePaused` over any machines. What is sealed in `work` is one state of all of them, because every one was
 * stopped before the first was sealed, and none ran on before the last was: what one machine could have learned of another
 * between the two is nothing.
 */
export async function whilePaused<M extends PausedMachine>(o: {
  readonly machines: readonly M[];
  readonly limitMs: number;
  readonly clock: Clock;
  readonly guard: (stopped: readonly M[]) => Promise<PauseWatch>;
  readonly work: () => Promise<void>;
}): Promise<PauseReport> {
  const { clock } = o;
  const members = await Promise.all(o.machines.map(memberOf));
  const ours = members.filter(({ isOurs }) => isOurs);
  let guard: PauseWatch;
  try {
    guard = await o.guard(ours.map(({ machine }) => machine));
  } catch (error) {
    if (!isFailure(error)) throw error;
    return apart(members, `nobody would continue the machines: ${error.message}`);
  }
  const unlisten = members.map((member) =>
    member.machine.onEvent(({ name }) => {
      if (name === 'RESUME') member.wasWoken = true;
    }),
  );
  const startMs = clock.monotonicMs();
  guard.arm();
  let outcome: { reason?: string; thrown?: unknown };
  try {
    outcome = await standStill(members, ours, o, guard);
  } finally {
    for (const end of unlisten) end();
  }
  const unheard = await continueAll(ours, clock);
  const pausedMs = clock.monotonicMs() - startMs;
  if (unheard.length > 0) guard.continueAll();
  else await guard.release();
  if ('thrown' in outcome) throw outcome.thrown;
  const eachMs = members.map(({ isOurs, sentMs, runsMs }) => (isOurs ? runsMs - sentMs : 0));
  const reason = outcome.reason ?? unheard[0];
  return { together: reason === undefined, ...(reason === undefined ? {} : { reason }), pausedMs, eachMs };
}

async function memberOf<M extends PausedMachine>(machine: M): Promise<Member<M>> {
  const isOurs = (await machine.state()) === 'running';
  return { machine, isOurs, sentMs: 0, runsMs: 0, wasWoken: false };
}

/** Stops the machines and does the work; says why that was not one instant of all of them, if it was not. */
async function standStill<M extends PausedMachine>(
  members: readonly Member<M>[],
  ours: readonly Member<M>[],
  { limitMs, clock, work }: { limitMs: number; clock: Clock; work: () => Promise<void> },
  guard: PauseWatch,
): Promise<{ reason?: string; thrown?: unknown }> {
  const wasTooLong = () =>
    hypervisorFailure('PAUSE_TOO_LONG', `the machines would have stood still for more than ${limitMs} ms`);
  let isWorking = false;
  try {
    await withTimeout(
      clock,
      limitMs,
      async (signal) => {
        await Promise.all(ours.map((member) => stop(member, clock)));
        // Too late: they are being continued, and nothing more may be sealed as if they stood still.
        if (signal.aborted) return;
        isWorking = true;
        await work();
      },
      wasTooLong,
    );
  } catch (error) {
    if (!(error instanceof Failure)) return { thrown: error };
    if (isWorking && error.code !== 'PAUSE_TOO_LONG') return { thrown: error };
    return { reason: error.message };
  }
  if (members.some(({ wasWoken }) => wasWoken)) return { reason: 'a machine was continued by somebody else' };
  return guard.isAlive ? {} : { reason: 'the pause guard was lost' };
}

async function stop<M extends PausedMachine>(member: Member<M>, clock: Clock): Promise<void> {
  member.sentMs = clock.monotonicMs();
  try {
    await member.machine.pause();
  } catch (error) {
    throw hypervisorFailure('PAUSE_FAILED', `a machine could not be stopped: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Continues all, each without waiting for another. Returns what was said of those that have not confirmed it. */
async function continueAll<M extends PausedMachine>(
  ours: readonly Member<M>[],
  clock: Clock,
): Promise<string[]> {
  const unheard: string[] = [];
  await Promise.all(
    ours.map(async (member) => {
      try {
        await withTimeout(
          clock,
          CONFIRM_LIMIT_MS,
          () => member.machine.resume(),
          () => hypervisorFailure('PAUSE_FAILED', `no answer in ${CONFIRM_LIMIT_MS} ms`),
        );
      } catch (error) {
        unheard.push(`a machine has not confirmed that it runs: ${messageOf(error)}`);
      }
      member.runsMs = clock.monotonicMs();
    }),
  );
  return unheard;
}

function apart<M>(members: readonly Member<M>[], reason: string): PauseReport {
  return { together: false, reason, pausedMs: 0, eachMs: members.map(() => 0) };
}
