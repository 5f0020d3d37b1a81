import { KeyedMutex } from '../../lib/keyed-mutex.ts';
import { controlFailure } from '../errors.ts';

/**
 * Whose turn it is with the disks of a machine that has ended here, by its directory. Many may read them at once, tests among them that are
 * still being made; an act that writes or removes them, or makes them the machine again, is alone. Nothing of this outlives the process:
 * no act does either, and a test that has been made is known by its record.
 */
export class DiskTurns {
  readonly #readers = new Map<string, number>();
  /** Acts that are under way, or wait for their turn. */
  readonly #acts = new Map<string, number>();
  readonly #turns = new KeyedMutex();

  /** Until the returned function is called something reads them. Throws MACHINE_CHANGING. */
  read(directory: string): () => void {
    if (this.#acts.has(directory)) {
      const said = 'something is being done with the disks that the machine has here';
      throw controlFailure('MACHINE_CHANGING', said, { context: { directory } });
    }
    count(this.#readers, directory, 1);
    let held = true;
    return () => {
      if (held) count(this.#readers, directory, -1);
      held = false;
    };
  }

  isRead(directory: string): boolean {
    return this.#readers.has(directory);
  }

  /** One act after the other, and nobody begins to read them meanwhile; for what reads them already the act looks itself. */
  async alone<T>(directory: string, act: () => Promise<T>): Promise<T> {
    count(this.#acts, directory, 1);
    try {
      return await this.#turns.run(directory, act);
    } finally {
      count(this.#acts, directory, -1);
    }
  }
}

function count(counts: Map<string, number>, directory: string, by: 1 | -1): void {
  const after = (counts.get(directory) ?? 0) + by;
  if (after > 0) counts.set(directory, after);
  else counts.delete(directory);
}
