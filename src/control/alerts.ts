import type { DatabaseSync } from 'node:sqlite';
import type { AlertView } from '../api/index.ts';
import type { Clock } from '../lib/clock.ts';
import { Failure } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { controlFailure } from './errors.ts';
import type { EventHub } from './event-hub.ts';

/** What is wrong right now, as far as a person must know. */
export interface AlertSink {
  /** Raises an alert, or renews the one that stands under the same key. */
  raise(key: string, severity: AlertView['severity'], failure: Failure, machineId?: string): void;
  /** Says that what the key names is well again; a key that does not stand is fine. */
  clear(key: string): void;
}

/** Alerts of the site, by key. They survive a restart; whoever raised one clears it when it is over. */
export class Alerts implements AlertSink {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #events: EventHub;
  readonly #log: Log;

  constructor(o: { database: DatabaseSync; clock: Clock; events: EventHub; log: Log }) {
    this.#database = o.database;
    this.#clock = o.clock;
    this.#events = o.events;
    this.#log = o.log;
  }

  raise(key: string, severity: AlertView['severity'], failure: Failure, machineId?: string): void {
    const nowMs = this.#clock.wallMs();
    const standing = this.#get(key);
    const isNew = standing === undefined || standing.clearedAtMs !== undefined;
    const isSame = !isNew && standing.code === failure.code && standing.message === failure.message;
    this.#database
      .prepare(
        `INSERT INTO alerts (key, severity, code, message, remedy, machine_id, raised_at_ms, updated_at_ms, count)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)
         ON CONFLICT (key) DO UPDATE SET severity = excluded.severity, code = excluded.code,
           message = excluded.message, remedy = excluded.remedy, machine_id = excluded.machine_id,
           raised_at_ms = CASE WHEN cleared_at_ms IS NULL THEN raised_at_ms ELSE excluded.raised_at_ms END,
           count = CASE WHEN cleared_at_ms IS NULL THEN count + 1 ELSE 1 END,
           updated_at_ms = excluded.updated_at_ms, cleared_at_ms = NULL`,
      )
      .run(key, severity, failure.code, failure.message, failure.hint, machineId ?? null, nowMs, nowMs);
    if (isSame) return;
    this.#log.warn('alert.raised', { key, severity, code: failure.code, message: failure.message });
    this.#tell(key);
  }

  clear(key: string): void {
    const { changes } = this.#database
      .prepare('UPDATE alerts SET cleared_at_ms = ? WHERE key = ? AND cleared_at_ms IS NULL')
      .run(this.#clock.wallMs(), key);
    if (changes === 0) return;
    this.#log.info('alert.cleared', { key });
    this.#tell(key);
  }

  /** Clears every alert of a machine that is no longer here. */
  clearMachine(machineId: string): void {
    for (const { key, machineId: of } of this.list({ all: false })) if (of === machineId) this.clear(key);
  }

  list(o: { all: boolean }): AlertView[] {
    const where = o.all ? '' : 'WHERE cleared_at_ms IS NULL';
    return this.#database
      .prepare(`SELECT * FROM alerts ${where} ORDER BY raised_at_ms DESC, key LIMIT 1000`)
      .all()
      .map(viewOf);
  }

  #get(key: string): AlertView | undefined {
    const row = this.#database.prepare('SELECT * FROM alerts WHERE key = ?').get(key);
    return row && viewOf(row);
  }

  #tell(key: string): void {
    const alert = this.#get(key);
    if (alert) this.#events.emit({ event: 'alert', alert });
  }
}

/** What was thrown, as a failure: an error without a code is one of ours and says so. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  return controlFailure('INTERNAL', 'an unexpected error happened in the site process', { cause: error });
}

function viewOf(row: Record<string, unknown>): AlertView {
  return {
    key: String(row.key),
    severity: row.severity as AlertView['severity'],
    code: String(row.code),
    message: String(row.message),
    remedy: String(row.remedy),
    ...(row.machine_id === null ? {} : { machineId: String(row.machine_id) }),
    raisedAtMs: Number(row.raised_at_ms),
    updatedAtMs: Number(row.updated_at_ms),
    ...(row.cleared_at_ms === null ? {} : { clearedAtMs: Number(row.cleared_at_ms) }),
    count: Number(row.count),
  };
}
