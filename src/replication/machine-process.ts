import type { MachineEvent, RunningMachine } from '../hypervisor/index.ts';
import { type MachinePresence, presenceOf } from './machine-presence.ts';

/** The process of a machine, as far as this site is connected to it, and those who want to hear of it. */
export class MachineProcess {
  /** What was found at the last look. */
  presence: MachinePresence = { state: 'stopped' };
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  #running: RunningMachine | undefined;

  get running(): RunningMachine | undefined {
    return this.#running;
  }

  /** From now on this is the machine's process, until it goes. */
  adopt(running: RunningMachine): void {
    this.#running = running;
    this.presence = presenceOf(running);
    const end = running.onEvent((event) => this.tell(event));
    void running.gone.then(() => {
      end();
      if (this.#running !== running) return;
      this.#running = undefined;
      this.presence = { state: 'stopped' };
      this.tell({ name: 'WARMSITE_GONE', data: {} });
    });
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
