import type { Log, LogFields } from '../../lib/log.ts';
import { type AlertSink, failureOf } from './alerts.ts';

export interface WorkerTools {
  readonly log: Log;
  readonly alerts: AlertSink;
}

/** Which worker it is, for those who are told that it broke. */
export interface WorkerName {
  readonly alert: string;
  readonly event: string;
  /** Asked when it has broken: names change. */
  readonly fields: () => LogFields;
  readonly machineId?: string;
}

/** Runs a worker until its signal ends it; a bug ends it before, loudly, and no other one. Never rejects. */
export async function runWorker(
  { log, alerts }: WorkerTools,
  { alert, event, fields, machineId }: WorkerName,
  work: () => Promise<never>,
  signal: AbortSignal,
): Promise<void> {
  try {
    alerts.clear(alert);
    await work();
  } catch (error) {
    if (signal.aborted) return;
    log.error(event, { ...fields(), error });
    alerts.raise(alert, 'critical', failureOf(error), machineId);
  }
}
