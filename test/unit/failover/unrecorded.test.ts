/** A disk that is full when a boot has been seen: what can be kept of it decides nothing of what runs. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { loadState } from '../../../src/failover/branch-state.ts';
import { BringUp } from '../../../src/failover/bring-up.ts';
import { CpuGroups, type FailoverTools } from '../../../src/failover/index.ts';
import { LiveBranches } from '../../../src/failover/live-branches.ts';
import { prepareBranch } from '../../../src/failover/prepared.ts';
import { probeAgain } from '../../../src/failover/probe-again.ts';
import { Stopwatch } from '../../../src/failover/report.ts';
import { RunUnderWay } from '../../../src/failover/run-under-way.ts';
import { processesOfRun, type RunningMachine, runPaths } from '../../../src/hypervisor/index.ts';
import { monitorOption } from '../../../src/hypervisor/qemu/command-line.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import type { BranchRecord, Replica } from '../../../src/replica/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const PASSES = [{ kind: 'serial', pattern: '^up' }] as const;
const FAILS = [{ kind: 'serial', pattern: '^never', limitMs: 200 }] as const;
/** One pixel is black and the other one white. */
const PICTURE = Buffer.concat([Buffer.from('P6\n2 1\n255\n'), Buffer.from([0, 0, 0, 255, 255, 255])]);

const CONFIGURATION = {
  ...{ name: 'db', uuid: '6a1c5a5e-0000-4000-8000-00000000000b', architecture: 'x86_64', chipset: 'q35' },
  ...{ firmware: 'bios', cpus: 1, memoryBytes: 2 ** 28, guestAgent: false, nics: [] },
  disks: [{ diskId: 'system', bus: 'virtio-blk', sizeBytes: 2 ** 20 }],
};

