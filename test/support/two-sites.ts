import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { LabGuest } from '../../lab/index.ts';
import { attachedRecord } from '../../src/control/machines/new-machine.ts';
import {
  endRun,
  type MachineConfiguration,
  type MachineSockets,
  QemuHypervisor,
  QemuImages,
} from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import type { Log, LogFields } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { type SignedStatement, statementBytes, Zones } from '../../src/recovery-point/index.ts';
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
  readonly identity: TwoSitesIdentity;
  readonly directory: string;
  readonly protectedTools: ProtectedTools;
  readonly replicaTools: ReplicaTools;
  readonly replicas: Replicas;
  readonly target: DirectTarget;
  readonly log: RecordedLog;
  /** Makes a managed machine with the given writable disks. */
  addMachine(
    disks: readonly LabDiskFile[],
    extra?: string[],
    tpmDirectory?: string,
  ): Promise<ProtectedMachine>;
  /** Takes in a machine that somebody else started, with all its disks, named `disk0`, `disk1` … */
  adoptMachine(sockets: MachineSockets): Promise<ProtectedMachine>;
}

/** Parts of the world that a test replaces. */
export interface TestTools extends Partial<Omit<ProtectedTools, 'signer' | 'siteId' | 'log'>> {
  readonly replicaFiles?: FileSystem;
}

export interface LabDiskFile {
  readonly diskId: string;
  readonly path: string;
  readonly sizeBytes: number;
}

/** The disks of a lab guest, as its machine has them. */
export function labDisks({ systemDisk, dataDisk }: LabGuest): LabDiskFile[] {
  return [
    { diskId: 'system', path: systemDisk, sizeBytes: 192 * 1024 * 1024 },
    { diskId: 'data', path: dataDisk, sizeBytes: 256 * 1024 * 1024 },
  ];
}

/** Everything of two sites that is not on disk, so that another process can be them. */
export interface TwoSitesIdentity {
  readonly directory: string;
  readonly siteId: string;
  readonly targetSiteId: string;
  /** Ed25519, PKCS #8, PEM. */
  readonly privateKey: string;
}

/** What was logged, by event name. */
export interface RecordedLog extends Log {
  readonly events: readonly { readonly event: string; readonly fields: LogFields | undefined }[];
}

export async function twoSites(t: CleanUp, tools: TestTools = {}): Promise<TwoSites> {
  const { privateKey } = generateKeyPairSync('ed25519');
  const identity: TwoSitesIdentity = {
    directory: await temporaryDirectory(t),
    siteId: newId(systemClock, systemRandom),
    targetSiteId: newId(systemClock, systemRandom),
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
  return openTwoSites(t, identity, tools);
}

/** The sites of a directory that has been theirs before, as after a restart of both processes. */
export async function openTwoSites(
  t: CleanUp,
  identity: TwoSitesIdentity,
  { replicaFiles, ...tools }: TestTools = {},
): Promise<TwoSites> {
  const { directory, siteId, targetSiteId } = identity;
  const clock = systemClock;
  const random = systemRandom;
  const privateKey = createPrivateKey(identity.privateKey);
  const publicKey = createPublicKey(privateKey);
  const images = new QemuImages({ clock });
  const zones = new Zones();
  const log = recordedLog();
  const protectedTools: ProtectedTools = {
    ...{ files: nodeFiles, images, clock, random, log, zones, siteId },
    hypervisor: new QemuHypervisor({ clock }),
    signer: { keyId: 'test', sign: (bytes) => sign(null, bytes, privateKey) },
    ...tools,
  };
  const isSignedBySource = (source: string, signed: SignedStatement) =>
    source === siteId &&
    verify(null, statementBytes(signed.statement), publicKey, Buffer.from(signed.signature, 'base64'));
  const replicaTools: ReplicaTools = {
    ...{ files: replicaFiles ?? nodeFiles, images, clock, log, zones, isSignedBySource },
  };
  const replicas = await Replicas.open(replicaTools, join(directory, 'r'));
  const target = new DirectTarget({ siteId: targetSiteId, sourceSiteId: siteId, replicas });
  const create = async (record: MachineRecord) => {
    const layout = new ProtectedLayout(join(directory, 'p'), record.machineId);
    const machine = await ProtectedMachine.create(protectedTools, layout, record);
    // By the command line: what a failed test leaves may be running without our being connected to it.
    const runDirectory = dirname(record.sockets.qmpPath);
    t.after(async () => {
      await machine.release();
      if (record.kind === 'managed') await endRun(runDirectory, clock);
    });
    return machine;
  };
  return {
    ...{ identity, directory, protectedTools, replicaTools, replicas, target, log },
    addMachine: (disks, extraArguments, tpmDirectory) =>
      create(machineRecord(directory, newId(clock, random), disks, extraArguments, tpmDirectory)),
    adoptMachine: async (sockets) =>
      create(
        await attachedRecord(
          protectedTools.hypervisor,
          { machineId: newId(clock, random), createdAtMs: clock.wallMs() },
          sockets,
        ),
      ),
  };
}

/** The only machine of the site, as a process that has just started opens it. */
export async function reopenMachine(sites: TwoSites): Promise<ProtectedMachine> {
  const [machineId] = await readdir(join(sites.directory, 'p', 'protected'));
  const layout = new ProtectedLayout(join(sites.directory, 'p'), machineId!);
  return ProtectedMachine.open(sites.protectedTools, layout);
}

function recordedLog(): RecordedLog {
  const events: { event: string; fields: LogFields | undefined }[] = [];
  const record = (event: string, fields?: LogFields) => {
    events.push({ event, fields });
  };
  const log: RecordedLog = { events, info: record, warn: record, error: record, with: () => log };
  return log;
}

/** A managed machine of a site in `directory`, not protected. */
export function machineRecord(
  directory: string,
  machineId: string,
  disks: readonly { diskId: string; path: string; sizeBytes: number }[],
  extraArguments: string[] | undefined,
  tpmDirectory?: string,
): MachineRecord {
  const configuration: MachineConfiguration = {
    ...{ name: 'lab', uuid: '6a1c5a5e-0000-4000-8000-00000000000a', architecture: 'x86_64', chipset: 'q35' },
    ...{ firmware: 'bios', cpus: 1, memoryBytes: 256 * 1024 * 1024, nics: [], guestAgent: true },
    disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
    ...(tpmDirectory === undefined ? {} : { tpm: { model: 'tpm-crb' } }),
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
    ...(tpmDirectory === undefined ? {} : { tpm: { directory: tpmDirectory } }),
    ...(extraArguments ? { extraArguments } : {}),
  };
}
