import type { FileSystem } from '../lib/files.ts';
import type { LoopMachine } from './replication-loop.ts';

type TippedMachine = Pick<LoopMachine, 'record' | 'presence' | 'cuts' | 'chain' | 'hasUncutChanges'>;

/** Whether there is anything to copy of a machine: one that does not run and whose tips hold nothing has nothing. */
export class Tips {
  readonly #machine: TippedMachine;
  readonly #files: Pick<FileSystem, 'sizeOf'>;
  /** Sizes of the tips of the stopped machine when they were last seen to hold nothing. */
  #empty: string | undefined;

  constructor(machine: TippedMachine, files: Pick<FileSystem, 'sizeOf'>) {
    this.#machine = machine;
    this.#files = files;
  }

  /** The machine is stopped, as far as was seen last, and every byte of it has been copied. */
  get areEmpty(): boolean {
    return this.#empty !== undefined;
  }

  async reasonNotToCut(): Promise<string | undefined> {
    const { presence, cuts } = this.#machine;
    if (presence.state === 'stale' || presence.state === 'unreachable') return presence.reason;
    if (presence.state === 'running') {
      this.#empty = undefined;
      return undefined;
    }
    const nothing = 'the machine does not run and nothing was written since the last copy';
    if (cuts.length > 0 && (await this.#sizes()) === this.#empty) return nothing;
    // Also asked before the first copy: it fails while another process writes the files.
    const hasChanges = await this.#machine.hasUncutChanges();
    if (hasChanges || cuts.length === 0) return undefined;
    this.#empty = await this.#sizes();
    return nothing;
  }

  /** A copy has been made: the tips are new. */
  async sealed(): Promise<void> {
    this.#empty = this.#machine.presence.state === 'stopped' ? await this.#sizes() : undefined;
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
