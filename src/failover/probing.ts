import { connectGuest, type RunningMachine, runPaths } from '../hypervisor/index.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { runCommand } from '../lib/processes.ts';
import { unlessAborted } from '../lib/unless-aborted.ts';
import type { AgentPort } from './agent-port.ts';
import { failoverFailure } from './errors.ts';
import { addressBridge, type NetworkReport } from './network.ts';
import { limitOf, type Probe, type ProbeResult, patternOf, probingAddress } from './probe.ts';
import { serialLineMatching } from './serial-log.ts';
import { CONNECT_PROGRAM } from './tcp-connect-main.ts';

/** An agent that has its port open and is silent is asked again after this time. */
const AGENT_ANSWER_MS = 5_000;
const AGENT_PAUSE_MS = 200;

/** The machine whose guest is asked. */
export interface Probed {
  readonly machine: Pick<RunningMachine, 'sockets' | 'gone' | 'state' | 'onEvent'>;
  readonly agentPort: Pick<AgentPort, 'opened'>;
  readonly runDirectory: string;
  readonly network: NetworkReport;
  readonly clock: Clock;
  /** When the guest's CPUs began to run, monotonic. */
  readonly runningSinceMs: number;
}

/**
 * Asks everything at once and resolves when every probe has been decided; a machine that ends, or crashes, decides them all. In the
 * order of `probes`. Rejects only when `signal` is aborted.
 */
export async function runProbes(
  probed: Probed,
  probes: readonly Probe[],
  signal?: AbortSignal,
): Promise<ProbeResult[]> {
  const crash = watchedForCrash(probed.machine);
  try {
    return await Promise.all(probes.map((probe) => runProbe(probed, probe, crash.happened, signal)));
  } finally {
    crash.unwatch();
  }
}

/** A guest whose processor has stopped for good stays as it is: nothing would be heard of it before every limit has passed. */
function watchedForCrash(machine: Probed['machine']): { happened: Promise<void>; unwatch: () => void } {
  const { promise: happened, resolve } = Promise.withResolvers<void>();
  const look = async () => {
    try {
      if ((await machine.state()) === 'crashed') resolve();
    } catch (error) {
      // One that cannot be asked has ended, which is told by itself, or is silent: then the limits decide.
      if (!isFailure(error)) throw error;
    }
  };
  const unwatch = machine.onEvent(({ name }) => {
    if (name === 'STOP') void look();
  });
  void look();
  return { happened, unwatch };
}

async function runProbe(
  probed: Probed,
  probe: Probe,
  crashed: Promise<void>,
  outer?: AbortSignal,
): Promise<ProbeResult> {
  const { clock, runningSinceMs } = probed;
  const ending = new AbortController();
  const give = (why: string) => ending.abort(failoverFailure('FAILOVER_PROBE_FAILED', why));
  const limitMs = limitOf(probe);
  const leftMs = limitMs - (clock.monotonicMs() - runningSinceMs);
  const cancelTimer = clock.after(leftMs, () => give(`no success within ${limitMs} ms`));
  void probed.machine.gone.then(() => give('the machine has ended'));
  void crashed.then(() => give('the machine has crashed'));
  const signal = outer ? AbortSignal.any([outer, ending.signal]) : ending.signal;
  try {
    await unlessAborted(askUntilPassed(probed, probe, signal), signal);
    return { probe, passed: true, durationMs: clock.monotonicMs() - runningSinceMs };
  } catch (error) {
    if (outer?.aborted || !isFailure(error)) throw error;
    return {
      probe,
      passed: false,
      durationMs: clock.monotonicMs() - runningSinceMs,
      reason: messageOf(error),
    };
  } finally {
    cancelTimer();
    // Whatever still asks lets go now.
    give('the probe has been decided');
  }
}

function askUntilPassed(probed: Probed, probe: Probe, signal: AbortSignal): Promise<unknown> {
  switch (probe.kind) {
    case 'agent':
      return agentAnswers(probed, signal);
    case 'serial':
      return serialLineMatching(runPaths(probed.runDirectory).serialPath, patternOf(probe.pattern), signal);
    case 'tcp':
      return tcpConnects(probed, probe, signal);
  }
}

async function agentAnswers({ machine, agentPort, clock }: Probed, signal: AbortSignal): Promise<void> {
  for (;;) {
    await unlessAborted(agentPort.opened, signal);
    try {
      await using guest = await connectGuest(machine.sockets, {
        clock,
        timeoutMs: AGENT_ANSWER_MS,
        signal,
      });
      await guest.ping({ signal });
      return;
    } catch (error) {
      const mayComeUp = isFailure(error) && error.code.startsWith('QMP_AGENT_') && !signal.aborted;
      if (!mayComeUp) throw error;
    }
    await sleep(clock, AGENT_PAUSE_MS, signal);
  }
}

async function tcpConnects(
  { network }: Probed,
  probe: Extract<Probe, { kind: 'tcp' }>,
  signal: AbortSignal,
): Promise<void> {
  const target = [process.execPath, CONNECT_PROGRAM, probe.host, String(probe.port), String(limitOf(probe))];
  if (network.kind === 'unplugged') {
    throw failoverFailure('FAILOVER_PROBE_FAILED', 'there is no network to connect from');
  }
  if (network.kind === 'connected') {
    // As whoever uses the machine from this host: by its addresses and routes.
    const [command, ...args] = target;
    await runCommand(command!, args, { signal });
    return;
  }
  const { namespace, bridges } = network;
  const bridge = probe.network === undefined ? Object.values(bridges)[0] : bridges[probe.network];
  if (bridge === undefined) {
    throw failoverFailure(
      'FAILOVER_PROBE_FAILED',
      `the machine has no NIC in the network «${probe.network}»`,
    );
  }
  await addressBridge(namespace, bridge, probingAddress(probe));
  await runCommand('ip', ['netns', 'exec', namespace, ...target], { signal });
}
