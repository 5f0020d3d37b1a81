import { connectGuest, type Guest, type NicConfiguration, type RunningMachine } from '../hypervisor/index.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { unlessAborted } from '../lib/unless-aborted.ts';
import type { AgentPort } from './agent-port.ts';
import type { BranchChanges, NicAddresses } from './branch-changes.ts';
import { failoverFailure } from './errors.ts';

/** What a NIC of a guest was to have, and has by what its agent says. */
export interface ReaddressedNic {
  readonly nicId: string;
  readonly mac: string;
  /** As the guest calls it. */
  readonly interfaceName?: string;
  readonly wanted: NicAddresses;
  /** IPv4, with prefix lengths. */
  readonly found: readonly string[];
}

export interface ReaddressReport {
  readonly nics: readonly ReaddressedNic[];
  /** Why a NIC does not have what it was to have; may hold a guest's words. */
  readonly failure?: string;
  /** How often they were set: more than once where something in the guest had set others meanwhile. */
  readonly rounds: number;
}

/** The guest whose NICs get other addresses. */
export interface Readdressed {
  readonly machine: Pick<RunningMachine, 'sockets' | 'gone'>;
  readonly agentPort: Pick<AgentPort, 'opened'>;
  readonly clock: Clock;
  /** As the machine was started. */
  readonly nics: readonly NicConfiguration[];
  readonly changes: Pick<BranchChanges, 'addresses' | 'addressTool'>;
  /** Somebody may work in the guest: what has the addresses already is left alone, also for its gateway. */
  readonly isAtWork?: boolean;
}

/** What a guest takes by itself where nobody gives it an address. */
const LINK_LOCAL = '169.254.';
const ANSWER_MS = 5_000;
const COMMAND_MS = 30_000;
const PAUSE_MS = 300;
/** As long as a guest may take to boot for its probes. */
const LIMIT_MS = 180_000;
/** Something in a guest, such as the rest of its boot, may set other addresses: so often it is looked at while its probes are asked. */
const LOOK_EVERY_MS = 1_000;

/**
 * Gives the NICs of a guest the addresses that it is to have here, through its agent, and keeps them while `ask` asks its probes: what is
 * reported is what the agent reads back last. If they cannot be set, `ask` is not called. Rejects only when `signal` is aborted, or `ask` does.
 */
export async function whileReaddressed<T>(
  guest: Readdressed,
  ask: () => Promise<T>,
  outer?: AbortSignal,
): Promise<{ readonly asked: T | undefined; readonly report: ReaddressReport }> {
  const setting = new Setting(guest);
  if (!(await setting.settle(outer))) return { asked: undefined, report: setting.report };
  const over = new AbortController();
  const keeping = setting.keep(outer ? AbortSignal.any([outer, over.signal]) : over.signal);
  let asked: T;
  try {
    asked = await ask();
  } finally {
    over.abort();
    await keeping;
  }
  await setting.settle(outer);
  return { asked, report: setting.report };
}

class Setting {
  readonly #guest: Readdressed;
  #nics: readonly ReaddressedNic[] = [];
  #failure: string | undefined;
  #rounds = 0;
  /** NICs that were set here. */
  readonly #set = new Set<string>();

  constructor(guest: Readdressed) {
    this.#guest = guest;
  }

