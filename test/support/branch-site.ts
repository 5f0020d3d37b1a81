import { mkdir, readdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { loadState } from '../../src/failover/branch-state.ts';
import { BringUp } from '../../src/failover/bring-up.ts';
import { failoverFailure } from '../../src/failover/errors.ts';
import { branchNetworks, CpuGroups, type FailoverTools } from '../../src/failover/index.ts';
import { LiveBranches } from '../../src/failover/live-branches.ts';
import type { BranchPhase } from '../../src/failover/records.ts';
import { Stopwatch } from '../../src/failover/report.ts';
import { endRun, processesOfRun } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { type FileSystem, fileFailure } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import type { BranchRecord, Replica } from '../../src/replica/index.ts';
import { machineProcess } from './machine-process.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

export const PASSES = [{ kind: 'serial', pattern: '^up' }] as const;
export const FAILS = [{ kind: 'serial', pattern: '^never', limitMs: 200 }] as const;

const CONFIGURATION = {
  ...{ name: 'db', uuid: '6a1c5a5e-0000-4000-8000-00000000000b', architecture: 'x86_64', chipset: 'q35' },
  ...{ firmware: 'bios', cpus: 1, memoryBytes: 2 ** 28, guestAgent: false, nics: [] },
  disks: [{ diskId: 'system', bus: 'virtio-blk', sizeBytes: 2 ** 20 }],
};

/** A site with a branch to boot, whose disk is full for names such as `full` from the moment in which its guest has been asked. */
export async function branchSite(t: CleanUp, purpose: 'test' | 'failover', full: RegExp) {
  const directory = await temporaryDirectory(t);
  const disk = { isFull: false };
  /** Phases of branches, in the order in which they became durable. */
  const stored: { readonly branchId: string; readonly phase: BranchPhase }[] = [];
  const files: FileSystem = {
    ...nodeFiles,
    open: async (path, how) => {
      if (disk.isFull && how !== 'read' && full.test(path)) {
        throw fileFailure('write', path, Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
      }
      return nodeFiles.open(path, how);
    },
    rename: async (from, to) => {
      await nodeFiles.rename(from, to);
      if (basename(to) !== 'state.json') return;
      const { phase } = JSON.parse(await readFile(to, 'utf8'));
      stored.push({ branchId: basename(dirname(to)), phase });
    },
  };
  const hypervisor = { isBroken: false };
  const start = async ({ runDirectory }: { runDirectory: string }) => {
    if (hypervisor.isBroken) throw failoverFailure('FAILOVER_NOT_AT_WORK', 'this hypervisor starts nothing');
    const picture = async () => {
      disk.isFull = true;
    };
    return machineProcess(t, runDirectory, { picture });
  };
  const tools = {
    ...{ files, clock: systemClock, random: systemRandom, log: silentLog, siteId: 'here' },
    hypervisor: {
      start,
      acceleration: async () => ({ accelerator: 'tcg' }),
      processesOf: processesOfRun,
      end: (run: string) => endRun(run, systemClock),
    },
    signer: { keyId: 'ed25519:test', sign: () => Buffer.alloc(64) },
    ...{ cpuGroups: new CpuGroups(systemClock), networks: branchNetworks },
    runDirectory: join(directory, 'b'),
  } as unknown as FailoverTools;
  const id = () => newId(systemClock, systemRandom);
  const branch: BranchRecord = { branchId: id(), pointId: id(), purpose, createdAtMs: 1, diskIds: [] };
  const statement = { pointId: branch.pointId, sequence: 7, copyType: 'crash', consistency: 'crash' };
  const point = {
    statement: { ...statement, disks: [], configuration: CONFIGURATION },
    statementDigest: '0'.repeat(64),
    manifest: { cutAtHereMs: 0 },
  };
  const branches = join(directory, 'branches');
  const replica = {
    record: { machineId: id(), machineName: 'db', retention: { types: { crash: 8 } } },
    layout: {
      directory,
      branch: (branchId: string) => join(branches, branchId),
      proofs: (pointId: string) => join(directory, 'proofs', pointId),
    },
    branches: [branch],
    point: () => point,
    ...{ holdLayers: async () => () => undefined, checkUsable: () => undefined, retention: () => [] },
    refreshBranches: (work: () => Promise<void>) => work(),
  } as unknown as Replica;
  await mkdir(join(branches, branch.branchId), { recursive: true });
  const live = new LiveBranches(tools);
  const bringUp = new BringUp(tools, live);
  return {
    ...{ tools, live, replica, branch, disk, hypervisor, stored },
    boot: (o: {
      readonly probes: typeof PASSES | typeof FAILS;
      readonly keep?: boolean;
      readonly hasRun?: boolean;
      readonly isNew?: boolean;
      readonly signal?: AbortSignal;
    }) => {
      const { probes, keep = purpose === 'failover', hasRun = false, signal } = o;
      const request = {
        ...{ replica, purpose, keep, hasRun, probes, signal, networks: {}, commandMs: 0 },
        candidate: { pointId: branch.pointId, reason: 'the newest' },
      };
      return o.isNew
        ? bringUp.onNewBranch(request)
        : bringUp.onBranch(request, branch, new Stopwatch(systemClock));
    },
    /** Processes of the machine, and those that this site is connected to. */
    machines: async () => [
      (await processesOfRun(join(tools.runDirectory, branch.branchId))).length,
      live.all.length,
    ],
    phase: async () => (await loadState(tools, replica, branch.branchId))?.phase,
    branchesLeft: () => readdir(branches),
  };
}
