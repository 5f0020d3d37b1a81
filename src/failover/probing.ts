import { connectGuest, type RunningMachine, runPaths } from '../hypervisor/index.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { runCommand } from '../lib/processes.ts';
import { unlessAborted } from '../lib/unless-aborted.ts';
import {
  limitOf,
  type NetworkProbe,
  type Probe,
  type ProbeResult,
  patternOf,
  probingAddress,
  sqlClientOf,
} from '../probe/index.ts';
import type { AgentPort } from './agent-port.ts';
import { failoverFailure } from './errors.ts';
import { HTTP_PROGRAM, type HttpQuestion } from './http-ask-main.ts';
import { addressBridge, type NetworkReport } from './network.ts';
import { serialLineMatching } from './serial-log.ts';
import type { SitePrograms } from './site-programs.ts';
import { CONNECT_PROGRAM } from './tcp-connect-main.ts';

/** An agent that has its port open and is silent is asked again after this time. */
const AGENT_ANSWER_MS = 5_000;
const AGENT_PAUSE_MS = 200;
/** Programs that did not answer as wished are run again after this time. */
const ASK_AGAIN_MS = 300;
/** A program of the guest that takes longer is ended and run again. */
const GUEST_TRY_MS_MAX = 30_000;
/** So long before its limit a process that asks gives up, so that it can say why: it counts from when it has begun. */
const LAST_WORDS_MS = 1_000;
const NOTE_CHARACTERS_MAX = 500;

/** The machine whose guest is asked. */
export interface Probed {
  readonly machine: Pick<RunningMachine, 'sockets' | 'gone' | 'state' | 'onEvent' | 'runInGuest'>;
  readonly agentPort: Pick<AgentPort, 'opened'>;
  readonly runDirectory: string;
  readonly network: NetworkReport;
  /** Nothing of it may be asked of what is at work. */
  readonly isIsolated: boolean;
  /** What the operator lets this host run, and what such a program is told of the machine. */
  readonly programs: Pick<SitePrograms, 'run'>;
  readonly environment: Readonly<Record<string, string>>;
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
  let said: string | undefined;
  const note = (words: string) => {
    said = words.slice(0, NOTE_CHARACTERS_MAX).trim();
  };
  try {
    await unlessAborted(askUntilPassed(probed, probe, note, signal), signal);
    return { probe, passed: true, durationMs: clock.monotonicMs() - runningSinceMs };
  } catch (error) {
    if (outer?.aborted || !isFailure(error)) throw error;
    return {
      probe,
      passed: false,
      durationMs: clock.monotonicMs() - runningSinceMs,
      reason: [messageOf(error), ...(said === undefined ? [] : [`the last time ${said}`])].join('; '),
    };
  } finally {
    cancelTimer();
    // Whatever still asks lets go now.
    give('the probe has been decided');
  }
}