  get report(): ReaddressReport {
    return {
      nics: this.#nics,
      rounds: this.#rounds,
      ...(this.#failure === undefined ? {} : { failure: this.#failure }),
    };
  }

  /** Until it is so, as the agent says; false when it was not in time, or the machine has ended. Rejects when `outer` is aborted. */
  async settle(outer?: AbortSignal): Promise<boolean> {
    const { clock, machine, agentPort } = this.#guest;
    const ending = new AbortController();
    const give = (why: string) => ending.abort(failoverFailure('FAILOVER_PROBE_FAILED', why));
    const cancelTimer = clock.after(LIMIT_MS, () => give(`not within ${LIMIT_MS} ms`));
    void machine.gone.then(() => give('the machine has ended'));
    const signal = outer ? AbortSignal.any([outer, ending.signal]) : ending.signal;
    try {
      await unlessAborted(agentPort.opened, signal);
      while (!(await this.#once(signal))) await sleep(clock, PAUSE_MS, signal);
      this.#failure = undefined;
      return true;
    } catch (error) {
      if (outer?.aborted || !isFailure(error)) throw error;
      this.#failure = [messageOf(error), ...(this.#failure === undefined ? [] : [this.#failure])].join('; ');
      return false;
    } finally {
      cancelTimer();
    }
  }

  /** Until `signal` is aborted. */
  async keep(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        await sleep(this.#guest.clock, LOOK_EVERY_MS, signal);
        await this.#once(signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Looks, and sets what is not so. Whether all was so already. Rejects when `signal` is aborted. */
  async #once(signal: AbortSignal): Promise<boolean> {
    const { machine, clock } = this.#guest;
    try {
      await using agent = await connectGuest(machine.sockets, { clock, timeoutMs: ANSWER_MS, signal });
      this.#nics = await this.#look(agent, signal);
      const others = this.#nics.filter((nic) => !isSo(nic) || this.#owes(nic));
      if (others.length === 0) return true;
      this.#failure = others.map(saidOf).join('; ');
      const present = others.filter(({ interfaceName }) => interfaceName !== undefined);
      if (present.length > 0) this.#rounds += 1;
      for (const nic of present) await this.#setNic(agent, nic, signal);
    } catch (error) {
      if (signal.aborted || !isFailure(error)) throw error;
      this.#failure = messageOf(error);
    }
    return false;
  }

  async #look(agent: Guest, signal: AbortSignal): Promise<readonly ReaddressedNic[]> {
    const { nics, changes } = this.#guest;
    const interfaces = await agent.interfaces({ signal });
    return Object.entries(changes.addresses ?? {}).map(([nicId, wanted]) => {
      const { mac } = nics.find((nic) => nic.nicId === nicId)!;
      const there = interfaces.find(({ hardwareAddress }) => hardwareAddress?.toLowerCase() === mac);
      const found = (there?.addresses ?? []).flatMap(({ family, address, prefix }) =>
        family === 'ipv4' && !address.startsWith(LINK_LOCAL) ? [`${address}/${prefix}`] : [],
      );
      return { nicId, mac, ...(there ? { interfaceName: there.name } : {}), wanted, found };
    });
  }

  /** Of gateway and resolvers nothing is read back: they are set once. */
  #owes({ nicId, wanted: { gateway, dns } }: ReaddressedNic): boolean {
    return !this.#guest.isAtWork && !this.#set.has(nicId) && (gateway !== undefined || dns !== undefined);
  }

  async #setNic(agent: Guest, nic: ReaddressedNic, signal: AbortSignal): Promise<void> {
    for (const [command, ...args] of commandsFor(nic, this.#guest.changes.addressTool)) {
      const { exitCode, stdout, stderr } = await agent.exec(command!, args, {
        timeoutMs: COMMAND_MS,
        signal,
      });
      if (exitCode === 0) continue;
      this.#failure = `${command} ${args.join(' ')} ended with ${exitCode} in the guest: ${(stderr || stdout).trim().slice(0, 300)}`;
      return;
    }
    this.#set.add(nic.nicId);
  }
}

function isSo({ wanted, found }: ReaddressedNic): boolean {
  return wanted.addresses.length === found.length && wanted.addresses.every((one) => found.includes(one));
}

function saidOf({ nicId, mac, interfaceName, wanted, found }: ReaddressedNic): string {
  if (interfaceName === undefined) return `the guest shows no interface with the address ${mac} of ${nicId}`;
  return `${nicId} has ${found.join(', ') || 'no address'} in the guest, and not ${wanted.addresses.join(', ')}`;
}

/** Resolvers go to systemd-resolved where that is in charge, and else into the file that programs read. */
const SET_RESOLVERS = `i=$1; shift
if [ -L /etc/resolv.conf ] && command -v resolvectl > /dev/null; then exec resolvectl dns "$i" "$@"; fi
for d; do echo "nameserver $d"; done > /etc/resolv.conf`;

/**
 * What is run in the guest to give a NIC its addresses; pure. By itself it is iproute2 of Linux, which lasts until the guest starts again; a
 * tool of the guest gets the interface, the addresses, the gateway and the resolvers, each list with commas, «-» for nothing.
 */
export function commandsFor(
  {
    interfaceName = '',
    wanted: { addresses, gateway, dns = [] },
  }: Pick<ReaddressedNic, 'interfaceName' | 'wanted'>,
  tool: string | undefined,
): readonly (readonly string[])[] {
  if (tool !== undefined) {
    return [[tool, interfaceName, addresses.join(','), gateway ?? '-', dns.join(',') || '-']];
  }
  return [
    ['ip', '-4', 'address', 'flush', 'dev', interfaceName],
    ['ip', 'link', 'set', 'dev', interfaceName, 'up'],
    ...addresses.map((address) => ['ip', 'address', 'add', address, 'dev', interfaceName]),
    ...(gateway === undefined
      ? []
      : [['ip', 'route', 'replace', 'default', 'via', gateway, 'dev', interfaceName]]),
    ...(dns.length === 0 ? [] : [['/bin/sh', '-c', SET_RESOLVERS, 'sh', interfaceName, ...dns]]),
  ];
}
