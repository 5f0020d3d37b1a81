import {
  checkMachineConfiguration,
  type MachineConfiguration,
  type NicConfiguration,
} from '../hypervisor/index.ts';
import { isFailure } from '../lib/errors.ts';
import { ownOf } from '../lib/own.ts';
import { failoverFailure } from './errors.ts';
import { type HeardAddress, heardOn, type NicMapping, portsOf, tapOf } from './network.ts';

/**
 * Every NIC that is named, to be connected or to get addresses, is one of the machine, as some of `configurations` describes it. A slip of the pen would
 * leave the machine unplugged on the day it is needed. Throws FAILOVER_NIC_UNKNOWN.
 */
export function checkNicsNamed(
  named: Readonly<Record<string, unknown>>,
  configurations: readonly unknown[],
): void {
  const known = new Set(configurations.flatMap(nicsOf).map(({ nicId }) => nicId));
  const unknown = Object.keys(named).filter((nicId) => !known.has(nicId));
  if (unknown.length === 0) return;
  const there = known.size === 0 ? 'it has none' : `it has ${[...known].join(', ')}`;
  const said = `the machine has no NIC ${unknown.join(', ')}; ${there}`;
  throw failoverFailure('FAILOVER_NIC_UNKNOWN', said, {
    context: { unknown: unknown.join(', '), nics: [...known].join(', ') },
  });
}

/**
 * A guest can be given addresses: it has the NICs, and an agent to set them. Without that each point would be booted, and fail after minutes.
 * Throws FAILOVER_NIC_UNKNOWN, FAILOVER_NO_AGENT.
 */
export function checkReaddressable(
  addresses: Readonly<Record<string, unknown>>,
  configurations: readonly unknown[],
): void {
  checkNicsNamed(addresses, configurations);
  const isAsked = Object.keys(addresses).length > 0;
  const usable = configurations.flatMap(configurationOf);
  if (!isAsked || usable.length === 0 || usable.some(({ guestAgent }) => guestAgent)) return;
  throw failoverFailure('FAILOVER_NO_AGENT', 'the machine has no guest agent that could set its addresses');
}

/** The mappings of NICs that the machine has by this configuration. */
export function namedAmong(
  mappings: Readonly<Record<string, NicMapping>>,
  configuration: unknown,
): Readonly<Record<string, NicMapping>> {
  const known = new Set(nicsOf(configuration).map(({ nicId }) => nicId));
  return Object.fromEntries(Object.entries(mappings).filter(([nicId]) => known.has(nicId)));
}

/** A branch that may have NICs on bridges of this host. */
export interface Neighbour {
  readonly branchId: string;
  readonly machineName: string;
  readonly configuration: unknown;
}

/** A machine that runs and is no branch: at home at this site. Where its NICs are plugged, its configuration does not say. */
export type RunningMachine = Omit<Neighbour, 'branchId'>;

/** A machine that is to come up, and where its NICs are to go. */
export interface ArrivingMachine {
  readonly machineName: string;
  readonly configuration: unknown;
  readonly mappings: Readonly<Record<string, NicMapping>>;
}

/**
 * No two NICs of machines that come up together have one address on one bridge, or are to have the same tap. Pure: bridges and
 * taps that lead to each other on this host are not known to be one network. Throws FAILOVER_ADDRESS_TWICE.
 */
export function checkAddressesApart(machines: readonly ArrivingMachine[]): void {
  const owners = new Map<string, string>();
  for (const { machineName, configuration, mappings } of machines) {
    for (const { nicId, mac } of nicsOf(configuration)) {
      const mapping = ownOf(mappings, nicId);
      if (mapping === undefined) continue;
      const place =
        mapping.kind === 'tap' ? `the tap ${mapping.interfaceName}` : `${mac} on ${mapping.bridge}`;
      const nic = `${nicId} of ${machineName}`;
      const other = owners.get(place);
      if (other !== undefined) {
        const said = `${other} and ${nic} would both have ${place}`;
        throw failoverFailure('FAILOVER_ADDRESS_TWICE', said, { context: { mac, nic, other } });
      }
      owners.set(place, nic);
    }
  }
}

