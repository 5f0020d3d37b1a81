import { createHash } from 'node:crypto';
import type { NetworkAttachment, NicConfiguration } from '../hypervisor/index.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { ownOf } from '../lib/own.ts';
import { runCommand } from '../lib/processes.ts';
import { failoverFailure } from './errors.ts';

/** What a NIC of a machine that fails over is connected to: a tap that exists, or a bridge that gets a tap of ours. */
export type NicMapping = NetworkAttachment | { readonly kind: 'bridge'; readonly bridge: string };

/** How the NICs of a branch are connected. */
export type NetworkReport =
  /** A namespace of its own without any way out; one bridge for each network of the protected site. */
  | {
      readonly kind: 'isolated';
      readonly namespace: string;
      readonly bridges: Readonly<Record<string, string>>;
    }
  /** No cable is plugged. */
  | { readonly kind: 'unplugged'; readonly reason: string }
  /** Connected to networks of this host; NICs that nobody mapped are unplugged. */
  | { readonly kind: 'connected'; readonly unplugged: readonly string[] };

/** What a machine is started with, and what is told about it. */
export interface BranchNetwork {
  readonly report: NetworkReport;
  readonly attachments: Readonly<Record<string, NetworkAttachment>>;
}

/** Networks of branches: each found by the id of its branch, without any record of it. Every method may be repeated. */
export interface BranchNetworks {
  /** A network of its own without any way out; where none can be made the cables stay unplugged, with the reason. */
  isolate(branchId: string, nics: readonly NicConfiguration[]): Promise<BranchNetwork>;
  /** Plugs NICs in where `mappings` says. Throws PROCESS_FAILED when that is missing: a failover must not start half connected. */
  connect(
    branchId: string,
    nics: readonly NicConfiguration[],
    mappings: Readonly<Record<string, NicMapping>>,
  ): Promise<BranchNetwork>;
  /** Removes whatever was made for the branch; nothing to remove is fine. */
  remove(branchId: string): Promise<void>;
}

/**
 * Networks of branches, made with `ip` (iproute2). Names follow from the branch's id, so that what a killed process
 * has made is found and removed without any record of it.
 */
export const branchNetworks: BranchNetworks = {
  /** Namespaces need CAP_NET_ADMIN and CAP_SYS_ADMIN. */
  async isolate(branchId, nics) {
    if (nics.length === 0) return unplugged('the machine has no NIC');
    const namespace = namespaceOf(branchId);
    try {
      await branchNetworks.remove(branchId);
      await runCommand('ip', ['netns', 'add', namespace]);
      const plan = isolatedPlan(nics);
      await batch([...plan.added.map(([, bridge]) => additionOf(bridge)), ...plan.commands], namespace);
      return {
        report: { kind: 'isolated', namespace, bridges: plan.bridges },
        attachments: plan.attachments,
      };
    } catch (error) {
      if (!isFailure(error, 'PROCESS_FAILED', 'TOOL_MISSING')) throw error;
      return unplugged(`no isolated network could be made: ${messageOf(error)}`);
    }
  },

  async connect(branchId, nics, mappings) {
    const attachments: Record<string, NetworkAttachment> = {};
    const left: string[] = [];
    for (const [index, { nicId }] of nics.entries()) {
      const mapping = ownOf(mappings, nicId);
      if (mapping === undefined) {
        left.push(nicId);
        continue;
      }
      checkInterfaceName(mapping.kind === 'tap' ? mapping.interfaceName : mapping.bridge);
      if (mapping.kind === 'tap') attachments[nicId] = mapping;
      else {
        const interfaceName = tapOf(branchId, index);
        await removeTaps(tapPrefixOf(branchId), interfaceName);
        await batch([
          `tuntap add dev ${interfaceName} mode tap`,
          `link set dev ${interfaceName} master ${mapping.bridge} up`,
        ]);
        attachments[nicId] = { kind: 'tap', interfaceName };
      }
    }
    return { report: { kind: 'connected', unplugged: left }, attachments };
  },

  async remove(branchId) {
    await removeNamespace(namespaceOf(branchId));
    await removeTaps(tapPrefixOf(branchId));
  },
};

async function removeNamespace(namespace: string): Promise<void> {
  const isThere = async () => (await namespaces()).includes(namespace);
  if (!(await isThere())) return;
  try {
    await runCommand('ip', ['netns', 'delete', namespace]);
  } catch (error) {
    // Two that clean up at once are in each other's way; what counts is that it has gone.
    if (await isThere()) throw error;
  }
}

