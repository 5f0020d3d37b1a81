import { checkMachineConfiguration, type NicConfiguration } from '../hypervisor/index.ts';
import { isFailure } from '../lib/errors.ts';
import { failoverFailure } from './errors.ts';
import { type NicMapping, portsOf, tapOf } from './network.ts';

/**
 * Every NIC that is to be connected is one of the machine, as some of `configurations` describes it. A slip of the pen would
 * leave the machine unplugged on the day it is needed. Throws FAILOVER_NIC_UNKNOWN.
 */
export function checkNicsNamed(
  mappings: Readonly<Record<string, NicMapping>>,
  configurations: readonly unknown[],
): void {
  const known = new Set(configurations.flatMap(nicsOf).map(({ nicId }) => nicId));
  const unknown = Object.keys(mappings).filter((nicId) => !known.has(nicId));
  if (unknown.length === 0) return;
  const there = known.size === 0 ? 'it has none' : `it has ${[...known].join(', ')}`;
  const said = `the machine has no NIC ${unknown.join(', ')}; ${there}`;
  throw failoverFailure('FAILOVER_NIC_UNKNOWN', said, {
    context: { unknown: unknown.join(', '), nics: [...known].join(', ') },
  });
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
    const wanted = new Set(
      configurations.flatMap(nicsOf).flatMap((nic) => (nic.nicId === nicId ? [nic.mac] : [])),
    );
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

/** A point whose configuration cannot be used says so when it is tried, and hinders no other. */
function nicsOf(configuration: unknown): readonly NicConfiguration[] {
  try {
    return checkMachineConfiguration(configuration).nics;
  } catch (error) {
    if (isFailure(error)) return [];
    throw error;
  }
}
