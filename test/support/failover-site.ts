import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildLabGuest, copyLabGuest } from '../../lab/index.ts';
import { endBranchMachine } from '../../src/failover/branch-machine.ts';
import {
  branchNetworks,
  CpuGroups,
  type FailoverReport,
  Failovers,
  type FailoverTools,
  SitePrograms,
} from '../../src/failover/index.ts';
import {
  connectGuest,
  endRun,
  type Hypervisor,
  type MachineSockets,
  QemuHypervisor,
  runPaths,
} from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import type { Replica } from '../../src/replica/index.ts';
import { ProtectedLayout, ProtectedMachine } from '../../src/replication/index.ts';
import type { CleanUp } from './temporary.ts';
import { labDisks, type TwoSites, twoSites } from './two-sites.ts';

const PROTECTION = {
  schedules: [],
  retention: { types: { crash: 8, app: 8 } },
  freezeLimitMs: 5000,
  compression: false,
};

const SECTOR_BYTES = 512;

/** A sector of the data disk that is in no partition: what stands there tells one point from another, and costs no boot. */
const MARK_SECTOR = 1024;

/** A shell script that says the mark of the point from which the guest was booted. */
export const READ_MARK = `dd if=/dev/vdb bs=${SECTOR_BYTES} skip=${MARK_SECTOR} count=1 2>/dev/null | tr -d '\\0'; echo`;

/** A stopped lab machine with one NIC that is protected, and a recovery site that can fail it over. */
export interface FailoverSite {
  readonly sites: TwoSites;
  readonly machine: ProtectedMachine;
  readonly failovers: Failovers;
  readonly tools: FailoverTools;
  /** PEM of the key that signs proofs. */
  readonly publicKey: string;
  readonly replica: Replica;
  /** Writes to a disk of the machine, which is off, as something in its guest would. */
  write(diskId: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes a point of the machine as it is now; resolves with its id. */
  point(copyType?: string): Promise<string>;
  /** A point for each word, which a guest that is booted from it says when it is asked to `READ_MARK`; resolves with their ids. */
  pointsMarked<S extends string[]>(...words: S): Promise<{ [K in keyof S]: string }>;
  /** Starts the protected machine, runs a shell script in its guest, and ends it after a sync. */
  change(script: string): Promise<string>;
}

export async function failoverSite(t: CleanUp): Promise<FailoverSite> {
  const sites = await twoSites(t);
  const machine = await labMachine(t, sites);
  const { failovers, tools, publicKey } = await failoversOf(t, sites);
  await machine.protect({ ...PROTECTION, targetSiteId: sites.target.siteId });
  const point = async (copyType = 'crash') => {
    const { cutId } = await machine.cut(copyType);
    while ((await machine.replicate(sites.target)).kind !== 'nothing');
    return cutId;
  };
  const write = async (diskId: string, offset: number, bytes: Uint8Array) => {
    const file = join(sites.directory, 'written');
    await writeFile(file, bytes);
    const command = `write -s ${file} ${offset} ${bytes.length}`;
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', command, machine.chain(diskId).at(-1)!.path]);
  };
  return {
    ...{ sites, machine, failovers, tools, publicKey, write, point },
    get replica() {
      return sites.replicas.list()[0]!;
    },
    pointsMarked: async <S extends string[]>(...words: S) => {
      const points: string[] = [];
      for (const word of words) {
        await write('data', MARK_SECTOR * SECTOR_BYTES, Buffer.from(word.padEnd(SECTOR_BYTES, '\0')));
        points.push(await point());
      }
      return points as { [K in keyof S]: string };
    },
    change: async (script) => {
      await machine.start();
      const said = await inGuest(machine.record.sockets, `${script} && sync`);
      await machine.running!.quit();
      return said;
    },
  };
}

/** Failovers of the recovery site with a signing key of their own; their machines end with the test. */
export async function failoversOf(
  t: CleanUp,
  sites: TwoSites,
  hypervisor: Hypervisor = new QemuHypervisor({ clock: systemClock }),
): Promise<Pick<FailoverSite, 'failovers' | 'tools' | 'publicKey'>> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const tools: FailoverTools = {
    ...{ files: nodeFiles, clock: systemClock, random: systemRandom, log: sites.log, hypervisor },
    siteId: sites.target.siteId,
    signer: { keyId: 'ed25519:test', sign: (bytes) => sign(null, bytes, privateKey) },
    testRules: () => ({ mostRunning: 8, freeFloorBytes: 0 }),
    freeBytes: async () => 2 ** 40,
    cpuGroups: new CpuGroups(systemClock),
    networks: branchNetworks,
    programs: programsAt(join(sites.directory, 'programs')),
    machinesHere: () => [],
    runDirectory: join(sites.directory, 'b'),
  };
  await mkdir(tools.runDirectory, { recursive: true });
  const failovers = new Failovers(tools);
  t.after(async () => {
    await failovers.close();
    // By their processes and names alone: the directory may be gone already.
    for (const { branchId } of sites.replicas.list().flatMap((replica) => replica.branches)) {
      await endBranchMachine(tools, branchId);
    }
  });
  return { failovers, tools, publicKey: publicKey.export({ format: 'pem', type: 'spki' }).toString() };
}

