import type {
  DiskImages,
  Hypervisor,
  ImageFile,
  MachineDisk,
  MachineSockets,
  RunningMachine,
} from '../hypervisor/index.ts';
import { type Failure, isFailure } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { atTheirPlaces, chainOf, chainUpTo, happened, presentOf, sizeAt } from './chain.ts';
import type { Deliveries } from './deliveries.ts';
import type { Delivered } from './delivery.ts';
import { diskUnknown, noLongerGone } from './disk-changes.ts';
import { replicationFailure } from './errors.ts';
import { isCertainlyStopped, isLocked } from './image-locks.ts';
import { reconciledWithout } from './leaving-disks.ts';
import type { MachineProcess } from './machine-process.ts';
import type { ProtectedChain } from './protected-chain.ts';
import type { MachineRecord, ProtectedDisk } from './records.ts';

/** Where a machine is to be found from now on. */
export interface MachinePlace {
  /** Absent: where it was. */
  readonly sockets?: MachineSockets;
  /** By disk id: its owner's file. Those that are not named are where they were. */
  readonly files: Readonly<Record<string, ImageFile>>;
}

export interface MoveGround {
  readonly tools: {
    readonly files: FileSystem;
    readonly images: DiskImages;
    readonly hypervisor: Hypervisor;
  };
  readonly chain: ProtectedChain;
  readonly deliveries: Deliveries;
  readonly process: MachineProcess;
  readonly record: () => MachineRecord;
  /** Durable on return. */
  readonly storeDisks: (record: MachineRecord) => Promise<void>;
}

/**
 * Goes on with a machine at another place, where its disks are the same: one that runs has our tips open, on its owner's files
 * as named, and what lies below the tips reads as the targets have acknowledged it. One that is off must be certainly off.
 * Until the new record is durable nothing has changed but the names of owners' files in the headers of layers
 * upon them. Throws PROTECTION_MOVE_REFUSED with the reason, PROTECTION_STALE_BASE, PROTECTION_DISK_GONE, PROTECTION_DISK_UNKNOWN.
 */
export async function moveMachine(o: MoveGround, place: MachinePlace): Promise<void> {
  const record = o.record();
  if (record.dissolving)
    throw refused(record, 'the end of its protection has begun, and must be reached where it was');
  const before = o.process.running;
  const running = await runningAt(o, record, place);
  try {
    const moved = await checked(o, record, place, running);
    if (!running) await nameOrigins(o.tools.images, moved, Object.keys(place.files));
    await o.storeDisks(moved.record);
  } catch (error) {
    if (running !== before) await running?.disconnect();
    throw error;
  }
  if (running && running !== before) o.process.adopt(running);
  o.process.recover();
}

/** QEMU serves one client on a socket: whoever is connected lets go first. */
async function runningAt(
  { tools, process }: MoveGround,
  record: MachineRecord,
  { sockets }: MachinePlace,
): Promise<RunningMachine | undefined> {
  if (!sockets && process.running) return process.running;
  await process.release();
  process.presence = { state: 'stopped' };
  try {
    return await tools.hypervisor.attach(sockets ?? record.sockets);
  } catch (error) {
    if (isFailure(error, 'MACHINE_NOT_RUNNING')) return undefined;
    throw error;
  }
}

/** The machine at its new place, and its cuts; nothing has changed. */
async function checked(
  o: MoveGround,
  record: MachineRecord,
  place: MachinePlace,
  running: RunningMachine | undefined,
): Promise<Delivered> {
  const moved = movedTo(record, place);
  const files = Object.keys(place.files);
  const said = (cuts: Delivered['cuts']): Delivered => ({
    record: moved,
    cuts: atTheirPlaces(moved.disks, cuts),
  });
  if (!running) {
    const { cuts } = said(o.chain.cuts);
    const chain = {
      chain: (diskId: string) => chainOf(moved.disks.find((disk) => disk.diskId === diskId)!, cuts),
      intendedTips: (diskId: string) => o.chain.intendedTips(diskId),
    };
    if (!(await isCertainlyStopped(o.tools, moved.disks, chain))) {
      throw refused(record, `its disks are in use, but nothing answers at ${moved.sockets.qmpPath}`);
    }
  }
  if (record.protection) await reconciledWithout(o.chain, running);
  const at = said(o.chain.cuts);
  const found = running ? await running.disks() : undefined;
  const disks = found ? moved.disks.map((disk) => foundAmong(found, disk, at)) : moved.disks;
  if (running) await checkWritten(o.tools.images, at);
  await checkContent(o, at, files, found);
  return { ...at, record: { ...moved, disks } };
}

