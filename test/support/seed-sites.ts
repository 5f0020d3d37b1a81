import { generateKeyPairSync, sign, verify } from 'node:crypto';
import { join } from 'node:path';
import { type ImageFile, QemuHypervisor } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { statementBytes, Zones } from '../../src/recovery-point/index.ts';
import { OlderDisks, type OlderFile, type Replica, Replicas } from '../../src/replica/index.ts';
import {
  type ForwardTools,
  type Origin,
  ProtectedLayout,
  ProtectedMachine,
  type ProtectedTools,
} from '../../src/replication/index.ts';
import { DirectTarget, type OlderFor } from './direct-target.ts';
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
  readonly zones: Zones;
  /** The recovery site as a process that has just started opens it. */
  openReplicas(files: FileSystem): Promise<Replicas>;
  targetOn(replicas: Replicas, olderFor?: OlderFor): DirectTarget;
  /** Older copies at the recovery site as a process opens them; `unfit` gets what was found to have changed. */
  olderFor(files: readonly OlderFile[], unfit?: string[]): OlderFor;
  /** What forwards replicas of the recovery site, on other files if wished. */
  forwardTools(files?: FileSystem): ForwardTools;
  /** The protected site, as others know it. */
  readonly origin: Origin;
  /** One more recovery site. */
  anotherSite(): Promise<{
    readonly target: DirectTarget;
    readonly replicas: Replicas;
    /** The site as a process that has just started opens it, with other files if wished. */
    reopen(files?: FileSystem): Promise<Replicas>;
    targetOn(replicas: Replicas): DirectTarget;
  }>;
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

/** The file systems of both sites, and where on them everything lies. */
export interface SeedGround {
  readonly directory: string;
  readonly protectedFiles: FileSystem;
  readonly recoveryFiles: FileSystem;
}

export async function seedSites(t: CleanUp): Promise<SeedSites> {
  const directory = await temporaryDirectory(t);
  return seedSitesOn({ directory, protectedFiles: nodeFiles, recoveryFiles: nodeFiles });
}

export async function seedSitesOn(ground: SeedGround): Promise<SeedSites> {
  const { directory, protectedFiles, recoveryFiles } = ground;
  const medium = join(directory, 'medium');
  await protectedFiles.makeDirectory(medium);
  const siteId = newId(systemClock, systemRandom);
  const targetSiteId = newId(systemClock, systemRandom);
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const zones = new Zones();
  const toolsOn = (files: FileSystem): ProtectedTools => ({
    ...{ files, images: fakeImages(files), clock: systemClock, random: systemRandom, log: silentLog },
    ...{ zones, siteId },
    // Nothing answers at the sockets of these machines: they are off.
    hypervisor: new QemuHypervisor({ clock: systemClock }),
    signer: { keyId: 'test', sign: (bytes) => sign(null, bytes, privateKey) },
  });
  const openReplicas = (files: FileSystem, name = 'r'): Promise<Replicas> =>
    Replicas.open(
      {
        ...{ files, images: fakeImages(files), clock: systemClock, log: silentLog, zones },
        isSignedBySource: (source, { statement, signature }) =>
          source === siteId &&
          verify(null, statementBytes(statement), publicKey, Buffer.from(signature, 'base64')),
      },
      join(directory, name),
    );
  const targetOn = (replicas: Replicas, olderFor?: OlderFor): DirectTarget =>
    new DirectTarget({
      ...{ siteId: targetSiteId, sourceSiteId: siteId, replicas },
      ...(olderFor ? { olderFor } : {}),
    });
  const replicas = await openReplicas(recoveryFiles);
  return {
    ...{ directory, medium, replicas, zones, openReplicas, targetOn },
    origin: {
      ...{ siteId, name: 'home' },
      signingKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    },
    forwardTools: (files = recoveryFiles) => ({
      ...{
        files,
        images: fakeImages(files),
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        zones,
      },
    }),
    target: targetOn(replicas),
    olderFor:
      (offered, unfit = []) =>
      (header) => {
        const onUnfit = async (diskId: string): Promise<void> => void unfit.push(diskId);
        const tools = { files: recoveryFiles, images: fakeImages(recoveryFiles), log: silentLog, onUnfit };
        const fit = offered.filter(({ diskId }) => !unfit.includes(diskId));
        return new OlderDisks(tools, header, fit);
      },
    anotherSite: async () => {
      const other = newId(systemClock, systemRandom);
      const theirs = await openReplicas(recoveryFiles, other);
      const targetOnThem = (on: Replicas) =>
        new DirectTarget({ siteId: other, sourceSiteId: siteId, replicas: on });
      return {
        replicas: theirs,
        reopen: (files = recoveryFiles) => openReplicas(files, other),
        targetOn: targetOnThem,
        target: targetOnThem(theirs),
      };
    },
    addMachine: async ({ seed = true } = {}) => {
      const machine = await machineIn(ground, toolsOn);
      await machine.machine.protect(
        {
          ...{ targetSiteId, schedules: [], freezeLimitMs: 5000, compression: true },
          retention: { types: { crash: 100, app: 100 } },
        },
        { seed },
      );
      return machine;
    },
    openReplica: async (machineId, files = recoveryFiles) => (await openReplicas(files)).need(machineId),
  };
}