/** Programs of the operator, in a directory of the test. */
export function programsAt(directory: string): SitePrograms {
  return new SitePrograms({ directory, clock: systemClock, ownId: process.getuid!() });
}

async function labMachine(t: CleanUp, sites: TwoSites): Promise<ProtectedMachine> {
  const guest = await copyLabGuest(await buildLabGuest(), sites.directory);
  const machineId = newId(systemClock, systemRandom);
  const run = join(sites.directory, 'run');
  const disks = labDisks(guest);
  const layout = new ProtectedLayout(join(sites.directory, 'p'), machineId);
  const machine = await ProtectedMachine.create(sites.protectedTools, layout, {
    ...{
      machineId,
      name: 'lab',
      kind: 'managed',
      createdAtMs: systemClock.wallMs(),
      epoch: 1,
      protection: null,
    },
    configuration: {
      ...{
        name: 'lab',
        uuid: '6a1c5a5e-0000-4000-8000-00000000000b',
        architecture: 'x86_64',
        chipset: 'q35',
      },
      ...{ firmware: 'bios', cpus: 1, memoryBytes: 256 * 1024 * 1024, guestAgent: true },
      nics: [{ nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' }],
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, bus: 'virtio-blk', sizeBytes })),
    },
    sockets: { qmpPath: join(run, 'qmp'), agentPath: join(run, 'qga') },
    disks: disks.map(({ diskId, path, sizeBytes }) => ({
      ...{ diskId, sizeBytes, deviceName: `/machine/peripheral/dev-${diskId}/virtio-backend` },
      chain: [{ path, format: 'qcow2' }],
    })),
  });
  t.after(async () => {
    await endRun(run, systemClock);
    await machine.release();
  });
  return machine;
}

/** What a shell script in the guest said; anything but success is an error. Waits for the agent. */
export async function inGuest(sockets: MachineSockets, script: string): Promise<string> {
  await using guest = await connectGuest(sockets, { clock: systemClock, timeoutMs: 60_000 });
  const { exitCode, stdout, stderr } = await guest.exec('/bin/sh', ['-c', script]);
  if (exitCode !== 0) throw new Error(`«${script}» ended with ${exitCode}: ${stdout}${stderr}`);
  return stdout.trim();
}

/** What a shell script said in the guest of a branch. */
export function inBranch(site: FailoverSite, branchId: string, script: string): Promise<string> {
  return inGuest(runPaths(join(site.tools.runDirectory, branchId)), script);
}

/** The branch that a report says runs, and that it came up. */
export function running(report: FailoverReport): string {
  assert.equal(report.verdict, 'passed', JSON.stringify(report, null, 1));
  assert.ok(report.branchId);
  return report.branchId;
}

/** A point of a machine that does not start from its disk. */
export function pointWithoutBootSector(site: FailoverSite): Promise<string> {
  return pointWithBootSector(site, Buffer.alloc(SECTOR_BYTES));
}

/**
 * A point whose machine is off again as soon as it starts: its boot sector does what firmware does to switch off a Q35 chipset (SLP_EN with
 * the type of S5 into PM1a_CNT, port 0x604).
 */
export function pointThatSwitchesOff(site: FailoverSite): Promise<string> {
  const sector = Buffer.alloc(SECTOR_BYTES);
  // mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
  sector.set([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4]);
  sector.writeUInt16LE(0xaa55, SECTOR_BYTES - 2);
  return pointWithBootSector(site, sector);
}

async function pointWithBootSector(site: FailoverSite, sector: Buffer): Promise<string> {
  await site.write('system', 0, sector);
  return site.point();
}

/** SHA-256 of every layer of a point, by disk. */
export async function layerDigests(replica: Replica, pointId: string): Promise<Record<string, string>> {
  const digests: Record<string, string> = {};
  for (const { diskId } of replica.point(pointId).statement.disks) {
    for (const { path } of replica.chain(pointId, diskId)) {
      digests[path] = createHash('sha256')
        .update(await readFile(path))
        .digest('hex');
    }
  }
  return digests;
}
