import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import { systemRandom } from '../../lib/random.ts';
import { type ExecResult, GuestAgent } from '../../qmp/index.ts';
import type { GuestCommand, GuestCommandReport } from '../hypervisor.ts';

const CONNECT_LIMIT_MS = 5_000;
const KILL_LIMIT_MS = 5_000;
const OUTPUT_BYTES_MAX = 4096;

/** See `RunningMachine.runInGuest`. */
export async function runInGuest(
  agentPath: string | undefined,
  command: GuestCommand,
  clock: Clock,
): Promise<GuestCommandReport> {
  if (agentPath === undefined) return { outcome: 'not-begun', reason: 'the machine has no guest agent' };
  let agent: GuestAgent;
  try {
    agent = await GuestAgent.connect({
      path: agentPath,
      clock,
      random: systemRandom,
      timeoutMs: Math.min(CONNECT_LIMIT_MS, command.limitMs),
    });
  } catch (error) {
    if (!isFailure(error)) throw error;
    return { outcome: 'not-begun', reason: `the guest agent does not answer: ${error.message}` };
  }
  try {
    return await runThrough(agent, command);
  } finally {
    await agent.close();
  }
}

async function runThrough(agent: GuestAgent, o: GuestCommand): Promise<GuestCommandReport> {
  let processId: number | undefined;
  try {
    const { exitCode, ...printed } = await agent.exec(o.command, o.arguments, {
      timeoutMs: o.limitMs,
      captureBytesMax: OUTPUT_BYTES_MAX,
      onStarted: (id) => {
        processId = id;
      },
      ...(o.input === undefined ? {} : { input: o.input }),
    });
    return { outcome: 'ended', exitCode, output: outputOf(printed) };
  } catch (error) {
    if (!isFailure(error)) throw error;
    if (processId !== undefined) await kill(agent, processId);
    const isCertain = isFailure(error, 'QMP_AGENT_NO_ANSWER', 'QMP_AGENT_COMMAND_FAILED');
    return {
      outcome: processId === undefined && isCertain ? 'not-begun' : 'lost',
      reason: error.message,
    };
  }
}

function outputOf({ stdout, stderr, truncated }: Omit<ExecResult, 'exitCode'>): string {
  const whole = [stdout, stderr].filter((text) => text !== '').join('\n');
  const kept = whole.slice(0, OUTPUT_BYTES_MAX).toWellFormed();
  return truncated || kept.length < whole.length ? `${kept}\n[cut off]` : kept;
}

/** The agent itself cannot end what it has started. What does not know `/bin/sh` goes on. */
async function kill(agent: GuestAgent, processId: number): Promise<void> {
  try {
    await agent.exec('/bin/sh', ['-c', 'kill -9 "$0"', String(processId)], { timeoutMs: KILL_LIMIT_MS });
  } catch (error) {
    if (!isFailure(error)) throw error;
    // Why the program was to be ended is told; that it could not be adds nothing that a person can act on.
  }
}