/**
 * Whether machines that are no branches have an address already where a NIC is to go. A bridge knows whom it has heard of: a
 * machine of this site that runs and has the address is refused. What else was heard may be another host, the other site, or
 * a machine that has ended since; and a machine of this site that the bridge has not heard of may be on another network. Those are told.
 * Throws FAILOVER_ADDRESS_TAKEN; returns warnings.
 */
export async function addressWarnings(
  mappings: Readonly<Record<string, NicMapping>>,
  configurations: readonly unknown[],
  running: readonly RunningMachine[],
): Promise<readonly string[]> {
  const warnings = new Set<string>();
  for (const [nicId, mapping] of Object.entries(mappings)) {
    const place = mapping.kind === 'tap' ? mapping.interfaceName : mapping.bridge;
    const heard = mapping.kind === 'tap' ? [] : await heardOn(mapping.bridge);
    for (const mac of addressesOf(nicId, configurations)) {
      const warning = warningOf({ mac, nicId, place, heard }, running);
      if (warning !== undefined) warnings.add(warning);
    }
  }
  return [...warnings];
}

function warningOf(
  o: { mac: string; nicId: string; place: string; heard: readonly HeardAddress[] },
  running: readonly RunningMachine[],
): string | undefined {
  const { mac, nicId, place } = o;
  const owner = running.find(({ configuration }) => nicsOf(configuration).some((nic) => nic.mac === mac));
  const heard = o.heard.find((one) => one.mac === mac);
  if (owner && heard) {
    const said = `${mac} of ${nicId} is on ${place} already: ${owner.machineName}, which is at home here and runs, has it`;
    throw failoverFailure('FAILOVER_ADDRESS_TAKEN', said, { context: { bridge: place, mac } });
  }
  if (heard) {
    return `${mac} of ${nicId} was heard on ${place} by ${heard.port}, ${heard.agoS} s ago: a machine elsewhere has this address, or had it until then.`;
  }
  return owner
    ? `${owner.machineName}, which is at home here and runs, has ${mac} of ${nicId} too; whether it is on ${place} is not known.`
    : undefined;
}

/** By the configurations of several points a NIC may have several. */
function addressesOf(nicId: string, configurations: readonly unknown[]): ReadonlySet<string> {
  return new Set(configurations.flatMap(nicsOf).flatMap((nic) => (nic.nicId === nicId ? [nic.mac] : [])));
}

/**
 * Two NICs with one address on one bridge take each other's frames: neither machine could be reached. The kernel is asked
 * which taps the bridge has, and the branch that a tap belongs to is known by the tap's name. Throws FAILOVER_ADDRESS_TAKEN.
 */
export async function checkAddressesFree(
  mappings: Readonly<Record<string, NicMapping>>,
  configurations: readonly unknown[],
  neighbours: readonly Neighbour[],
): Promise<void> {
  for (const [nicId, mapping] of Object.entries(mappings)) {
    if (mapping.kind !== 'bridge') continue;
    const ports = await portsOf(mapping.bridge);
    const wanted = addressesOf(nicId, configurations);
    for (const { branchId, machineName, configuration } of neighbours) {
      const same = nicsOf(configuration).find(
        ({ mac }, index) => wanted.has(mac) && ports.has(tapOf(branchId, index)),
      );
      if (!same) continue;
      const said = `${same.mac} of ${nicId} is on ${mapping.bridge} already: branch ${branchId} of ${machineName} has it`;
      const context = { branchId, bridge: mapping.bridge, mac: same.mac };
      throw failoverFailure('FAILOVER_ADDRESS_TAKEN', said, { context });
    }
  }
}

function nicsOf(configuration: unknown): readonly NicConfiguration[] {
  return configurationOf(configuration).flatMap(({ nics }) => nics);
}

/** A point whose configuration cannot be used says so when it is tried, and hinders no other. */
function configurationOf(configuration: unknown): readonly MachineConfiguration[] {
  try {
    return [checkMachineConfiguration(configuration)];
  } catch (error) {
    if (isFailure(error)) return [];
    throw error;
  }
}