/** Networks of tests of several machines: a namespace named after the test, in it a bridge for each network, and a tap for each NIC. */
export const sharedNetworks = {
  /** Throws PROCESS_FAILED, TOOL_MISSING. */
  async make(testId: string): Promise<void> {
    await runCommand('ip', ['netns', 'add', namespaceOf(testId)]);
  },

  /** `bridges` are those that are there, by network, and gets those that are made; nobody else plugs in meanwhile. */
  async plug(
    o: {
      readonly testId: string;
      readonly branchId: string;
      readonly nics: readonly NicConfiguration[];
      readonly bridges: Map<string, string>;
      readonly hindrance: string | undefined;
    },
    run: typeof batch = batch,
  ): Promise<BranchNetwork> {
    const { testId, branchId, nics, bridges, hindrance } = o;
    if (nics.length === 0) return unplugged('the machine has no NIC');
    if (hindrance !== undefined) return unplugged(hindrance);
    const namespace = namespaceOf(testId);
    const tapAt = (index: number) => tapOf(branchId, index);
    const plan = isolatedPlan(nics, { bridges: Object.fromEntries(bridges), tapAt });
    // Each is known as soon as it is there: if this machine gets no further, the next one finds it.
    for (const [network, bridge] of plan.added) {
      await run([additionOf(bridge)], namespace);
      bridges.set(network, bridge);
    }
    await run(plan.commands, namespace);
    const own = nics.map(({ network }) => [network, plan.bridges[network]!] as const);
    return {
      report: { kind: 'isolated', namespace, bridges: Object.fromEntries(own) },
      attachments: plan.attachments,
    };
  },

  /** With all that is in it; nothing to remove is fine. */
  remove: (testId: string): Promise<void> => removeNamespace(namespaceOf(testId)),
};

/** Names go into commands: nothing but what the kernel takes for an interface's name gets there. */
function checkInterfaceName(name: string): void {
  if (/^[A-Za-z0-9._-]{1,15}$/.test(name)) return;
  throw failoverFailure('FAILOVER_NETWORK_INVALID', `«${name}» is not the name of an interface`);
}

function unplugged(reason: string): BranchNetwork {
  return { report: { kind: 'unplugged', reason }, attachments: {} };
}

function additionOf(bridge: string): string {
  return `link add ${bridge} type bridge`;
}

/** What is to be made inside a namespace: a bridge for each network name that has none there, then by commands a tap for each NIC. Pure. */
export function isolatedPlan(
  nics: readonly NicConfiguration[],
  {
    bridges: there = {},
    tapAt = (index) => `tap${index}`,
  }: { bridges?: Readonly<Record<string, string>>; tapAt?: (index: number) => string } = {},
): {
  /** Network and name of each bridge that is not there yet. */
  readonly added: readonly (readonly [string, string])[];
  readonly commands: readonly string[];
  readonly bridges: Readonly<Record<string, string>>;
  readonly attachments: Readonly<Record<string, NetworkAttachment>>;
} {
  const bridges = new Map(Object.entries(there));
  const attachments: Record<string, NetworkAttachment> = {};
  const added: (readonly [string, string])[] = [];
  const commands: string[] = [];
  for (const [index, { nicId, network }] of nics.entries()) {
    const known = bridges.get(network);
    const bridge = known ?? `br${bridges.size}`;
    if (known === undefined) {
      bridges.set(network, bridge);
      added.push([network, bridge]);
    }
    const interfaceName = tapAt(index);
    commands.push(
      // Also of one that is there: whoever made it may not have come to that.
      `link set dev ${bridge} up`,
      `tuntap add dev ${interfaceName} mode tap`,
      `link set dev ${interfaceName} master ${bridge} up`,
    );
    attachments[nicId] = { kind: 'tap', interfaceName };
  }
  return { added, commands, bridges: Object.fromEntries(bridges), attachments };
}

/** Gives the host's end of a network of the namespace an address, so that the guest can be asked from there. */
export async function addressBridge(namespace: string, bridge: string, address: string): Promise<void> {
  await batch([`address replace ${address} dev ${bridge}`], namespace);
}

export function namespaceOf(branchId: string): string {
  return `ws-${branchId}`;
}

/** Interface names have at most 15 characters: too few for an id, enough for a digest of it and a number. */
function tapPrefixOf(branchId: string): string {
  return `ws${createHash('sha256').update(branchId).digest('hex').slice(0, 9)}-`;
}

