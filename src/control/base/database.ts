import { DatabaseSync } from 'node:sqlite';
import { messageOf } from '../../lib/errors.ts';
import { controlFailure } from '../errors.ts';

/** Version of the tables below, kept in `user_version`. An older one is brought up to date when it is opened. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE points (
    machine_id TEXT NOT NULL,
    point_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    consistency TEXT NOT NULL,
    cut_at_ms INTEGER NOT NULL,
    published_at_ms INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL,
    PRIMARY KEY (machine_id, point_id)
  ) STRICT;
  CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    machine_id TEXT NOT NULL,
    actor TEXT NOT NULL,
    args TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    started_at_ms INTEGER,
    ended_at_ms INTEGER,
    result TEXT,
    failure TEXT,
    intent INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX jobs_by_state ON jobs (state);
  CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    phase TEXT NOT NULL,
    intent INTEGER,
    subject TEXT,
    details TEXT NOT NULL,
    hash TEXT NOT NULL
  ) STRICT;
  CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries stay'); END;
  CREATE TRIGGER audit_is_final BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries stay'); END;
  CREATE TABLE alerts (
    key TEXT PRIMARY KEY,
    severity TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    remedy TEXT NOT NULL,
    machine_id TEXT,
    raised_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    cleared_at_ms INTEGER,
    count INTEGER NOT NULL
  ) STRICT;
`;

/** SQLITE_FULL (sqlite.org/rescode.html): the file system has no room for the change. */
const SQLITE_FULL = 13;

/** So much may be stored when the file system is full. */
const RESERVE_BYTES = 2 * 1024 * 1024;
/** Pages of 4 KiB: the log begins anew long before it is as large as the reserve has made it. */
const CHECKPOINT_PAGES = 256;

/**
 * Opens `site.db`, or makes it. Every change is durable when the statement that made it returns (WAL, synchronous=FULL).
 * Throws SITE_DATABASE_NEWER and SITE_DATABASE_DAMAGED; nothing has changed then.
 */
export function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 5000 });
  try {
    const version = Number(database.prepare('PRAGMA user_version').get()!.user_version);
    if (version > SCHEMA_VERSION) {
      throw controlFailure(
        'SITE_DATABASE_NEWER',
        `${path} has version ${version}; known here is ${SCHEMA_VERSION}`,
        { context: { path, version } },
      );
    }
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;');
    if (version === 0)
      inTransaction(database, () => database.exec(`${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION};`));
    reserve(database);
    addIndex(database);
    return database;
  } catch (error) {
    database.close();
    if (!isSqliteError(error)) throw error;
    throw controlFailure('SITE_DATABASE_DAMAGED', `${path} cannot be used: ${messageOf(error)}`, {
      context: { path },
      cause: error,
    });
  }
}

/**
 * Takes room on the file system for what is to be stored when it is full: alerts that say so, acts that make room. A large value is
 * stored and deleted again; its pages stay in the file, as free ones, and the log keeps its length until it is closed. Where there is no
 * room for that, or files are never written in place, a full file system is a failure of what is to be stored.
 */
function reserve(database: DatabaseSync): void {
  try {
    database.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}; DROP TABLE IF EXISTS reserve;
      CREATE TABLE reserve (bytes BLOB) STRICT; INSERT INTO reserve VALUES (zeroblob(${RESERVE_BYTES}));`);
    database.exec('DROP TABLE reserve');
  } catch (error) {
    if (!isFull(error)) throw error;
  }
}

/** For the jobs of one machine, of which there are ever more. Databases that are older than it get it when there is room: nothing depends on it. */
function addIndex(database: DatabaseSync): void {
  try {
    database.exec('CREATE INDEX IF NOT EXISTS jobs_by_machine ON jobs (machine_id, kind)');
  } catch (error) {
    if (!isFull(error)) throw error;
  }
}

/** Runs `work` in one transaction: all of it, or, if it throws, nothing. Throws SITE_DATABASE_FULL. */
export function inTransaction<T>(database: DatabaseSync, work: () => T): T {
  return unlessFull(() => {
    database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      database.exec('COMMIT');
      return result;
    } catch (error) {
      // A full file system has rolled it back already.
      if (database.isTransaction) database.exec('ROLLBACK');
      throw error;
    }
  });
}

/** Runs a statement that stores something. Throws SITE_DATABASE_FULL; nothing has changed then. */
export function unlessFull<T>(statement: () => T): T {
  try {
    return statement();
  } catch (error) {
    if (!isFull(error)) throw error;
    throw controlFailure('SITE_DATABASE_FULL', 'there is no room to store what was to be done', {
      cause: error,
    });
  }
}

function isFull(error: unknown): boolean {
  return isSqliteError(error) && (error as { errcode?: unknown }).errcode === SQLITE_FULL;
}

function isSqliteError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_SQLITE_ERROR';
}
