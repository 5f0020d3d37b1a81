import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../lib/clock.ts';
import { Failure, isFailure, messageOf } from '../lib/errors.ts';
import type { Random } from '../lib/random.ts';
import { qmpFailure } from './errors.ts';
import { encodeLine, type GuardNews, type GuardOrder, type ThawCause } from './freeze-messages.ts';
import { type Impulse, impulsesOf } from './guard-impulses.ts';
import { GuestAgent } from './guest-agent.ts';
import { thawGuest } from './thaw.ts';

const SYNC_TIMEOUT_MS_MIN = 1000;

export interface GuardProcessOptions {
  readonly agentPath: string;
  /** Longest time in which a guest may be frozen, from the sending of the freeze. */
  readonly limitMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly orders: Readable;
  readonly news: Writable;
  /** Aborted when this process is told to end. */
  readonly terminated: AbortSignal;
}

/**
 * The life of a guard process: synchronise with the agent, freeze once when told to, thaw for whatever
 * reason comes first, end. Whatever happens after a freeze was sent, the way out leads through the thaw.
 */
export async function runFreezeGuard(o: GuardProcessOptions): Promise<void> {
  const { clock, agentPath, limitMs } = o;
  // A parent that is gone breaks the pipe; its end of the order pipe tells the same.
  o.news.on('error', () => undefined);
  const tell = (news: GuardNews) => o.news.write(encodeLine(news));
  const impulses = impulsesOf<GuardOrder['order']>(o);

  let agent: GuestAgent;
  try {
    agent = await GuestAgent.connect({
      path: agentPath,
      clock,
      random: o.random,
      // A guest that is slower than the limit would not freeze within it either.
      timeoutMs: Math.max(limitMs, SYNC_TIMEOUT_MS_MIN),
      signal: o.terminated,
    });
  } catch (error) {
    tell({ news: 'unready', failure: asFailure(error).toJSON() });
    return;
  }
  tell({ news: 'ready' });
  if ((await impulses.next()) !== 'freeze') return agent.close();

  const startMs = clock.monotonicMs();
  const disarm = impulses.limitAfter(limitMs);
  let cause: ThawCause;
  let froze = false;
  try {
    const fileSystems = await agent.freeze({ timeoutMs: limitMs });
    froze = true;
    tell({ news: 'frozen', fileSystems });
    cause = causeOf(await impulses.next());
  } catch (error) {
    tell({ news: 'unfrozen', failure: freezeFailure(error, limitMs).toJSON() });
    cause = 'freeze-failed';
  }
  disarm();
  // This process itself may have been stopped for a while, so the limit is looked at once more.
  if (cause === 'asked' && clock.monotonicMs() - startMs > limitMs) cause = 'limit';
  try {
    // The limit is the freeze's: a thaw is tried for much longer.
    const { wasFrozen } = await thawGuest({ agentPath, agent, clock, random: o.random, frozeBefore: froze });
    const frozenMs = Math.round(clock.monotonicMs() - startMs);
    if (cause === 'asked' && !wasFrozen) cause = 'not-frozen';
    tell({ news: 'thawed', frozenMs, cause });
  } catch (error) {
    tell({ news: 'stuck', failure: asFailure(error).toJSON() });
  }
}

function causeOf(impulse: Impulse<GuardOrder['order']>): ThawCause {
  if (impulse === 'thaw') return 'asked';
  // A second freeze is an order of a parent that has lost its way: thaw, and do not call it good.
  return impulse === 'freeze' ? 'parent-gone' : impulse;
}

function freezeFailure(error: unknown, limitMs: number): Failure {
  const details = { context: { limitMs }, cause: error };
  if (isFailure(error, 'QMP_AGENT_TIMEOUT', 'QMP_AGENT_NO_ANSWER')) {
    return qmpFailure('QMP_FREEZE_TIMEOUT', `the guest did not freeze in ${limitMs} ms`, details);
  }
  return qmpFailure('QMP_FREEZE_FAILED', `the guest could not be frozen: ${messageOf(error)}`, details);
}

function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error;
  throw error;
}
