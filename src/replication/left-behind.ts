import type { MachineEvent, RunningMachine } from '../hypervisor/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { ProtectedChain } from './protected-chain.ts';

/** A guest that answers at all answers this soon, also on a busy host. */
const AGENT_ANSWER_MS = 5_000;

/**
 * Ends in the guest what an earlier process of ours has left there: it may have been killed together with the freeze guard, and
 * the guest stands still since then; or it owes hooks. Never throws. Nobody waits for this: a guest agent that does not answer
 * must hold nothing up.
 */
export async function endLeftBehind(
  log: Log,
  machine: string,
  chain: Pick<ProtectedChain, 'mayHaveFrozen' | 'owedHooks'>,
  running: RunningMachine,
  tell: (event: MachineEvent) => void,
): Promise<void> {
  // A guest that is frozen without a word of ours is somebody else's, a backup tool's perhaps, and left alone.
  if (chain.mayHaveFrozen) await thaw(log, machine, running, tell);
  try {
    const left = await chain.owedHooks.settle(running);
    if (left !== undefined) log.warn('hooks.owed', { machine, reason: left });
  } catch (error) {
    log.error('hooks.owed', { machine, reason: messageOf(error) });
  }
}

async function thaw(
  log: Log,
  machine: string,
  running: RunningMachine,
  tell: (event: MachineEvent) => void,
): Promise<void> {
  try {
    if ((await running.thawAbandoned(AGENT_ANSWER_MS)) !== 'thawed') return;
    log.warn('machine.thawed', { machine, reason: 'it was found frozen, with nobody left to thaw it' });
    tell({ name: 'WARMSITE_THAWED', data: {} });
  } catch (error) {
    log.error('machine.left-frozen', { machine, reason: messageOf(error) });
    tell({ name: 'WARMSITE_LEFT_FROZEN', data: { error } });
  }
}
