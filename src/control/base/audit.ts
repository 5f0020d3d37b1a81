import { createHash } from 'node:crypto';
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import type { AuditView } from '../../api/index.ts';
import { canonicalJson, type Json } from '../../lib/canonical-json.ts';
import type { Clock } from '../../lib/clock.ts';
import { Failure, isFailure } from '../../lib/errors.ts';
import { inTransaction } from './database.ts';

type Row = Readonly<Record<string, SQLOutputValue>>;

/** What was asked for, by whom. Never holds a secret: tokens, keys and passwords are left out by the caller. */
export interface AuditedAct {
  /** `operator:<token>`, `trigger:<trigger id>`, `peer:<site id>`, or `site`. */
  readonly actor: string;
  readonly act: string;
  /** The machine, point, branch or peer that it is about. */
  readonly subject?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

export type ChainState =
  | { readonly state: 'whole' }
  | { readonly state: 'broken'; readonly atSequence: number };

/** What has happened, from then until it is stored. */
interface LateEntry {
  readonly act: AuditedAct;
  readonly phase: AuditView['phase'];
  /** The entry that it is the end of. */
  readonly intent?: number | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly atMs: number;
}

/** Entries that wait for room; those that come when so many wait are lost. */
const LATE_MAX = 10_000;

/**
 * Who did what, in order, append-only. Each entry carries the SHA-256 of the one before it and of itself, so that an
 * entry that was changed, removed from the middle or slipped in shows. (Whoever can write the file can also write the
 * whole chain anew: keep the newest hash elsewhere if that matters.) An intent is durable before its act begins.
 */
export class Audit {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  /** What has happened and found no room in the database. */
  readonly #late: LateEntry[] = [];

  constructor(o: { database: DatabaseSync; clock: Clock }) {
    this.#database = o.database;
    this.#clock = o.clock;
  }

  /** Writes the intent, does the work, writes what became of it. */
  async acting<T>(act: AuditedAct, work: () => Promise<T>): Promise<T> {
    const intent = this.begin(act);
    try {
      const result = await work();
      this.end(intent, act, undefined);
      return result;
    } catch (error) {
      this.end(intent, act, error);
      throw error;
    }
  }

  /** Writes the intent of an act; the number by which its end names it. Throws SITE_DATABASE_FULL: the act must not be begun then. */
  begin(act: AuditedAct): number {
    this.#appendLate();
    return this.#append({ act, phase: 'intent', details: act.details ?? {}, atMs: this.#clock.wallMs() });
  }

  end(intent: number, act: AuditedAct, error: unknown, details: AuditedAct['details'] = {}): void {
    if (error === undefined) this.#happened({ act, phase: 'done', intent, details });
    else {
      const code = error instanceof Failure ? error.code : 'INTERNAL';
      this.#happened({ act, phase: 'failed', intent, details: { ...details, code } });
    }
  }

  /** Writes what became of an act, for what is done upon it: durable on return. Throws SITE_DATABASE_FULL: it must not be done then. */
  attest(intent: number, act: AuditedAct, details: NonNullable<AuditedAct['details']>): void {
    this.#appendLate();
    this.#append({ act, phase: 'done', intent, details, atMs: this.#clock.wallMs() });
  }

  /** Entries of an act that came after an entry, the oldest first. */
  after(intent: number, act: string): AuditView[] {
    return this.#database
      .prepare('SELECT * FROM audit WHERE sequence > ? AND act = ? ORDER BY sequence')
      .all(intent, act)
      .map(viewOf);
  }

  /** Whether the end of an act is on record. */
  hasEnd(intent: number): boolean {
    const end = this.#database.prepare('SELECT 1 FROM audit WHERE sequence > ? AND intent = ? LIMIT 1');
    return end.get(intent, intent) !== undefined;
  }

  /** An act that is over already. */
  note(act: AuditedAct): void {
    this.#happened({ act, phase: 'done', details: act.details ?? {} });
  }

