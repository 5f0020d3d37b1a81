import type { RunningMachine } from '../hypervisor/index.ts';

/**
 * Knows whether a guest has its agent's port open, from the machine's events. Must be made before the guest runs:
 * nobody tells later what was opened earlier.
 */
export class AgentPort {
  #open = false;
  #opened = Promise.withResolvers<void>();
  readonly #unsubscribe: () => void;

  constructor(machine: Pick<RunningMachine, 'onEvent'>) {
    this.#unsubscribe = machine.onEvent(({ name, data }) => {
      // Branches are started by us: the agent's is the only port with an id.
      if (name === 'VSERPORT_CHANGE') this.#changed(data.open === true);
    });
  }

  #changed(open: boolean): void {
    if (open === this.#open) return;
    this.#open = open;
    if (open) this.#opened.resolve();
    else this.#opened = Promise.withResolvers<void>();
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Resolves as soon as the port is open: at once if it is. */
  get opened(): Promise<void> {
    return this.#opened.promise;
  }

  close(): void {
    this.#unsubscribe();
  }
}
