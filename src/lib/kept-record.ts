import { isFailure, messageOf } from './errors.ts';
import type { Log } from './log.ts';

/** Where a record lies. */
export interface RecordPlace<T> {
  /** Durable on return. If it throws, the old record may be there or the new one, and which of them survives a power cut nobody knows. */
  readonly store: (record: T) => Promise<void>;
  readonly load: () => Promise<T | undefined>;
  readonly log: Log;
}

/**
 * A record of this process and in its file, for decisions that must not be forgotten: what others were promised, and what must not be done
 * any more.
 *
 * When such a decision could not be stored, it may be in the file all the same, and the next process would go by it. So does this one, as
 * if it had been stored; and nothing is done upon it, nor said, before it has been stored again: see `settle`.
 */
export class KeptRecord<T extends object> {
  readonly #place: RecordPlace<T>;
  #now: T;
  #isUnsettled = false;

  constructor(place: RecordPlace<T>, now: T) {
    this.#place = place;
    this.#now = now;
  }

  get now(): T {
    return this.#now;
  }

  /** What is known here may not survive a power cut. */
  get isUnsettled(): boolean {
    return this.#isUnsettled;
  }

  /** Durable on return; if it throws, it counts as not having been. */
  async store(record: T): Promise<void> {
    await this.#place.store(record);
    this.#now = record;
    this.#isUnsettled = false;
  }

  /** As `store`, of a decision: if it throws, the decision counts unless it is certain that it is not in the file. */
  async decide(record: T): Promise<void> {
    try {
      await this.store(record);
    } catch (error) {
      if (await this.#mayBeThere(record)) {
        this.#now = record;
        this.#isUnsettled = true;
      }
      throw error;
    }
  }

  /** For what is so, whatever the file says: it counts from now on, and is stored now or with the next change. */
  async correct(record: T): Promise<void> {
    try {
      await this.store(record);
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#now = record;
      this.#place.log.warn('record.not-corrected', { reason: messageOf(error) });
    }
  }

  /** Makes durable what counts here. To be called before anything is done upon a decision, or said of it. */
  async settle(): Promise<void> {
    if (this.#isUnsettled) await this.store(this.#now);
  }

  async #mayBeThere(record: T): Promise<boolean> {
    try {
      const there = await this.#place.load();
      return JSON.stringify(there) === JSON.stringify(record);
    } catch (error) {
      this.#place.log.warn('record.unread', { reason: messageOf(error) });
      return true;
    }
  }
}
