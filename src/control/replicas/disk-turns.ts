import { Mutex } from '../../lib/mutex.ts';
import { controlFailure } from '../errors.ts';

interface Turn {
  readonly mutex: Mutex;
  /** Acts that are under way, or wait for their turn. */
  acts: number;
}

/**
 * Whose turn it is with the disks of a machine that has ended here, by its directory. Many may read them at once, tests among them that are
 * still being made; an act that writes or removes them, or makes them the machine again, is alone. Nothing of this outlives the process:
 * no act does either, and a test that has been made is known by its record.
 */
export class DiskTurns {
  readonly #readers = new Map<string, number>();
  readonly #turns = new Map<string, Turn>();

  /** Until the returned function is called something reads them. Throws MACHINE_CHANGING. */
  read(directory: string): () => void {
    if (this.#turns.has(directory)) {
      const said = 'something is being done with the disks that the machine has here';
      throw controlFailure('MACHINE_CHANGING', said, { context: { directory } });
    }
    this.#count(directory, 1);
    let held = true;
    return () => {
      if (held) this.#count(directory, -1);
      held = false;
    };
  }

  #count(directory: string, by: 1 | -1): void {
    const readers = (this.#readers.get(directory) ?? 0) + by;
    if (readers > 0) this.#readers.set(directory, readers);
    else this.#readers.delete(directory);
  }

  isRead(directory: string): boolean {
    return this.#readers.has(directory);
  }

  /** One act after the other, and nobody begins to read them meanwhile; for what reads them already the act looks itself. */
  async alone<T>(directory: string, act: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(directory) ?? { mutex: new Mutex(), acts: 0 };
    this.#turns.set(directory, turn);
    turn.acts += 1;
    try {
      return await turn.mutex.run(act);
    } finally {
      turn.acts -= 1;
      if (turn.acts === 0) this.#turns.delete(directory);
    }
  }
}