  /** Entries below `before`, the newest first. */
  list(o: { before?: number; limit: number }): AuditView[] {
    const rows = this.#database
      .prepare('SELECT * FROM audit WHERE sequence < ? ORDER BY sequence DESC LIMIT ?')
      .all(o.before ?? Number.MAX_SAFE_INTEGER, o.limit);
    return rows.map(viewOf);
  }

  /** By actor: when it has last done this. */
  lastDone(act: string): ReadonlyMap<string, number> {
    const rows = this.#database
      .prepare("SELECT actor, MAX(at_ms) AS at_ms FROM audit WHERE act = ? AND phase = 'done' GROUP BY actor")
      .all(act);
    return new Map(rows.map((row) => [String(row.actor), Number(row.at_ms)]));
  }

  /** Reads the whole chain and computes every hash again. */
  check(): ChainState {
    let previous = '';
    let sequence = 0;
    for (const row of this.#database.prepare('SELECT * FROM audit ORDER BY sequence').iterate()) {
      sequence += 1;
      const entry = viewOf(row as Row);
      if (entry.sequence !== sequence || entry.hash !== hashOf(previous, entry)) {
        return { state: 'broken', atSequence: sequence };
      }
      previous = entry.hash;
    }
    return { state: 'whole' };
  }

  /** What has happened cannot be refused: where there is no room for its entry, that is made when there is. */
  #happened(entry: Omit<LateEntry, 'atMs'>): void {
    if (this.#late.length < LATE_MAX) this.#late.push({ ...entry, atMs: this.#clock.wallMs() });
    try {
      this.#appendLate();
    } catch (error) {
      if (!isFailure(error, 'SITE_DATABASE_FULL')) throw error;
    }
  }

  #appendLate(): void {
    for (;;) {
      const [entry] = this.#late;
      if (!entry) return;
      this.#append(entry);
      this.#late.shift();
    }
  }

  #append({ act, phase, intent, details, atMs }: LateEntry): number {
    return inTransaction(this.#database, () => {
      const last = this.#database
        .prepare('SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1')
        .get();
      const entry: Omit<AuditView, 'hash'> = {
        sequence: Number(last?.sequence ?? 0) + 1,
        atMs,
        actor: act.actor,
        act: act.act,
        phase,
        ...(intent === undefined ? {} : { intent }),
        ...(act.subject === undefined ? {} : { subject: act.subject }),
        // Through JSON once, so that what is hashed is what is stored.
        details: JSON.parse(JSON.stringify(details)) as Record<string, unknown>,
      };
      this.#database
        .prepare(
          `INSERT INTO audit (sequence, at_ms, actor, act, phase, intent, subject, details, hash)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        )
        .run(
          entry.sequence,
          entry.atMs,
          entry.actor,
          entry.act,
          phase,
          intent ?? null,
          entry.subject ?? null,
          JSON.stringify(entry.details),
          hashOf(String(last?.hash ?? ''), entry),
        );
      return entry.sequence;
    });
  }
}

function hashOf(previous: string, entry: Omit<AuditView, 'hash'>): string {
  const { sequence, atMs, actor, act, phase, intent, subject, details } = entry;
  const text = canonicalJson({
    ...{ previous, sequence, atMs, actor, act, phase, intent, subject },
    details: details as Json,
  });
  return createHash('sha256').update(text).digest('hex');
}

function viewOf(row: Row): AuditView {
  return {
    sequence: Number(row.sequence),
    atMs: Number(row.at_ms),
    actor: String(row.actor),
    act: String(row.act),
    phase: row.phase as AuditView['phase'],
    ...(row.intent === null ? {} : { intent: Number(row.intent) }),
    ...(row.subject === null ? {} : { subject: String(row.subject) }),
    details: JSON.parse(String(row.details)) as Record<string, unknown>,
    hash: String(row.hash),
  };
}
