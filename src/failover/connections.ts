import type { BranchRecord, Trunk } from '../replica/index.ts';
import { checkPlugsThere, type NicMapping } from './network.ts';
import {
  addressWarnings,
  checkAddressesApart,
  checkAddressesFree,
  checkNicsNamed,
  type RunningMachine,
} from './nic-checks.ts';

/** Whether the NICs of machines that are to come up can go where a person wants them, before anything begins. */

/** A machine that is to come up from a point, and where its NICs are to go. */
export interface ConnectedMachine {
  readonly replica: Trunk;
  readonly pointId: string;
  readonly networks: Readonly<Record<string, NicMapping>>;
  /** Its NICs will have addresses that nobody has. */
  readonly hasNewMacs?: boolean;
}

/** Who may have an address already. */
export interface NetworksHere {
  /** Those that run. */
  readonly branches: readonly { readonly replica: Trunk; readonly branch: BranchRecord }[];
  readonly machines: readonly RunningMachine[];
}

/**
 * Every NIC that is to be connected is one of the machine, and its address is nobody else's where it goes; `except` is the branch
 * that gives way. Returns warnings. Throws FAILOVER_NIC_UNKNOWN, FAILOVER_NETWORK_MISSING, FAILOVER_ADDRESS_TWICE, FAILOVER_ADDRESS_TAKEN.
 */
export async function checkConnections(
  here: NetworksHere,
  o: Omit<ConnectedMachine, 'pointId'> & {
    /** Of all points that may be tried. */
    readonly configurations: readonly unknown[];
    readonly except?: string | undefined;
  },
): Promise<readonly string[]> {
  const { networks, configurations } = o;
  const { machineName } = o.replica.record;
  checkNicsNamed(networks, configurations);
  await checkPlugsThere(networks);
  if (o.hasNewMacs) return [];
  for (const configuration of configurations) {
    checkAddressesApart([{ machineName, configuration, mappings: networks }]);
  }
  const others = here.branches.filter(({ branch }) => branch.branchId !== o.except);
  await checkAddressesFree(
    networks,
    configurations,
    others.map(({ replica, branch: { branchId, pointId } }) => ({
      ...{ branchId, machineName: replica.record.machineName },
      configuration: configurationAt({ replica, pointId }),
    })),
  );
  return addressWarnings(networks, configurations, here.machines);
}

/** Whether machines could come up together: each by itself, and beside the others. Throws as `checkConnections`. */
export async function checkTogether(
  here: NetworksHere,
  machines: readonly ConnectedMachine[],
): Promise<void> {
  for (const machine of machines) {
    await checkConnections(here, { ...machine, configurations: [configurationAt(machine)] });
  }
  checkAddressesApart(
    machines
      .filter(({ hasNewMacs }) => !hasNewMacs)
      .map((machine) => ({
        machineName: machine.replica.record.machineName,
        mappings: machine.networks,
        configuration: configurationAt(machine),
      })),
  );
}

function configurationAt({ replica, pointId }: Pick<ConnectedMachine, 'replica' | 'pointId'>): unknown {
  return replica.point(pointId).statement.configuration;
}
