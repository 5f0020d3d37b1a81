import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  buildLabGuest,
  checkLedgerDisks,
  copyLabGuest,
  type LabGuest,
  type LabMachine,
  LEDGER_AREAS,
  type LedgerCheck,
  LedgerPort,
} from '../../lab/index.ts';
import {
  type DiskImages,
  endRun,
  type Hypervisor,
  type ImageFile,
  type MachineSockets,
  QemuHypervisor,
  runPaths,
} from '../../src/hypervisor/index.ts';
import { qemuArguments } from '../../src/hypervisor/qemu/command-line.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { piecesOf, unionOf } from '../../src/lib/extents.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { GuestAgent } from '../../src/qmp/index.ts';
import { type Replica, readAhead, verifyPoint } from '../../src/replica/index.ts';
import { startRequestOf } from '../../src/replication/chain.ts';
import type { ProtectedMachine, Protection } from '../../src/replication/index.ts';
import { bootedGuest, type MachineKind, resumingFirst } from './booted-guest.ts';
import { areaOf } from './image-bytes.ts';
import { type ListedPoint, PointHistory } from './point-history.ts';
import { assertSoundLayers, layersIn } from './sound-layers.ts';
import type { CleanUp } from './temporary.ts';
import {
  type LabDiskFile,
  labDisks,
  machineRecord,
  type TestTools,
  type TwoSites,
  twoSites,
} from './two-sites.ts';

/** Of the lab guest with its 448 MiB of disks and its ledger of 512-byte records, a copy that is not incremental is far above. */
export const INCREMENT_BYTES_MAX = 8 * 1024 * 1024;

/** What tests of many copies keep, so that the proof of each reads a chain of a few layers. */
export const FEW_POINTS = { types: { crash: 6, app: 2 } };

/** A policy for tests that cut and replicate by hand. */
export const BY_HAND: Omit<Protection, 'targetSiteId'> = {
  schedules: [],
  retention: { types: { crash: 100, app: 20 } },
  freezeLimitMs: 5000,
  compression: false,
};

/** Two sites and a managed lab guest, whose ledger runs. */
export interface LabSites {
  readonly sites: TwoSites;
  readonly machine: ProtectedMachine;
  /** A new connection to the ledger; the guest's process serves one at a time. */
  ledger(): Promise<LedgerPort>;
  replica(): Replica;
}

/** Starts the lab guest as a managed machine, protected and not yet cut; `extraDisks` come after its own two. */
export async function labSites(
  t: CleanUp,
  o: { tools?: TestTools; extraDisks?: readonly LabDiskFile[]; protection?: Partial<Protection> } = {},
): Promise<LabSites> {
  const hypervisor = new QemuHypervisor({ clock: systemClock });
  // What has more disks than the lab guest's own boots by itself.
  const booted = o.extraDisks ? undefined : await bootedGuest(managedMachine(hypervisor));
  const sites = await twoSites(t, {
    ...(booted ? { hypervisor: resumingFirst(hypervisor, booted) } : {}),
    ...o.tools,
  });
  const { directory } = sites;
  const guest = await copyLabGuest(booted ?? (await buildLabGuest()), directory);
  const disks = [...labDisks(guest), ...(o.extraDisks ?? [])];
  const machine = await sites.addMachine(disks, ledgerArguments(directory));
  await machine.start();
  assert.equal(machine.presence.state, 'running');
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId, ...o.protection });
  return {
    sites,
    machine,
    ledger: async () => {
      const port = await LedgerPort.connect({ path: ledgerPath(directory), clock: systemClock });
      t.after(() => port.close());
      return port;
    },
    replica: () => sites.replicas.need(machine.record.machineId),
  };
}

function ledgerPath(directory: string): string {
  return join(directory, 'ledger');
}