/** A site with a branch to boot, whose disk is full for names such as `full` from the moment in which its guest has been asked. */
async function site(t: CleanUp, purpose: 'test' | 'failover', full: RegExp) {
  const directory = await temporaryDirectory(t);
  const disk = { isFull: false };
  const files: FileSystem = {
    ...nodeFiles,
    open: async (path, how) => {
      if (disk.isFull && how !== 'read' && full.test(path)) {
        throw fileFailure('write', path, Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
      }
      return nodeFiles.open(path, how);
    },
  };
  const start = async ({ runDirectory }: { runDirectory: string }) => {
    // Found by its command line, as a hypervisor is.
    const process_ = spawn(process.execPath, [
      '-e',
      'setInterval(() => 0, 1000)',
      monitorOption(runDirectory),
    ]);
    const gone = new Promise<void>((resolve) => process_.once('exit', () => resolve()));
    t.after(() => void process_.kill('SIGKILL'));
    await writeFile(runPaths(runDirectory).serialPath, 'up\n');
    const consolePicture = async (path: string) => {
      await writeFile(path, PICTURE);
      disk.isFull = true;
    };
    const nothing = async () => undefined;
    return {
      ...{ gone, consolePicture, resume: nothing, announce: nothing, disconnect: nothing },
      pressPowerButton: async () => void process_.kill('SIGTERM'),
      ...{ state: async () => 'running', onEvent: () => () => undefined, sockets: { qmpPath: '' } },
    } as unknown as RunningMachine;
  };
  const tools = {
    ...{ files, clock: systemClock, random: systemRandom, log: silentLog, siteId: 'here' },
    hypervisor: { start, acceleration: async () => ({ accelerator: 'tcg' }) },
    signer: { keyId: 'ed25519:test', sign: () => Buffer.alloc(64) },
    cpuGroups: new CpuGroups(systemClock),
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
    ...{ tools, live, replica, branch, disk },
    boot: (o: { readonly probes: typeof PASSES | typeof FAILS; readonly keep?: boolean }) =>
      bringUp.onBranch(
        {
          ...{ replica, purpose, keep: o.keep ?? purpose === 'failover', networks: {}, commandMs: 0 },
          ...{ candidate: { pointId: branch.pointId, reason: 'the newest' }, probes: o.probes },
        },
        branch,
        new Stopwatch(systemClock),
      ),
    /** Processes of the machine, and those that this site is connected to. */
    machines: async () => [
      (await processesOfRun(join(tools.runDirectory, branch.branchId))).length,
      live.all.length,
    ],
    phase: async () => (await loadState(tools, replica, branch.branchId))?.phase,
    branchesLeft: () => readdir(branches),
  };
}

describe('a machine that comes up on a disk that is full', () => {
  it('F5 S0.26 a failover whose picture cannot be kept has come up, and says what is missing', async (t) => {
    const { boot, machines, phase, tools } = await site(t, 'failover', /console\.png/);
    const attempt = await boot({ probes: PASSES });
    const { verdict, picturePath, notRecorded } = attempt.report;
    assert.deepEqual([verdict, attempt.runs, picturePath], ['passed', true, null]);
    assert.match(notRecorded!.join(), /^What was seen of the boot is not kept: .*no space left\.$/);
    assert.deepEqual([await machines(), await phase()], [[1, 1], 'probed']);
    const run = new RunUnderWay(tools);
    run.add(attempt);
    const { warnings } = run.report({
      ...{ kind: 'unplanned', machine: { machineId: 'm', name: 'db' }, epoch: 2, accelerator: 'kvm' },
      ...{ chosenBy: 'selection', slow: undefined, otherDisks: () => [] },
    });
    assert.ok(warnings.includes(notRecorded![0]!), warnings.join());
  });

  it('F5 a failover that cannot be recorded has come up, and its guest can be asked again', async (t) => {
    const { boot, machines, phase, tools, live, replica, branch, disk } = await site(
      t,
      'failover',
      /state\.json/,
    );
    const { report } = await boot({ probes: PASSES });
    assert.equal(report.verdict, 'passed');
    assert.match(report.notRecorded!.join(), /^That the machine has come up is not recorded: /);
    assert.deepEqual([await machines(), await phase()], [[1, 1], 'started']);
    const { signal } = new AbortController();
    const ask = () => probeAgain({ tools, live }, replica, branch.branchId, PASSES, signal);
    assert.deepEqual([(await ask())![0]!.passed, await phase()], [true, 'started']);
    disk.isFull = false;
    assert.deepEqual([(await ask())![0]!.passed, await phase()], [true, 'probed']);
  });

  it('F5 a failover that has not come up is ended, whatever can be recorded of it', async (t) => {
    const { boot, machines, branchesLeft, branch } = await site(t, 'failover', /state\.json|console\.png/);
    const { report, runs } = await boot({ probes: FAILS });
    assert.deepEqual([report.verdict, runs, report.kept], ['failed', false, true]);
    assert.equal(report.notRecorded!.length, 2);
    assert.deepEqual([await machines(), await branchesLeft()], [[0, 0], [branch.branchId]]);
  });

  it('S0.21 a point of which it cannot be recorded that it is prepared leaves nothing', async (t) => {
    const { tools, live, replica, branch, branchesLeft } = await site(t, 'test', /state\.json/);
    const options = { programs: [], probes: PASSES, graceMs: 10_000 };
    const prepared = prepareBranch({ tools, live }, replica, branch.pointId, options);
    await assert.rejects(prepared, { code: 'DISK_FULL' });
    assert.deepEqual([live.all.length, await branchesLeft()], [0, [branch.branchId]]);
  });

  it('S0.26 a test whose proof cannot be kept has failed, and nothing of it is left', async (t) => {
    for (const keep of [false, true]) {
      for (const full of [/boot\.json/, /console\.png/]) {
        const { boot, machines, branchesLeft } = await site(t, 'test', full);
        await assert.rejects(boot({ probes: PASSES, keep }), { code: 'DISK_FULL' });
        assert.deepEqual([await machines(), await branchesLeft()], [[0, 0], []]);
      }
    }
    const { boot, machines, branchesLeft } = await site(t, 'test', /state\.json/);
    await assert.rejects(boot({ probes: PASSES, keep: true }), { code: 'DISK_FULL' });
    assert.deepEqual([await machines(), await branchesLeft()], [[0, 0], []]);
  });
});
