import { generateKeyPairSync, sign, verify } from 'node:crypto';
import { join } from 'node:path';
import { type MachineConfiguration, QemuHypervisor, QemuImages } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { type SignedStatement, statementBytes } from '../../src/recovery-point/index.ts';
import { Replicas, type ReplicaTools } from '../../src/replica/index.ts';
import {
  type MachineRecord,
  ProtectedLayout,
  ProtectedMachine,
  type ProtectedTools,
} from '../../src/replication/index.ts';
import { DirectTarget } from './direct-target.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

/** Both sides of a replication in one process: real QEMU and real files, no wire. */
export interface TwoSites {
  readonly directory: string;
  readonly protectedTools: ProtectedTools;
  readonly replicaTools: ReplicaTools;
  readonly replicas: Replicas;
  readonly target: DirectTarget;
  /** Makes a managed machine with the given writable disks. */
  addMachine(
    disks: readonly { diskId: string; path: string; sizeBytes: number }[],
    extra?: string[],
  ): Promise<ProtectedMachine>;
}

export async function twoSites(t: CleanUp): Promise<TwoSites> {
  const directory = await temporaryDirectory(t);
  const clock = systemClock;
  const random = systemRandom;
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const siteId = newId(clock, random);
  const images = new QemuImages({ clock });
  const protectedTools: ProtectedTools = {
    ...{ files: nodeFiles, images, clock, random, log: silentLog, siteId },
    hypervisor: new QemuHypervisor({ clock }),
    signer: { keyId: 'test', sign: (bytes) => sign(null, bytes, privateKey) },
  };
  const isSignedBySource = (source: string, signed: SignedStatement) =>
    source === siteId &&
    verify(null, statementBytes(signed.statement), publicKey, Buffer.from(signed.signature, 'base64'));
  const replicaTools: ReplicaTools = { files: nodeFiles, images, clock, log: silentLog, isSignedBySource };
  const replicas = await Replicas.open(replicaTools, join(directory, 'r'));
  const target = new DirectTarget({ siteId: newId(clock, random), sourceSiteId: siteId, replicas });
  return {
    ...{ directory, protectedTools, replicaTools, replicas, target },
    async addMachine(disks, extraArguments) {
      const machineId = newId(clock, random);
      const machine = await ProtectedMachine.create(
        protectedTools,
        new ProtectedLayout(join(directory, 'p'), machineId),
        machineRecord(directory, machineId, disks, extraArguments),
      );
      t.after(async () => {
        await machine.attach();
        await machine.running?.quit();
        await machine.release();
      });
      return machine;
    },
  };
}

function machineRecord(
  directory: string,
  machineId: string,
  disks: readonly { diskId: string; path: string; sizeBytes: number }[],
  extraArguments: string[] | undefined,
): MachineRecord {
  const configuration: MachineConfiguration = {
    ...{ name: 'lab', uuid: '6a1c5a5e-0000-4000-8000-00000000000a', architecture: 'x86_64', chipset: 'q35' },
    ...{ firmware: 'bios', cpus: 1, memoryBytes: 256 * 1024 * 1024, nics: [], guestAgent: true },
    disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
  };
  const run = join(directory, 'run');
  return {
    ...{
      machineId,
      name: 'lab',
      kind: 'managed',
      createdAtMs: systemClock.wallMs(),
      epoch: 1,
      configuration,
    },
    sockets: { qmpPath: join(run, 'qmp'), agentPath: join(run, 'qga') },
    disks: disks.map(({ diskId, path, sizeBytes }) => ({
      diskId,
      deviceName: `/machine/peripheral/dev-${diskId}/virtio-backend`,
      chain: [{ path, format: 'qcow2' }],
      sizeBytes,
    })),
    protection: null,
    ...(extraArguments ? { extraArguments } : {}),
  };
}
