import type { AddMachineRequest } from '../../api/index.ts';
import { type AdoptedBranch, checkNicsNamed } from '../../failover/index.ts';
import {
  checkMachineConfiguration,
  type Hypervisor,
  type MachineConfiguration,
  runPaths,
} from '../../hypervisor/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Generation } from '../../lib/generations.ts';
import { isBeingRemoved } from '../../lib/removal.ts';
import { type MachineRecord, ProtectedLayout } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import { attachedDisk, deviceNameOf, idsOfAttached, managedDisks } from './machine-disks.ts';

/** Records of machines that are new at this site. */

type About = Pick<MachineRecord, 'machineId' | 'createdAtMs'>;

/** One that this site starts. */
export async function managedRecord(
  about: About,
  request: Extract<AddMachineRequest, { configuration: unknown }>,
  runDirectory: string,
): Promise<MachineRecord> {
  const configuration = checkMachineConfiguration(request.configuration);
  const { networks } = request;
  if (networks) checkNicsNamed(networks, [configuration]);
  return {
    ...about,
    ...managedIn(configuration, runDirectory),
    epoch: 1,
    disks: await managedDisks(configuration, request.disks),
    ...tpmIn(configuration, request.tpmDirectory),
    ...(request.extraArguments ? { extraArguments: [...request.extraArguments] } : {}),
    ...(networks ? { networks: { ...networks } } : {}),
  };
}

/** Asks the running machine what it is. Disks that cannot be cut are refused: half a machine is no copy. */
export async function attachedRecord(
  hypervisor: Hypervisor,
  about: About,
  attach: Extract<AddMachineRequest, { attach: unknown }>['attach'],
): Promise<MachineRecord> {
  const sockets = { qmpPath: attach.qmpPath, ...(attach.agentPath ? { agentPath: attach.agentPath } : {}) };
  await using running = await hypervisor.attach(sockets);
  const found = await running.disks();
  const ids = idsOfAttached(found);
  const disks = found.map((disk, index) => attachedDisk(disk, ids[index]!));
  const diskIds = Object.fromEntries(disks.map(({ deviceName, diskId }) => [deviceName, diskId]));
  const asked: MachineConfiguration = await running.configuration(diskIds);
  const configuration = checkMachineConfiguration({
    ...asked,
    ...(attach.name ? { name: attach.name } : {}),
  });
  return {
    ...about,
    ...{ name: configuration.name, kind: 'attached', epoch: 1 },
    ...{ configuration, sockets, disks, protection: null },
    ...tpmIn(configuration, attach.tpmDirectory),
  };
}

/** A machine with a TPM is a whole one only with what that holds. Throws MACHINE_TPM_UNCLEAR. */
function tpmIn(
  { name, tpm }: MachineConfiguration,
  directory: string | undefined,
): Pick<MachineRecord, 'tpm'> {
  if ((tpm !== undefined) === (directory !== undefined)) return directory ? { tpm: { directory } } : {};
  const said = tpm
    ? `${name} has a TPM, and nothing says where that has its state`
    : `${name} has no TPM whose state could lie in ${directory}`;
  throw controlFailure('MACHINE_TPM_UNCLEAR', said, { context: { name } });
}

/** One that a failover has brought up from its replica: it keeps its identity, its process and its networks. */
export function adoptedRecord(adopted: AdoptedBranch, createdAtMs: number): MachineRecord {
  const { machineId, branchId, pointId, configuration, networks, runDirectory, claim } = adopted;
  const buses = new Map(configuration.disks.map(({ diskId, bus }) => [diskId, bus]));
  return {
    ...{ machineId, createdAtMs },
    ...managedIn(configuration, runDirectory),
    epoch: claim.epoch,
    disks: adopted.disks.map(({ diskId, sizeBytes, chain }) => ({
      ...{ diskId, sizeBytes, deviceName: deviceNameOf(diskId, buses.get(diskId)!) },
      chain: chain.map(({ path, format }) => ({ path, format })),
    })),
    adopted: { branchId, pointId },
    ...(adopted.tpmDirectory === undefined ? {} : { tpm: { directory: adopted.tpmDirectory } }),
    ...(Object.keys(networks).length > 0 ? { networks: { ...networks } } : {}),
  };
}

function managedIn(configuration: MachineConfiguration, runDirectory: string) {
  return {
    name: configuration.name,
    kind: 'managed' as const,
    configuration,
    sockets: {
      qmpPath: runPaths(runDirectory).qmpPath,
      ...(configuration.guestAgent ? { agentPath: runPaths(runDirectory).agentPath } : {}),
    },
    protection: null,
  };
}

/** Where the newest generation of a machine lies; one without a record is what a creation or a removal that was cut short left. */
export async function newestMachine(
  files: FileSystem,
  dataDirectory: string,
  machineId: string,
  generations: readonly Generation[],
): Promise<ProtectedLayout | undefined> {
  for (const generation of generations) {
    const layout = new ProtectedLayout(dataDirectory, machineId, generation);
    if (await isBeingRemoved(files, layout.directory)) continue;
    if ((await files.sizeOf(layout.record)) !== undefined) return layout;
  }
  return undefined;
}

/** Removes what a creation that has failed left; the record goes first, durably, because that decides whether there is such a machine. */
export async function withdrawMachine(files: FileSystem, layout: ProtectedLayout): Promise<void> {
  await files.remove(layout.record);
  await files.syncDirectory(layout.directory);
  await files.removeDirectory(layout.directory);
}
