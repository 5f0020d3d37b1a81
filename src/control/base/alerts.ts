import type { DatabaseSync } from 'node:sqlite';
import type { AlertView } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { Failure, isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { controlFailure } from '../errors.ts';
import { unlessFull } from './database.ts';
import type { EventHub } from './event-hub.ts';

/** What is wrong right now, as far as a person must know. */
export interface AlertSink {
  /** Raises an alert, or renews the one that stands under the same key. */
  raise(key: string, severity: AlertView['severity'], failure: Failure, machineId?: string): void;
  /** Says that what the key names is well again; a key that does not stand is fine. */
  clear(key: string): void;
}

/**
 * Alerts of the site, by key. They survive a restart; whoever raised one clears it when it is over. One for which there is no room in the
 * database is kept in memory until there is: a full disk must be told of all the more.
 */
export class Alerts implements AlertSink {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #events: EventHub;
  readonly #log: Log;
  readonly #unsaved = new Map<string, AlertView>();

  constructor(o: { database: DatabaseSync; clock: Clock; events: EventHub; log: Log }) {
    this.#database = o.database;
    this.#clock = o.clock;
    this.#events = o.events;
    this.#log = o.log;
  }

  raise(key: string, severity: AlertView['severity'], failure: Failure, machineId?: string): void {
    const nowMs = this.#clock.wallMs();
    const { code, message, hint: remedy } = failure;
    const known = this.#get(key);
    const standing = known?.clearedAtMs === undefined ? known : undefined;
    const isSame = standing?.code === code && standing.message === message;
    const alert: AlertView = {
      ...{ key, severity, code, message, remedy },
      ...(machineId === undefined ? {} : { machineId }),
      raisedAtMs: standing?.raisedAtMs ?? nowMs,
      updatedAtMs: nowMs,
      count: (standing?.count ?? 0) + 1,
    };
    this.#save(alert);
    if (isSame) return;
    this.#log.warn('alert.raised', { key, severity, code, message });
    this.#events.emit({ event: 'alert', alert });
  }

  clear(key: string): void {
    const standing = this.#get(key);
    if (!standing || standing.clearedAtMs !== undefined) return;
    const alert = { ...standing, clearedAtMs: this.#clock.wallMs() };
    this.#save(alert);
    this.#log.info('alert.cleared', { key });
    this.#events.emit({ event: 'alert', alert });
  }

  /** Clears every alert of a machine that is no longer here. */
  clearMachine(machineId: string): void {
    for (const { key, machineId: of } of this.list({ all: false })) if (of === machineId) this.clear(key);
  }

  /** Clears those of a kind of which what they are about has gone; `keys` are those that are still so. */
  clearGone(kind: string, keys: ReadonlySet<string>): void {
    for (const { key } of this.list({ all: false })) {
      if (key.startsWith(`${kind}:`) && !keys.has(key)) this.clear(key);
    }
  }

  list(o: { all: boolean }): AlertView[] {
    const where = o.all ? '' : 'WHERE cleared_at_ms IS NULL';
    const stored = this.#database
      .prepare(`SELECT * FROM alerts ${where} ORDER BY raised_at_ms DESC, key LIMIT 1000`)
      .all()
      .map(viewOf)
      .filter(({ key }) => !this.#unsaved.has(key));
    const unsaved = [...this.#unsaved.values()].filter(
      ({ clearedAtMs }) => o.all || clearedAtMs === undefined,
    );
    return [...unsaved, ...stored];
  }

  #get(key: string): AlertView | undefined {
    const unsaved = this.#unsaved.get(key);
    if (unsaved) return unsaved;
    const row = this.#database.prepare('SELECT * FROM alerts WHERE key = ?').get(key);
    return row && viewOf(row);
  }

  #save(alert: AlertView): void {
    this.#unsaved.set(alert.key, alert);
    try {
      for (const unsaved of [...this.#unsaved.values()]) {
        unlessFull(() => this.#store(unsaved));
        this.#unsaved.delete(unsaved.key);
      }
    } catch (error) {
      if (!isFailure(error, 'SITE_DATABASE_FULL')) throw error;
      this.#log.warn('alert.unsaved', { alerts: this.#unsaved.size });
    }
  }

  #store({ key, severity, code, message, remedy, machineId, ...alert }: AlertView): void {
    const { raisedAtMs, updatedAtMs, clearedAtMs, count } = alert;
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO alerts
           (key, severity, code, message, remedy, machine_id, raised_at_ms, updated_at_ms, cleared_at_ms, count)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        ...[key, severity, code, message, remedy, machineId ?? null],
        ...[raisedAtMs, updatedAtMs, clearedAtMs ?? null, count],
      );
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