/** `note` is told why the last answer was not the right one. */
function askUntilPassed(
  probed: Probed,
  probe: Probe,
  note: (said: string) => void,
  signal: AbortSignal,
): Promise<unknown> {
  switch (probe.kind) {
    case 'agent':
      return agentAnswers(probed, signal);
    case 'serial':
      return serialLineMatching(runPaths(probed.runDirectory).serialPath, patternOf(probe.pattern), signal);
    case 'tcp':
      return tcpConnects(probed, probe, signal);
    case 'http':
      return webAnswers(probed, probe, signal);
    case 'guest':
      return guestSays(probed, [probe.command, ...(probe.arguments ?? [])], probe, note, signal);
    case 'sql':
      return guestSays(probed, sqlClientOf(probe), probe, note, signal);
    case 'script':
      return programAgrees(probed, probe, note, signal);
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
  probed: Probed,
  probe: Extract<Probe, { kind: 'tcp' }>,
  signal: AbortSignal,
): Promise<void> {
  const inside = await placeOf(probed, probe);
  const target = [process.execPath, CONNECT_PROGRAM, probe.host, String(probe.port), String(limitOf(probe))];
  const [command, ...args] = [...inside, ...target];
  await runCommand(command!, args, { signal });
}

async function webAnswers(
  probed: Probed,
  probe: Extract<Probe, { kind: 'http' }>,
  signal: AbortSignal,
): Promise<void> {
  const inside = await placeOf(probed, probe);
  const { url, status, pattern, name } = probe;
  const leftMs = leftOf(probed, probe);
  const limitMs = Math.max(1, leftMs - Math.min(LAST_WORDS_MS, leftMs / 2));
  const question: HttpQuestion = {
    ...{ url, limitMs },
    ...(status === undefined ? {} : { status }),
    ...(pattern === undefined ? {} : { pattern }),
    ...(name === undefined ? {} : { name }),
  };
  const target = [process.execPath, HTTP_PROGRAM, JSON.stringify(question)];
  const [command, ...args] = [...inside, ...target];
  const { exitCode, stderr } = await runCommand(command!, args, { signal, allowExit: [1] });
  if (exitCode !== 0) throw failoverFailure('FAILOVER_PROBE_FAILED', `${url}: ${stderr.slice(-2000)}`);
}

/**
 * What is put before a command that asks over the network: it is run in the isolated network, in which this host takes an address for it; or,
 * as whoever uses the machine from this host, by its addresses and routes.
 */
async function placeOf({ network }: Probed, probe: NetworkProbe): Promise<readonly string[]> {
  if (network.kind === 'unplugged') {
    throw failoverFailure('FAILOVER_PROBE_FAILED', 'there is no network to connect from');
  }
  if (network.kind === 'connected') return [];
  const { namespace, bridges } = network;
  const bridge = probe.network === undefined ? Object.values(bridges)[0] : bridges[probe.network];
  if (bridge === undefined) {
    throw failoverFailure(
      'FAILOVER_PROBE_FAILED',
      `the machine has no NIC in the network «${probe.network}»`,
    );
  }
  await addressBridge(namespace, bridge, probingAddress(probe));
  return ['ip', 'netns', 'exec', namespace];
}

function leftOf({ clock, runningSinceMs }: Probed, probe: Probe): number {
  return limitOf(probe) - (clock.monotonicMs() - runningSinceMs);
}

/** Runs a program in the guest again and again, until it says what it is to say. */
async function guestSays(
  probed: Probed,
  [command, ...args]: readonly string[],
  probe: Extract<Probe, { kind: 'guest' | 'sql' }>,
  note: (said: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const wanted = probe.pattern === undefined ? undefined : patternOf(probe.pattern);
  await unlessAborted(probed.agentPort.opened, signal);
  for (;;) {
    const limitMs = Math.max(1, Math.min(GUEST_TRY_MS_MAX, leftOf(probed, probe)));
    const ended = await probed.machine.runInGuest({ command: command!, arguments: args, limitMs });
    if (ended.outcome !== 'ended') note(ended.reason);
    else if (ended.exitCode !== 0) note(`exit code ${ended.exitCode}: ${ended.output}`);
    else if (wanted && !wanted.test(ended.output)) note(`it says: ${ended.output}`);
    else return;
    await sleep(probed.clock, ASK_AGAIN_MS, signal);
  }
}

/** Runs a program of this site again and again, until it ends well. */
async function programAgrees(
  probed: Probed,
  probe: Extract<Probe, { kind: 'script' }>,
  note: (said: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { network, isIsolated, programs, environment } = probed;
  if (isIsolated && network.kind !== 'isolated')
    throw failoverFailure('FAILOVER_PROBE_FAILED', 'there is no isolated network to ask from');
  const namespace = network.kind === 'isolated' ? network.namespace : undefined;
  for (;;) {
    const limitMs = Math.max(1, leftOf(probed, probe));
    const { outcome, exitCode, output } = await programs.run(probe.program, {
      ...{ limitMs, namespace, signal },
      environment: { ...environment, WARMSITE_NETWORK: network.kind },
    });
    if (outcome === 'ended' && exitCode === 0) return;
    note(outcome === 'ended' ? `exit code ${exitCode}: ${output}` : `it did not end: ${output}`);
    await sleep(probed.clock, ASK_AGAIN_MS, signal);
  }
}
