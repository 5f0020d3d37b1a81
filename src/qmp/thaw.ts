import { type Clock, sleep } from '../lib/clock.ts';
import { Failure, isFailure, messageOf } from '../lib/errors.ts';
import type { Random } from '../lib/random.ts';
import { pauseMs } from '../lib/retry.ts';
import { qmpFailure } from './errors.ts';
import { GuestAgent } from './guest-agent.ts';

/** How long a guest that does not answer is asked again before a person must look. */
const THAW_LIMIT_MS = 10 * 60_000;
/** How long a socket may be gone. A machine whose socket is gone has ended, and its guest with it. */
const GONE_LIMIT_MS = 5000;
const TRY_TIMEOUT_MS = 5000;
/** How long a freeze that was found left behind is thawed before that is given up. */
const ABANDONED_LIMIT_MS = 30_000;
const PAUSE = { firstMs: 20, maximumMs: 1000, triesMax: Number.POSITIVE_INFINITY };

export interface ThawOptions {
  readonly agentPath: string;
  /** A connection to begin with; it is closed at the end, or replaced when it breaks. */
  readonly agent: GuestAgent | undefined;
  readonly clock: Clock;
  readonly random: Random;
  /** The agent said that it had frozen, so a thaw is sent even if it now says that it has not. */
  readonly frozeBefore: boolean;
  readonly limitMs?: number;
}

/**
 * Thaws a guest and does not let go before the guest itself says that it is thawed.
 *
 * The agent carries out commands in the order in which it gets them, so a thaw that was answered comes after
 * any freeze that was sent before, also one that nobody waits for any more. `wasFrozen` tells whether the
 * guest was still frozen when the thaw began. Throws QMP_FREEZE_THAW_UNCONFIRMED at the limit, or
 * once the machine's socket has been gone for 5 seconds.
 */
export async function thawGuest(o: ThawOptions): Promise<{ wasFrozen: boolean }> {
  const { clock } = o;
  const giveUpMs = clock.monotonicMs() + (o.limitMs ?? THAW_LIMIT_MS);
  let goneSinceMs: number | undefined;
  let wasFrozen: boolean | undefined;
  let agent = o.agent;
  try {
    for (let attempt = 1; ; attempt++) {
      let last: unknown;
      try {
        agent ??= await GuestAgent.connect({ ...o, path: o.agentPath, timeoutMs: TRY_TIMEOUT_MS });
        goneSinceMs = undefined;
        const status = await agent.freezeStatus({ timeoutMs: TRY_TIMEOUT_MS });
        wasFrozen ??= status === 'frozen';
        if (status === 'thawed' && !o.frozeBefore) return { wasFrozen };
        const count = await thawOnce(agent);
        if (count === 0) wasFrozen = false;
        if ((await agent.freezeStatus({ timeoutMs: TRY_TIMEOUT_MS })) === 'thawed') return { wasFrozen };
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        // An agent that refuses to tell a freeze status cannot have frozen anything.
        if (isFailure(error, 'QMP_AGENT_COMMAND_FAILED') && !o.frozeBefore) return { wasFrozen: false };
        last = error;
        if (isFailure(error, 'QMP_AGENT_DISCONNECTED')) {
          await agent?.close();
          agent = undefined;
        }
        if (isFailure(error, 'QMP_AGENT_UNREACHABLE')) goneSinceMs ??= clock.monotonicMs();
      }
      const nowMs = clock.monotonicMs();
      if (nowMs > giveUpMs || (goneSinceMs !== undefined && nowMs - goneSinceMs > GONE_LIMIT_MS)) {
        throw qmpFailure(
          'QMP_FREEZE_THAW_UNCONFIRMED',
          `the guest behind ${o.agentPath} did not confirm that it is thawed`,
          { context: { agentPath: o.agentPath, attempt, last: last ? messageOf(last) : null }, cause: last },
        );
      }
      await sleep(clock, pauseMs(PAUSE, attempt, o.random));
    }
  } finally {
    await agent?.close();
  }
}

/**
 * Thaws a guest that was left frozen: whoever froze it, and the guard, are gone. Only who knows that no freeze of its own
 * is under way may ask for this; one that is under way keeps the agent's only place, so that `silent` is the answer then.
 * Each of the agent's two answers is awaited for `answerMs`, or until `signal` is aborted; a guest that is found frozen is
 * thawed all the same. Throws QMP_FREEZE_THAW_UNCONFIRMED after 30 seconds, or once its socket has been gone for 5.
 */
export async function thawAbandoned(o: {
  readonly agentPath: string;
  readonly answerMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}): Promise<'thawed' | 'not-frozen' | 'silent'> {
  const { agentPath, clock, random, signal } = o;
  const options = { timeoutMs: o.answerMs, signal };
  let agent: GuestAgent | undefined;
  try {
    agent = await GuestAgent.connect({ path: agentPath, clock, random, ...options });
    if ((await agent.freezeStatus(options)) === 'thawed') {
      await agent.close();
      return 'not-frozen';
    }
  } catch (error) {
    await agent?.close();
    if (!(error instanceof Failure)) throw error;
    // An agent that refuses to tell a freeze status cannot have frozen anything.
    return isFailure(error, 'QMP_AGENT_COMMAND_FAILED') ? 'not-frozen' : 'silent';
  }
  const limitMs = ABANDONED_LIMIT_MS;
  await thawGuest({ agentPath, agent, clock, random, frozeBefore: true, limitMs });
  return 'thawed';
}

/** The number of file systems thawed; 0 also if the guest says that there was nothing it could thaw. */
async function thawOnce(agent: GuestAgent): Promise<number> {
  try {
    return await agent.thaw({ timeoutMs: TRY_TIMEOUT_MS });
  } catch (error) {
    // Windows answers so when its own 10 seconds have passed; the status that is asked next decides.
    if (isFailure(error, 'QMP_AGENT_COMMAND_FAILED')) return 0;
    throw error;
  }
}
