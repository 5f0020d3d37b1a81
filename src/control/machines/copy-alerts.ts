import { type CutRecord, type HookReport, hookFailureOf } from '../../replication/index.ts';
import type { Alerts } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';

/** Alerts for a copy that was made and is less than its type strives for, or left the guest in doubt; cleared by a better one. */
export function reportCopy(
  alerts: Pick<Alerts, 'raise' | 'clear'>,
  { machineId, name }: { readonly machineId: string; readonly name: string },
  cut: CutRecord,
): void {
  const degraded = `degraded:${machineId}`;
  if (cut.degraded !== undefined) {
    const less = cut.consistency === 'crash' ? 'crash-consistent only' : 'less than was asked for';
    const said = `a copy of ${name} is ${less}: ${cut.degraded}`;
    alerts.raise(degraded, 'warning', controlFailure('COPY_DEGRADED', said), machineId);
  } else if (cut.consistency !== 'crash') {
    alerts.clear(degraded);
  }
  const leftOut = `left-out:${machineId}`;
  if (cut.leftOut?.length) {
    const said = `${name} has disks that are not replicated: ${cut.leftOut.join(', ')}`;
    alerts.raise(leftOut, 'critical', controlFailure('MACHINE_DISK_LEFT_OUT', said), machineId);
  } else {
    alerts.clear(leftOut);
  }
  if (!cut.hooks) return;
  const hooks = `hooks:${machineId}`;
  // What the hook before the freeze did wrong has cost the copy its consistency, and is told as that.
  const failed = cut.hooks.filter(
    ({ hook, failure }: HookReport) => hook !== 'before' && failure !== undefined,
  );
  if (failed.length === 0) {
    alerts.clear(hooks);
    return;
  }
  const said = `after a copy of ${name}: ${failed.map(hookFailureOf).join('; ')}`;
  alerts.raise(hooks, 'warning', controlFailure('COPY_HOOK_FAILED', said), machineId);
}
