import type { FileSystem } from '../../lib/files.ts';
import { countsAs } from '../../recovery-point/index.ts';
import { type CutRecord, grownTogether, type ProtectedMachine, tipGrowth } from '../../replication/index.ts';

type WatchedMachine = Pick<ProtectedMachine, 'record' | 'cuts'> & {
  readonly running: Pick<NonNullable<ProtectedMachine['running']>, 'watchTips'> | undefined;
};

/** How far a type is from the copy that its policy wants after so much. */
export interface WriteProgress {
  readonly copyType: string;
  /** Since its last copy; of a copy that is owed but cannot be made just now this is more than `dueBytes`. */
  readonly writtenBytes: number;
  readonly dueBytes: number;
}

/** Several disks share what is still to be written; below this they are not told apart. */
const STEP_BYTES_MIN = 1024 * 1024;

/**
 * Finds out when the guest has written as much as a trigger of the policy waits for. What counts is by how much the layers
 * have grown, over all disks together. The machine tells when the file of a tip passes an offset; of what is left to be
 * written each disk is given its share, and when one has used up its own, what is left is shared out anew. So the number of
 * looks grows with the logarithm of the amount, and a machine that writes nothing is never asked.
 */
export class WriteWatch {
  readonly #machine: WatchedMachine;
  readonly #files: Pick<FileSystem, 'sizeOf'>;
  readonly #reached: (copyType: string) => void;
  /** By copy type: what layers have grown by that were sealed since its last copy. */
  readonly #sealed = new Map<string, number>();
  /** Types that have been asked for and not been copied since. */
  readonly #told = new Set<string>();

  constructor(o: {
    machine: WatchedMachine;
    files: Pick<FileSystem, 'sizeOf'>;
    /** So much has been written that a copy of this type is due; told once until there is one. */
    reached: (copyType: string) => void;
  }) {
    this.#machine = o.machine;
    this.#files = o.files;
    this.#reached = o.reached;
  }

  /** Counts what lies in layers that an earlier process of ours has sealed. */
  begin(): void {
    for (const cut of this.#machine.cuts) this.copied(cut);
  }

  /** A copy has been made: for its type, and those that it counts as, counting begins anew. */
  copied({ copyType, grownBytes = 0 }: Pick<CutRecord, 'copyType' | 'grownBytes'>): void {
    for (const wanted of this.#limits.keys()) {
      if (countsAs(copyType, wanted)) this.passed(wanted);
      else this.#sealed.set(wanted, (this.#sealed.get(wanted) ?? 0) + grownBytes);
    }
  }

  /** There was nothing to copy. */
  passed(copyType: string): void {
    this.#sealed.delete(copyType);
    this.#told.delete(copyType);
  }

  /**
   * Measures, tells what has been reached, and has the machine tell when it is worth while to measure again. To be asked
   * after each copy and whenever machine, process or policy may be other ones than before.
   */
  async look(): Promise<void> {
    // Most policies wait for the clock alone: their copies need not cost a look at every tip.
    while (this.#limits.size > 0) {
      const { cuts, record } = this.#machine;
      const tips = await tipGrowth(this.#files, record.disks, cuts);
      // A copy has been made meanwhile: there are other tips now.
      if (cuts !== this.#machine.cuts) continue;
      const leftBytes = this.#tell(grownTogether(tips));
      const { running } = this.#machine;
      if (!running || leftBytes === undefined || tips.length === 0) return;
      const stepBytes = Math.max(Math.ceil(leftBytes / tips.length), Math.min(leftBytes, STEP_BYTES_MIN));
      const offsets = Object.fromEntries(
        tips.map(({ deviceName, fileBytes }) => [deviceName, fileBytes + stepBytes - 1]),
      );
      await running.watchTips(offsets);
      // What was written before the machine watched is told by nobody.
      const now = await tipGrowth(this.#files, record.disks, cuts);
      const hasPassed = now.some(({ deviceName, fileBytes }) => fileBytes > (offsets[deviceName] ?? 0));
      if (!hasPassed && cuts === this.#machine.cuts) return;
    }
  }

  /** Measures for whoever wants to know; nothing is told or begun by it. */
  async progress(): Promise<WriteProgress[]> {
    while (this.#limits.size > 0) {
      const { cuts, record } = this.#machine;
      const grownBytes = grownTogether(await tipGrowth(this.#files, record.disks, cuts));
      // A copy has been made meanwhile: there are other tips now.
      if (cuts !== this.#machine.cuts) continue;
      return [...this.#limits].map(([copyType, dueBytes]) => ({
        ...{ copyType, dueBytes },
        writtenBytes: this.#writtenBytes(copyType, grownBytes),
      }));
    }
    return [];
  }

  /** Tells the types that are due; returns how much may be written before the next one is. */
  #tell(grownBytes: number): number | undefined {
    const waiting: number[] = [];
    for (const [copyType, bytes] of this.#limits) {
      if (this.#told.has(copyType)) continue;
      const leftBytes = bytes - this.#writtenBytes(copyType, grownBytes);
      if (leftBytes > 0) {
        waiting.push(leftBytes);
        continue;
      }
      this.#told.add(copyType);
      this.#reached(copyType);
    }
    return waiting.length > 0 ? Math.min(...waiting) : undefined;
  }

  #writtenBytes(copyType: string, grownBytes: number): number {
    return (this.#sealed.get(copyType) ?? 0) + grownBytes;
  }

  /** By copy type: after how many bytes a copy is due. */
  get #limits(): ReadonlyMap<string, number> {
    const limits = new Map<string, number>();
    for (const { copyType, triggers } of this.#machine.record.protection?.schedules ?? []) {
      const amounts = triggers.flatMap((trigger) => (trigger.kind === 'written' ? [trigger.bytes] : []));
      if (amounts.length > 0) limits.set(copyType, Math.min(...amounts));
    }
    return limits;
  }
}