function fakeImages(files: FileSystem): FakeImages {
  return new FakeImages({ files, locks: new ImageLocks() });
}

export async function readChain(chain: readonly ImageFile[], files: FileSystem = nodeFiles): Promise<Buffer> {
  await using reader = await fakeImages(files).open(chain);
  const bytes = Buffer.alloc(reader.sizeBytes);
  await reader.readInto(bytes, 0);
  return bytes;
}

async function machineIn(
  { directory, protectedFiles: files }: SeedGround,
  toolsOn: (files: FileSystem) => ProtectedTools,
): Promise<SeedMachine> {
  const machineId = newId(systemClock, systemRandom);
  const disks = [];
  for (const diskId of ['system', 'data']) {
    const path = join(directory, `${machineId}-${diskId}.raw`);
    const file = await files.open(path, 'create');
    await file.write(systemRandom.bytes(DISK_BYTES / 2), 0);
    await file.truncate(DISK_BYTES);
    await file.sync();
    await file.close();
    disks.push({
      diskId,
      deviceName: diskId,
      chain: [{ path, format: 'raw' as const }],
      sizeBytes: DISK_BYTES,
    });
  }
  await files.syncDirectory(directory);
  const layout = new ProtectedLayout(join(directory, 'p'), machineId);
  let machine = await ProtectedMachine.create(toolsOn(files), layout, {
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
    reopen: async (over = files) => {
      machine = await ProtectedMachine.open(toolsOn(over), layout);
      return machine;
    },
    write: async (...offsets) => {
      await using image = await openWritable(files, machine.chain('system').at(-1)!);
      for (const offset of offsets) await image.write(offset, Buffer.from(systemRandom.bytes(4096)));
    },
    content: () => readChain(machine.chain('system'), files),
  };
}

/** Files of a process that is killed before its `left`-th change, and changes nothing afterwards. */
export function dyingFiles(
  left: number,
  base: FileSystem = nodeFiles,
): { readonly files: FileSystem; readonly hasDied: () => boolean } {
  let rest = left;
  let died = false;
  const live = <R>(act: () => Promise<R>): Promise<R> => {
    died ||= rest <= 0;
    if (died) return Promise.reject(new Error('the process is dead'));
    rest -= 1;
    return act();
  };
  const files: FileSystem = {
    list: (path) => base.list(path),
    sizeOf: (path) => base.sizeOf(path),
    rename: (from, to) => live(() => base.rename(from, to)),
    remove: (path) => live(() => base.remove(path)),
    removeDirectory: (path) => live(() => base.removeDirectory(path)),
    makeDirectory: (path) => live(() => base.makeDirectory(path)),
    syncDirectory: (path) => live(() => base.syncDirectory(path)),
    setReadOnly: (path, readOnly) => live(() => base.setReadOnly(path, readOnly)),
    open: async (path, how) => {
      const handle = await (how === 'read' ? base.open(path, how) : live(() => base.open(path, how)));
      return {
        read: (target, position) => handle.read(target, position),
        write: (data, position) => live(() => handle.write(data, position)),
        writeAll: (buffers, position) => live(() => handle.writeAll(buffers, position)),
        writeDirect: (data, position) => live(() => handle.writeDirect(data, position)),
        truncate: (sizeBytes) => live(() => handle.truncate(sizeBytes)),
        sizeBytes: () => handle.sizeBytes(),
        sync: () => live(() => handle.sync()),
        close: () => handle.close(),
      };
    },
  };
  return { files, hasDied: () => died };
}
