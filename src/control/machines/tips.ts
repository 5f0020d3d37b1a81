import type { FileSystem } from '../../lib/files.ts';
import { standstillOf } from '../../replication/index.ts';
import type { LoopMachine } from './replication-loop.ts';

type TippedMachine = Pick<LoopMachine, 'record' | 'presence' | 'cuts' | 'chain' | 'hasUncutChanges'>;

/**
 * Whether there is anything to copy of a machine: one that does not run and whose tips hold nothing has nothing, nor has one whose
 * guest stands still as it did when it was copied last.
 */
export class Tips {
  readonly #machine: TippedMachine;
  readonly #files: Pick<FileSystem, 'sizeOf'>;
  /** Sizes of the tips of the stopped machine when they were last seen to hold nothing. */
  #empty: string | undefined;
  /** The guest stood still when it was copied last, and has not run since. */
  #wasCopiedStill = false;
  /** How often the guest was seen or heard to run. */
  #moves = 0;

  constructor(machine: TippedMachine, files: Pick<FileSystem, 'sizeOf'>) {
    this.#machine = machine;
    this.#files = files;
  }

  /** Nothing is written, as far as was seen last, and every byte has been copied. */
  get areEmpty(): boolean {
    return this.areStill && (this.#empty !== undefined || this.#wasCopiedStill);
  }

  /** The machine does not run, or its guest does not. */
  get areStill(): boolean {
    const { presence } = this.#machine;
    return presence.state === 'stopped' || standstillOf(presence) !== undefined;
  }

  /** The guest runs. */
  moved(): void {
    this.#moves += 1;
    this.#wasCopiedStill = false;
  }

  /** With `also: 'still'` a guest that stands still is copied again. */
  async reasonNotToCut(also?: 'still'): Promise<string | undefined> {
    const { presence, cuts } = this.#machine;
    if (presence.state === 'stale' || presence.state === 'unreachable') return presence.reason;
    if (presence.state === 'running') {
      this.#empty = undefined;
      const isCopied = this.#wasCopiedStill && also !== 'still';
      return isCopied ? 'the guest stands still and was copied since it does' : undefined;
    }
    const nothing = 'the machine does not run and nothing was written since the last copy';
    if (cuts.length > 0 && (await this.#sizes()) === this.#empty) return nothing;
    // Also asked before the first copy: it fails while another process writes the files.
    const hasChanges = await this.#machine.hasUncutChanges();
    if (hasChanges || cuts.length === 0) return undefined;
    this.#empty = await this.#sizes();
    return nothing;
  }

  /** A copy begins; what this returns is to be called when it has been made and the tips are new. */
  sealing(): () => Promise<void> {
    const wasStill = standstillOf(this.#machine.presence) !== undefined;
    const moves = this.#moves;
    return async () => {
      this.#empty = this.#machine.presence.state === 'stopped' ? await this.#sizes() : undefined;
      this.#wasCopiedStill = wasStill && moves === this.#moves;
    };
  }

  /** An empty layer grows with the first write: its size tells without opening it. */
  async #sizes(): Promise<string> {
    const sizes: string[] = [];
    for (const { diskId } of this.#machine.record.disks) {
      const tip = this.#machine.chain(diskId).at(-1);
      sizes.push(`${tip?.path}:${tip && (await this.#files.sizeOf(tip.path))}`);
    }
    return sizes.join('\n');
  }
}