/** Every tap of a branch. */
const TAP = /^ws[0-9a-f]{9}-\d+$/;

/** The interfaces that a bridge of this host has for its ports; none where there is no such bridge. */
export async function portsOf(bridge: string): Promise<ReadonlySet<string>> {
  checkInterfaceName(bridge);
  const { stdout } = await orNothing(
    runCommand('ip', ['-j', 'link', 'show', 'master', bridge], { allowExit: [1, 255] }),
  );
  return new Set(interfaceNames(stdout));
}

/** A bridge of this host has had a frame from this address. */
export interface HeardAddress {
  readonly mac: string;
  /** The interface that it came in by: a tap, or the way to other hosts. */
  readonly port: string;
  /** How long ago, in seconds; the kernel forgets after some minutes. */
  readonly agoS: number;
}

/** What a bridge of this host has learned from its ports, but for taps of branches; nothing where there is no such bridge. */
export async function heardOn(bridge: string): Promise<readonly HeardAddress[]> {
  checkInterfaceName(bridge);
  const { stdout } = await orNothing(
    runCommand('bridge', ['-j', '-s', 'fdb', 'show', 'br', bridge], { allowExit: [1, 255] }),
  );
  const entries = JSON.parse(stdout.trim() || '[]') as Partial<Record<string, unknown>>[];
  return entries.flatMap(({ mac, ifname, state, updated, flags }) => {
    const isLearned = state !== 'permanent' && !(Array.isArray(flags) && flags.includes('self'));
    if (!isLearned || typeof mac !== 'string' || typeof ifname !== 'string' || TAP.test(ifname)) return [];
    return [{ mac, port: ifname, agoS: typeof updated === 'number' ? updated : 0 }];
  });
}

/** The tap on a bridge of this host that a branch's NIC has, by its place in the machine's configuration. */
export function tapOf(branchId: string, index: number): string {
  return `${tapPrefixOf(branchId)}${index}`;
}

/**
 * Everything that NICs are to be connected to is there, and is what it is said to be. Throws FAILOVER_NETWORK_MISSING,
 * FAILOVER_NETWORK_INVALID.
 */
export async function checkPlugsThere(mappings: Readonly<Record<string, NicMapping>>): Promise<void> {
  for (const [nicId, mapping] of Object.entries(mappings)) {
    const isTap = mapping.kind === 'tap';
    const name = isTap ? mapping.interfaceName : mapping.bridge;
    checkInterfaceName(name);
    const show = ['-j', 'link', 'show', 'dev', name, ...(isTap ? [] : ['type', 'bridge'])];
    const { stdout } = await orNothing(runCommand('ip', show, { allowExit: [1, 255] }));
    if (interfaceNames(stdout).includes(name)) continue;
    const said = `this host has no ${mapping.kind} ${name}, to which ${nicId} is to be connected`;
    throw failoverFailure('FAILOVER_NETWORK_MISSING', said, { context: { nicId, name } });
  }
}

async function namespaces(): Promise<string[]> {
  const { stdout } = await orNothing(runCommand('ip', ['netns', 'list']));
  return stdout.split('\n').map((line) => line.split(' ')[0]!);
}

async function removeTaps(prefix: string, only?: string): Promise<void> {
  const { stdout } = await orNothing(runCommand('ip', ['-j', 'link', 'show']));
  for (const ifname of interfaceNames(stdout)) {
    if (!ifname.startsWith(prefix)) continue;
    if (only === undefined || ifname === only) await runCommand('ip', ['link', 'delete', 'dev', ifname]);
  }
}

/** The names in what `ip -j link` prints, which is nothing where there are none. */
function interfaceNames(printed: string): string[] {
  const links = JSON.parse(printed.trim() || '[]') as { ifname?: unknown }[];
  return links.map(({ ifname }) => ifname).filter((name) => typeof name === 'string');
}

/** Where `ip` is not installed, nothing can have been made with it. */
async function orNothing(command: Promise<{ stdout: string }>): Promise<{ stdout: string }> {
  try {
    return await command;
  } catch (error) {
    if (isFailure(error, 'TOOL_MISSING')) return { stdout: '' };
    throw error;
  }
}

/** Several commands by one process, ended by the first that fails. */
async function batch(commands: readonly string[], namespace?: string): Promise<void> {
  const inside = namespace === undefined ? [] : ['-netns', namespace];
  await runCommand('ip', [...inside, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}
