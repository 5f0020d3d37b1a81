import type { DatabaseSync } from 'node:sqlite';
import type { Replica } from '../../replica/index.ts';
import { inTransaction } from '../base/database.ts';

/** Which points the site holds, over all machines, without opening a directory. Filled from the replicas. */
export class PointIndex {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** Makes the rows of one machine equal to what its replica holds. */
  refresh(replica: Replica): void {
    inTransaction(this.#database, () => this.#fill(replica));
  }

  /** Forgets a machine whose replica has gone. */
  forget(machineId: string): void {
    this.#database.prepare('DELETE FROM points WHERE machine_id = ?').run(machineId);
  }

  /** Forgets everything and fills the index anew; in one transaction, so that nobody sees it half. */
  rebuild(replicas: readonly Replica[]): void {
    inTransaction(this.#database, () => {
      this.#database.exec('DELETE FROM points');
      for (const replica of replicas) this.#fill(replica);
    });
  }

  count(): number {
    return Number(this.#database.prepare('SELECT count(*) AS points FROM points').get()!.points);
  }

  #fill(replica: Replica): void {
    const { machineId } = replica.record;
    this.#database.prepare('DELETE FROM points WHERE machine_id = ?').run(machineId);
    const insert = this.#database.prepare('INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)');
    for (const { statement, manifest } of replica.points) {
      const { pointId, sequence, consistency } = statement;
      const { cutAtHereMs, publishedAtMs, receivedBytes } = manifest;
      insert.run(
        machineId,
        pointId,
        sequence,
        consistency,
        Math.round(cutAtHereMs),
        publishedAtMs,
        receivedBytes,
      );
    }
  }
}
