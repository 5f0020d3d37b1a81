import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildLabGuest, copyLabGuest } from '../../lab/index.ts';
import { endBranchMachine } from '../../src/failover/branch-machine.ts';
import { CpuGroups, type FailoverReport, Failovers, type FailoverTools } from '../../src/failover/index.ts';
import {
  connectGuest,
  endRun,
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
import { type TwoSites, twoSites } from './two-sites.ts';

const PROTECTION = {
  schedules: [],
  retention: { types: { crash: 8, app: 8 } },
  freezeLimitMs: 5000,
  compression: false,
};

/** A stopped lab machine with one NIC that is protected, and a recovery site that can fail it over. */
export interface FailoverSite {
  readonly sites: TwoSites;
  readonly machine: ProtectedMachine;
  readonly failovers: Failovers;
  readonly tools: FailoverTools;
  /** PEM of the key that signs proofs. */
  readonly publicKey: string;
  readonly replica: Replica;
  /** Makes a point of the machine as it is now; resolves with its id. */
  point(copyType?: string): Promise<string>;
  /** A point for each shell script, made when it has run and synced, of one run of the machine; resolves with their ids. */
  pointsAfter<S extends string[]>(...scripts: S): Promise<{ [K in keyof S]: string }>;
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
  const run = async <T>(work: () => Promise<T>) => {
    await machine.start();
    const done = await work();
    await machine.running!.quit();
    return done;
  };
  const synced = (script: string) => inGuest(machine.record.sockets, `${script} && sync`);
  return {
    ...{ sites, machine, failovers, tools, publicKey, point },
    get replica() {
      return sites.replicas.list()[0]!;
    },
    pointsAfter: <S extends string[]>(...scripts: S) =>
      run(async () => {
        const points: string[] = [];
        for (const script of scripts) {
          await synced(script);
          points.push(await point());
        }
        return points as { [K in keyof S]: string };
      }),
    change: (script) => run(() => synced(script)),
  };
}

/** Failovers of the recovery site with a signing key of their own; their machines end with the test. */
export async function failoversOf(
  t: CleanUp,
  sites: TwoSites,
): Promise<Pick<FailoverSite, 'failovers' | 'tools' | 'publicKey'>> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const tools: FailoverTools = {
    ...{ files: nodeFiles, clock: systemClock, random: systemRandom, log: sites.log },
    hypervisor: new QemuHypervisor({ clock: systemClock }),
    signer: { keyId: 'ed25519:test', sign: (bytes) => sign(null, bytes, privateKey) },
    testRules: () => ({ mostRunning: 8, freeFloorBytes: 0 }),
    freeBytes: async () => 2 ** 40,
    cpuGroups: new CpuGroups(),
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

async function labMachine(t: CleanUp, sites: TwoSites): Promise<ProtectedMachine> {
  const guest = await copyLabGuest(await buildLabGuest(), sites.directory);
  const machineId = newId(systemClock, systemRandom);
  const run = join(sites.directory, 'run');
  const disks = [
    { diskId: 'system', path: guest.systemDisk, sizeBytes: 192 * 1024 * 1024 },
    { diskId: 'data', path: guest.dataDisk, sizeBytes: 256 * 1024 * 1024 },
  ];
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
export async function pointWithoutBootSector(site: FailoverSite): Promise<string> {
  const tip = site.machine.chain('system').at(-1)!;
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0 0 512', tip.path]);
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