function ledgerArguments(directory: string): string[] {
  return [
    ...['-chardev', `socket,id=ledger,path=${ledgerPath(directory)},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=ledger,name=org.warmsite.ledger'],
  ];
}

/** The machine of `labSites`. */
function managedMachine(hypervisor: Hypervisor): MachineKind {
  const requestOf = (guest: LabGuest, directory: string) =>
    startRequestOf(machineRecord(directory, 'booted', labDisks(guest), ledgerArguments(directory)), []);
  return {
    key: JSON.stringify(qemuArguments(requestOf({ systemDisk: 'system', dataDisk: 'data' }, '/'), 'tcg')),
    start: async (masters, directory) => {
      const disks = await copyLabGuest(masters, directory);
      const request = requestOf(disks, directory);
      await mkdir(request.runDirectory);
      const machine = await hypervisor.start(request);
      await machine.disconnect();
      const { qmpPath, agentPath } = runPaths(request.runDirectory);
      const end = () => endRun(request.runDirectory, systemClock);
      return { disks, qmpPath, agentPath, ledgerPath: ledgerPath(directory), end };
    },
  };
}

export async function virtualSizeOf(path: string): Promise<number> {
  const { stdout } = await runCommand('qemu-img', ['info', '-U', '-f', 'qcow2', '--output=json', path]);
  return JSON.parse(stdout)['virtual-size'];
}

/** Cuts and sends until the target has everything. Returns the bytes that went over the wire. */
export async function copyAndSend(
  machine: ProtectedMachine,
  target: TwoSites['target'],
  copyType = 'crash',
  history?: PointHistory,
): Promise<{ pointId: string; wireBytes: number }> {
  const { cutId } = await machine.cut(copyType);
  history?.cut(cutId);
  return { pointId: cutId, wireBytes: await sendAll(machine, target, history) };
}

/** Sends until the target has everything. Returns the bytes that went over the wire. */
export async function sendAll(
  machine: ProtectedMachine,
  target: TwoSites['target'],
  history?: PointHistory,
): Promise<number> {
  let wireBytes = 0;
  for (;;) {
    const outcome = await machine.replicate(target);
    if (outcome.kind === 'nothing') return wireBytes;
    history?.acknowledged(outcome.acknowledgement);
    if (outcome.kind !== 'sent') continue;
    history?.sent(outcome.acknowledgement, outcome.wireBytes);
    wireBytes += outcome.wireBytes;
  }
}

/** Runs a shell command in the guest and lets go of the agent; anything but success fails the test. */
export async function inGuest(path: string, script: string): Promise<string> {
  await using agent = await GuestAgent.connect({
    path,
    clock: systemClock,
    random: systemRandom,
    timeoutMs: 60_000,
  });
  const { exitCode, stdout, stderr } = await agent.exec('/bin/sh', ['-c', script]);
  assert.equal(exitCode, 0, `${script}: ${stdout}${stderr}`);
  return stdout.trim();
}

export function socketsOf(lab: LabMachine): MachineSockets {
  return { qmpPath: lab.qmpPath, agentPath: lab.agentPath };
}

/** What the ledger of a lab guest says whose disks are these chains. */
export async function ledgerOf(
  images: DiskImages,
  chainOf: (diskId: 'system' | 'data') => readonly ImageFile[],
): Promise<LedgerCheck> {
  await using stack = new AsyncDisposableStack();
  const disks = [];
  for (const { disk, partition } of LEDGER_AREAS) {
    const reader = stack.use(await images.open(chainOf(disk)));
    disks.push({ ...areaOf(reader), partition });
  }
  return await checkLedgerDisks(disks);
}

/** Fails the test unless the ledger is a prefix that holds everything up to `promised`. */
export async function assertLedger(
  images: DiskImages,
  chainOf: (diskId: 'system' | 'data') => readonly ImageFile[],
  promised: number,
): Promise<number> {
  const check = await ledgerOf(images, chainOf);
  assert.ok(check.contiguous, `the ledger is torn: ${JSON.stringify(check)}`);
  assert.ok(check.last >= promised, `the ledger ends with ${check.last}, ${promised} were promised`);
  return check.last;
}

/** The points of a replica as a `PointHistory` takes them. */
export function listedIn(replica: Replica): ListedPoint[] {
  return replica.points.map(({ statement: { pointId, sequence, disks, missed }, manifest }) => ({
    ...{ pointId, sequence, receivedBytes: manifest.receivedBytes },
    changedBytes: disks.reduce((sum, { changedBytes }) => sum + changedBytes, 0),
    missed: missed.map((cut) => cut.pointId),
  }));
}

/** Of a machine of `labSites`, whose replica keeps that many points; absent: all. */
export function labHistory(keeps?: number): PointHistory {
  return new PointHistory({ ...(keeps ? { keeps } : {}), incrementBytesMax: INCREMENT_BYTES_MAX });
}

/**
 * What must hold after every kill, as far as it is quickly looked up: no image of either side has an error, the points are those of
 * the history, and the ledger of the newest one holds everything up to `promised`. Returns what it holds.
 */
export async function assertSound(
  { protectedTools, replicas }: TwoSites,
  machine: ProtectedMachine,
  promised: number,
  history: PointHistory,
): Promise<number> {
  const [replica] = replicas.list();
  assert.ok(replica, 'the replica is there');
  const origins = machine.record.disks.flatMap(({ chain }) => chain.map(({ path }) => path));
  const layers = [...(await layersIn(machine.layout.directory)), ...origins];
  await assertSoundLayers(layers);
  const { leaks } = await assertSoundLayers(await layersIn(replica.layout.directory));
  assert.equal(leaks, 0, 'the layers of the replica have no leaks');
  history.lists(listedIn(replica));
  const { pointId } = replica.newest!.statement;
  return await assertLedger(protectedTools.images, (disk) => replica.chain(pointId, disk), promised);
}

/** Every retained point is what was signed, they are those of the history, which has no gap, and the ledger holds. */
export async function assertWholeReplica(
  sites: TwoSites,
  promised: number,
  history: PointHistory,
): Promise<void> {
  const replica = sites.replicas.list()[0]!;
  history.lists(listedIn(replica));
  history.assertWithoutGap();
  const { images } = sites.protectedTools;
  let last = 0;
  for (const { statement } of replica.points) {
    await verifyPoint(sites.replicaTools, replica, statement.pointId);
    const seq = await assertLedger(images, (disk) => replica.chain(statement.pointId, disk), last);
    last = seq;
  }
  assert.ok(last >= promised, `the newest point ends with ${last}, ${promised} were promised`);
}

/** Fails the test unless two chains read the same from the first byte to the last. */
export async function assertSameContent(
  images: DiskImages,
  one: readonly ImageFile[],
  other: readonly ImageFile[],
): Promise<void> {
  await using left = await images.open(one);
  await using right = await images.open(other);
  assert.equal(left.sizeBytes, right.sizeBytes);
  const ranges = unionOf((await left.contentExtents()).data, (await right.contentExtents()).data);
  const twin = Buffer.alloc(1024 * 1024);
  for await (const { piece, data } of readAhead(left, piecesOf(ranges, twin.length))) {
    const there = twin.subarray(0, piece.length);
    await right.readInto(there, piece.offset);
    assert.ok(there.equals(data), `the chains differ at ${piece.offset}+${piece.length}`);
  }
}
