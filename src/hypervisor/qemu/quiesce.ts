import type { Clock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { FreezeGuard } from '../../qmp/index.ts';
import type { QuiesceReport } from '../hypervisor.ts';

/**
 * Runs `work` between a freeze and a thaw by the guest agent. Every way in which that can go wrong ends with `work`
 * done and a reason given; only `work` itself can throw.
 */
export async function whileFrozen<T>(o: {
  agentPath: string | undefined;
  limitMs: number;
  clock: Clock;
  work: () => Promise<T>;
}): Promise<QuiesceReport<T>> {
  if (o.agentPath === undefined) {
    return { result: await o.work(), consistent: false, reason: 'the machine has no guest agent' };
  }
  let guard: FreezeGuard;
  try {
    guard = await FreezeGuard.start({ agentPath: o.agentPath, limitMs: o.limitMs, clock: o.clock });
  } catch (error) {
    return {
      result: await o.work(),
      consistent: false,
      reason: `the guest agent does not answer: ${messageOf(error)}`,
    };
  }
  try {
    try {
      await guard.freeze();
    } catch (error) {
      return {
        result: await o.work(),
        consistent: false,
        reason: `the guest was not frozen: ${messageOf(error)}`,
      };
    }
    let result: T;
    try {
      result = await o.work();
    } catch (error) {
      await guard.thaw();
      throw error;
    }
    return { result, ...(await thawed(guard)) };
  } finally {
    await guard.close();
  }
}

async function thawed(guard: FreezeGuard): Promise<Omit<QuiesceReport<never>, 'result'>> {
  try {
    const { frozenMs, inTime, cause } = await guard.thaw();
    return inTime
      ? { consistent: true, frozenMs }
      : { consistent: false, frozenMs, reason: `the guest was thawed before the cut had ended (${cause})` };
  } catch (error) {
    return { consistent: false, reason: `the thaw is uncertain: ${messageOf(error)}` };
  }
}
