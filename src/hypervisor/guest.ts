import type { Clock } from '../lib/clock.ts';
import { systemRandom } from '../lib/random.ts';
import { GuestAgent } from '../qmp/index.ts';
import { hypervisorFailure } from './errors.ts';
import type { MachineSockets } from './hypervisor.ts';

/** A guest as its own agent shows it. What it says is a stranger's word. */
export type Guest = Pick<
  GuestAgent,
  'ping' | 'exec' | 'readFile' | 'interfaces' | 'shutdown' | 'close' | typeof Symbol.asyncDispose
>;

/**
 * Talks to the guest of a machine through its agent. One client is served at a time: keep the connection no longer
 * than needed, never while a quiesced cut is made. Throws MACHINE_NOT_RUNNING for a machine without an agent's port,
 * QMP_AGENT_UNREACHABLE when the machine has gone, QMP_AGENT_NO_ANSWER when nobody answers within `timeoutMs`.
 */
export async function connectGuest(
  sockets: MachineSockets,
  o: { readonly clock: Clock; readonly timeoutMs: number; readonly signal?: AbortSignal },
): Promise<Guest> {
  if (sockets.agentPath === undefined) {
    throw hypervisorFailure('MACHINE_NOT_RUNNING', 'the machine has no port for a guest agent');
  }
  // Chance only tells one synchronisation from another here; nothing depends on its values.
  return GuestAgent.connect({ path: sockets.agentPath, random: systemRandom, ...o });
}