/** The record of a machine at another place. Pure. Throws PROTECTION_DISK_UNKNOWN. */
function movedTo(record: MachineRecord, { sockets, files }: MachinePlace): MachineRecord {
  for (const diskId of Object.keys(files)) {
    if (!presentOf(record.disks).some((disk) => disk.diskId === diskId)) throw diskUnknown(record, diskId);
  }
  const disks = record.disks.map((disk): ProtectedDisk => {
    const file = files[disk.diskId];
    const origin = disk.chain.at(-1)!;
    if (!file || file.path === origin.path) return disk;
    const chain = [...disk.chain.slice(0, -1), { ...file }];
    if (!record.protection) return { ...disk, chain };
    const formerPaths = new Set([...(disk.formerPaths ?? []), origin.path]);
    formerPaths.delete(file.path);
    return { ...disk, chain, formerPaths: [...formerPaths] };
  });
  return {
    ...noLongerGone(record, Object.keys(files)),
    ...(sockets ? { sockets: { ...sockets } } : {}),
    disks,
  };
}

/** The disk with the name that the machine has for the device whose tip is ours. */
function foundAmong(
  found: readonly MachineDisk[],
  disk: ProtectedDisk,
  { record, cuts }: Delivered,
): ProtectedDisk {
  if (disk.leaving) return disk;
  const tip = chainOf(disk, cuts).at(-1)!.path;
  const device = found.find(({ chain }) => chain.at(-1)?.path === tip);
  if (!device) {
    const tips = found.map(({ chain }) => chain.at(-1)?.path ?? 'nothing').join(', ');
    throw refused(record, `the machine there does not run on ${tip}, but on ${tips || 'no disk'}`);
  }
  const origin = disk.chain.at(-1)!.path;
  if (!device.chain.some(({ path }) => path === origin)) {
    const below = device.chain.map(({ path }) => path).join(', ');
    throw refused(record, `${disk.diskId} does not lie on ${origin} there, but on ${below}`);
  }
  return { ...disk, deviceName: device.deviceName };
}

/** A process on another host may name the same paths and mean other files: those that it writes are locked here, too. */
async function checkWritten(images: DiskImages, { record, cuts }: Delivered): Promise<void> {
  for (const disk of presentOf(record.disks)) {
    const chain = chainOf(disk, cuts);
    if (await isLocked(images, chain)) continue;
    const tip = chain.at(-1)!.path;
    throw refused(
      record,
      `the machine there runs on ${tip}, but nobody writes to the file of that name here`,
    );
  }
}

/** The owner's files that are somewhere else now hold what they held: what was acknowledged is read back. */
async function checkContent(
  o: MoveGround,
  at: Delivered,
  diskIds: readonly string[],
  found: readonly MachineDisk[] | undefined,
): Promise<void> {
  if (diskIds.length === 0) return;
  const { record, cuts } = at;
  const isAcknowledged = o.deliveries.all.some((delivery) => delivery.record.acknowledged !== null);
  if (isAcknowledged) {
    const doubt = await o.deliveries.doubtOfAcknowledged(diskIds, at);
    if (doubt !== undefined) throw refused(record, doubt);
    return;
  }
  // Nobody has a copy that they could differ from: how large they are is all that can be told.
  const first = happened(cuts)[0];
  for (const disk of presentOf(record.disks).filter(({ diskId }) => diskIds.includes(diskId))) {
    const expected = sizeAt(disk, first);
    const sizeBytes = first
      ? await sizeOf(o.tools.images, chainUpTo(disk, cuts, first.ordinal))
      : (found?.find(({ chain }) => chain.at(-1)?.path === disk.chain.at(-1)!.path)?.sizeBytes ??
        (await sizeOf(o.tools.images, disk.chain)));
    if (sizeBytes === expected) continue;
    throw refused(record, `${disk.diskId} has ${sizeBytes} bytes there, and had ${expected}`);
  }
}

async function sizeOf(images: DiskImages, chain: readonly ImageFile[]): Promise<number> {
  await using reader = await images.open(chain);
  return reader.sizeBytes;
}

/** Who starts the machine from its tip alone follows the headers: the lowest layer of ours names the owner's file. */
async function nameOrigins(
  images: DiskImages,
  { record, cuts }: Delivered,
  diskIds: readonly string[],
): Promise<void> {
  for (const disk of presentOf(record.disks).filter(({ diskId }) => diskIds.includes(diskId))) {
    const lowest = chainOf(disk, cuts)[disk.chain.length];
    if (lowest) await images.reparent(lowest, disk.chain.at(-1)!);
  }
}

function refused({ name }: MachineRecord, said: string): Failure {
  return replicationFailure('PROTECTION_MOVE_REFUSED', `${name}: ${said}`, { context: { machine: name } });
}
