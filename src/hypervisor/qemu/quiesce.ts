import type { Clock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { FreezeGuard } from '../../qmp/index.ts';
import type { QuiesceReport } from '../hypervisor.ts';
import type { AgentWatch } from './agent-port.ts';

/**
 * Runs `work` between a freeze and a thaw by the guest agent. Every way in which that can go wrong ends with `work`
 * done and a reason given; only `work` itself can throw.
 */
export async function whileFrozen<T>(o: {
  agentPath: string | undefined;
  /** Listens from the moment of the call. */
  watchAgent: () => AgentWatch;
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
  const watch = o.watchAgent();
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
    return { result, ...(await thawed(guard, watch)) };
  } finally {
    watch.close();
    await guard.close();
  }
}

async function thawed(guard: FreezeGuard, watch: AgentWatch): Promise<Omit<QuiesceReport<never>, 'result'>> {
  try {
    const { frozenMs, inTime, cause } = await guard.thaw();
    if (!inTime) {
      const reason = `the guest was thawed before the cut had ended (${cause})`;
      return { consistent: false, frozenMs, reason };
    }
    // The file systems may have stayed frozen; what its hooks held back may have been let go when it ended.
    if (await watch.hasChanged()) {
      return { consistent: false, frozenMs, reason: 'the guest agent ended while the guest was frozen' };
    }
    return { consistent: true, frozenMs };
  } catch (error) {
    return { consistent: false, reason: `the thaw is uncertain: ${messageOf(error)}` };
  }
}
