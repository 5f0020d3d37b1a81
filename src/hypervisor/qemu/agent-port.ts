import { isFailure } from '../../lib/errors.ts';
import type { QmpClient } from '../../qmp/index.ts';

/** By which qemu-ga finds its port, unless it is told another. */
const AGENT_PORT = 'org.qemu.guest_agent.0';

export interface AgentWatch {
  /** Whether the agent has ended, or another one has started, since the watch began; also if nobody can say. */
  hasChanged(): Promise<boolean>;
  close(): void;
}

/**
 * Hears whether the guest closed or opened its agent's port: nobody does but an agent that ends or starts. QEMU tells it of
 * ports whose device has an id, at once unless it told another change of the same port less than a second ago; then that
 * change is heard, the last of several.
 */
export class AgentPortWatch implements AgentWatch {
  readonly #qmp: QmpClient;
  /** Devices of all ports that have changed. */
  readonly #changed = new Set<string>();
  readonly #end: () => void;

  constructor(qmp: QmpClient) {
    this.#qmp = qmp;
    this.#end = qmp.subscribe(({ event, data }) => {
      if (event === 'VSERPORT_CHANGE') this.#changed.add(String(data.id));
    });
  }

  async hasChanged(): Promise<boolean> {
    try {
      // What QEMU has told lies before its answer on the same connection.
      await this.#qmp.execute('query-status');
      for (const id of this.#changed) {
        const path = `/machine/peripheral/${id}`;
        if ((await this.#qmp.execute('qom-get', { path, property: 'name' })) === AGENT_PORT) return true;
      }
      return false;
    } catch (error) {
      if (!isFailure(error)) throw error;
      return true;
    }
  }

  close(): void {
    this.#end();
  }
}
