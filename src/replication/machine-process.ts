import type { MachineEvent, RunningMachine } from '../hypervisor/index.ts';
import { isFailure } from '../lib/errors.ts';
import { guestPresence, type MachinePresence, presenceOf } from './machine-presence.ts';
import type { MachineRecord } from './records.ts';

/** The process of a machine, as far as this site is connected to it, and those who want to hear of it. */
export class MachineProcess {
  /** What was found at the last look. */
  presence: MachinePresence = { state: 'stopped', isUnseen: true };
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  #running: RunningMachine | undefined;

  get running(): RunningMachine | undefined {
    return this.#running;
  }

  /** From now on this is the machine's process, until it goes. */
  adopt(running: RunningMachine): void {
    this.#running = running;
    this.presence = presenceOf(running);
    const end = running.onEvent((event) => {
      if (event.name === 'RESUME' && this.presence.state === 'running') this.presence = presenceOf(running);
      this.tell(event);
    });
    void running.gone.then(() => {
      end();
      if (this.#running !== running) return;
      this.#running = undefined;
      this.presence = { state: 'stopped' };
      this.tell({ name: 'WARMSITE_GONE', data: {} });
    });
  }

  /** Finds out whether the guest of a machine that is connected stands still. */
  async lookAtGuest(record: MachineRecord): Promise<MachinePresence> {
    const running = this.#running;
    if (!running || this.presence.state !== 'running') return this.presence;
    try {
      const presence = await guestPresence(running, record);
      if (this.#running === running) this.presence = presence;
    } catch (error) {
      // A process that has gone meanwhile is told of by its end.
      if (!isFailure(error, 'QMP_DISCONNECTED')) throw error;
    }
    return this.presence;
  }

  async continueGuest({ dissolving }: MachineRecord): Promise<boolean> {
    const running = this.#running;
    if (!running || this.presence.state !== 'running' || dissolving) return false;
    if ((await running.standstill())?.why !== 'no-space') return false;
    await running.resume();
    return true;
  }

  /** What stood in the way of its being taken for what it is has been removed. */
  recover(): void {
    if (this.presence.state === 'stale') this.presence = presenceOf(this.#running);
  }

  /** Lets go of the process; it runs on, and nobody is told. */
  async release(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.disconnect();
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
