import type { DatabaseSync } from 'node:sqlite';

/** Leaves room for nothing in a database: as if its file could not grow. */
export function fillDatabase(database: DatabaseSync): void {
  const { page_count: pages } = database.prepare('PRAGMA page_count').get()!;
  database.exec(`PRAGMA max_page_count = ${pages}; CREATE TABLE IF NOT EXISTS filler (bytes BLOB) STRICT`);
  for (let bytes = 1024 * 1024; bytes >= 1024; ) {
    try {
      database.exec(`INSERT INTO filler VALUES (zeroblob(${bytes}))`);
    } catch {
      bytes /= 2;
    }
  }
}

export function makeRoomIn(database: DatabaseSync): void {
  database.exec('PRAGMA max_page_count = 1000000');
}
