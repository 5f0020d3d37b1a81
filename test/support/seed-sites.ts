import { createPrivateKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ImageFile, QemuHypervisor } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { statementBytes } from '../../src/recovery-point/index.ts';
import { type Replica, Replicas } from '../../src/replica/index.ts';
import { ProtectedLayout, ProtectedMachine, type ProtectedTools } from '../../src/replication/index.ts';
import { DirectTarget } from './direct-target.ts';
import { FakeImages, ImageLocks } from './fake-images.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';
import { openWritable } from './writable-image.ts';

export const DISK_BYTES = 4 * 1024 * 1024;

/** Two sites without QEMU: machines that are off, whose disks the test writes. */
export interface SeedSites {
  readonly directory: string;
  readonly medium: string;
  readonly target: DirectTarget;
  readonly replicas: Replicas;
  /** A machine with two raw disks, protected so that its base goes by courier. */
  addMachine(o?: { seed?: boolean }): Promise<SeedMachine>;
  /** The replica as a process that has just started opens it, with other files if wished. */
  openReplica(machineId: string, files?: FileSystem): Promise<Replica>;
}

export interface SeedMachine {
  readonly machine: ProtectedMachine;
  /** Another process takes the machine over. */
  reopen(files?: FileSystem): Promise<ProtectedMachine>;
  /** The guest writes: pages of 4 KiB from a random source at these offsets of the first disk. */
  write(...offsets: number[]): Promise<void>;
  /** What the first disk reads as from the owner's file to the tip. */
  content(): Promise<Buffer>;
}

export async function seedSites(t: CleanUp): Promise<SeedSites> {
  const directory = await temporaryDirectory(t);
  const medium = join(directory, 'medium');
  await nodeFiles.makeDirectory(medium);
  const siteId = newId(systemClock, systemRandom);
  const targetSiteId = newId(systemClock, systemRandom);
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const tools = protectedTools(siteId, createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' })));
  const openReplicas = (files: FileSystem): Promise<Replicas> =>
    Replicas.open(
      {
        ...{ files, images: fakeImages(files), clock: systemClock, log: silentLog },
        isSignedBySource: (source, { statement, signature }) =>
          source === siteId &&
          verify(null, statementBytes(statement), publicKey, Buffer.from(signature, 'base64')),
      },
      join(directory, 'r'),
    );
  const replicas = await openReplicas(nodeFiles);
  return {
    ...{ directory, medium, replicas },
    target: new DirectTarget({ siteId: targetSiteId, sourceSiteId: siteId, replicas }),
    addMachine: async ({ seed = true } = {}) => {
      const machine = await machineIn(directory, tools);
      await machine.machine.protect(
        {
          ...{ targetSiteId, schedules: [], freezeLimitMs: 5000, compression: true },
          retention: { types: { crash: 100, app: 100 } },
        },
        { seed },
      );
      return machine;
    },
    openReplica: async (machineId, files = nodeFiles) => (await openReplicas(files)).need(machineId),
  };
}

/** A site that nobody here is paired with. */
export function strangerKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey;
}

export function protectedTools(siteId: string, key: KeyObject): ProtectedTools {
  const clock = systemClock;
  return {
    ...{
      files: nodeFiles,
      images: fakeImages(nodeFiles),
      clock,
      random: systemRandom,
      log: silentLog,
      siteId,
    },
    // Nothing answers at the sockets of these machines: they are off.
    hypervisor: new QemuHypervisor({ clock }),
    signer: { keyId: 'test', sign: (bytes) => sign(null, bytes, key) },
  };
}

function fakeImages(files: FileSystem): FakeImages {
  return new FakeImages({ files, locks: new ImageLocks() });
}

export async function readChain(chain: readonly ImageFile[]): Promise<Buffer> {
  await using reader = await fakeImages(nodeFiles).open(chain);
  const bytes = Buffer.alloc(reader.sizeBytes);
  await reader.readInto(bytes, 0);
  return bytes;
}

async function machineIn(directory: string, tools: ProtectedTools): Promise<SeedMachine> {
  const machineId = newId(systemClock, systemRandom);
  const disks = [];
  for (const diskId of ['system', 'data']) {
    const path = join(directory, `${machineId}-${diskId}.raw`);
    await writeFile(path, Buffer.from(systemRandom.bytes(DISK_BYTES / 2)));
    await truncate(path, DISK_BYTES);
    disks.push({
      diskId,
      deviceName: diskId,
      chain: [{ path, format: 'raw' as const }],
      sizeBytes: DISK_BYTES,
    });
  }
  const layout = new ProtectedLayout(join(directory, 'p'), machineId);
  let machine = await ProtectedMachine.create(tools, layout, {
    ...{ machineId, name: 'box', kind: 'managed', createdAtMs: 1, epoch: 1, disks, protection: null },
    sockets: { qmpPath: join(directory, 'run', 'qmp') },
    configuration: {
      ...{ name: 'box', uuid: '6a1c5a5e-0000-4000-8000-00000000000a', architecture: 'x86_64' as const },
      ...{ chipset: 'q35' as const, firmware: 'bios' as const, cpus: 1, memoryBytes: 64 * 1024 * 1024 },
      ...{ nics: [], guestAgent: false },
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, bus: 'virtio-blk' as const, sizeBytes })),
    },
  });
  return {
    get machine() {
      return machine;
    },
    reopen: async (files = nodeFiles) => {
      machine = await ProtectedMachine.open({ ...tools, files, images: fakeImages(files) }, layout);
      return machine;
    },
    write: async (...offsets) => {
      await using image = await openWritable(nodeFiles, machine.chain('system').at(-1)!);
      for (const offset of offsets) await image.write(offset, Buffer.from(systemRandom.bytes(4096)));
    },
    content: () => readChain(machine.chain('system')),
  };
}

/** Files of a process that is killed before its `left`-th change, and changes nothing afterwards. */
export function dyingFiles(left: number): { readonly files: FileSystem; readonly hasDied: () => boolean } {
  let rest = left;
  const live =
    <A extends unknown[], R>(act: (...a: A) => Promise<R>) =>
    (...a: A): Promise<R> => {
      if (rest <= 0) return Promise.reject(new Error('the process is dead'));
      rest -= 1;
      return act(...a);
    };
  const files: FileSystem = {
    ...nodeFiles,
    rename: live((from: string, to: string) => nodeFiles.rename(from, to)),
    remove: live((path: string) => nodeFiles.remove(path)),
    removeDirectory: live((path: string) => nodeFiles.removeDirectory(path)),
    makeDirectory: live((path: string) => nodeFiles.makeDirectory(path)),
    syncDirectory: live((path: string) => nodeFiles.syncDirectory(path)),
    open: async (path, how) => {
      const handle = await (how === 'read'
        ? nodeFiles.open(path, how)
        : live(() => nodeFiles.open(path, how))());
      return {
        read: (target, position) => handle.read(target, position),
        write: live((data: Uint8Array, position: number) => handle.write(data, position)),
        writeAll: live((data: readonly Uint8Array[], position: number) => handle.writeAll(data, position)),
        writeDirect: live((data: Uint8Array, position: number) => handle.writeDirect(data, position)),
        truncate: live((size: number) => handle.truncate(size)),
        sizeBytes: () => handle.sizeBytes(),
        sync: live(() => handle.sync()),
        close: () => handle.close(),
      };
    },
  };
  return { files, hasDied: () => rest <= 0 };
}
