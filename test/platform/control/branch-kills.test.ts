/** The recovery site as a process of its own, killed at any instant of making, booting, stopping and removing branches. */
import assert from 'node:assert/strict';
import { watch } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { endRun } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { isId, randomBelow, systemRandom } from '../../../src/lib/random.ts';
import type { TestApi } from '../../support/api.ts';
import { tracesOf } from '../../support/branch-traces.ts';
import { killablePair } from '../../support/killable-site.ts';
import { BOX, ended, machineThatIsOff, resultOf } from '../../support/paired-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const SIZE_BYTES = 1024 * 1024;
const LIFE_MS_MAX = 1500;
const NIC = { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' } as const;
const LIMIT = { timeout: sizedLimitMs({ normal: 400_000, full: 14_400_000 }) };

/** Names and sizes of all files below a directory. */
async function filesBelow(directory: string): Promise<string[]> {
  const found = await readdir(directory, { recursive: true, withFileTypes: true });
  return found.map(({ parentPath, name }) => join(parentPath, name)).sort();
}

/** Something is done with branches, whatever comes of it: the site that does it is about to be killed. */
async function begin(api: TestApi, known: readonly string[]): Promise<void> {
  const limits = { cpuPercent: 80 };
  const branch = known[randomBelow(systemRandom, known.length + 1)];
  const ofBranch = { params: { machine: 'box', branch: branch ?? '' } };
  if (branch === undefined)
    await api.call('failover.test', { ...BOX, body: { point: '1', keep: true, limits } });
  else if (randomBelow(systemRandom, 3) > 0) await api.call('failover.cleanup', ofBranch);
  else await api.call('failover.stop', { ...ofBranch, body: { graceMs: 0 } });
}

test(
  'S0.26 a site that is killed in the middle of tests and of their clean-up leaves nothing behind',
  LIMIT,
  async (context) => {
    const { t, directory, home, away, homeApi, awayApi } = await killablePair(context);
    let api = awayApi;
    const path = join(directory, 'box.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
    const body = machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' }, [NIC]);
    await homeApi.call('vm.add', { body });
    await homeApi.call('vm.protect', { ...BOX, body: { schedules: [], retention: { types: { crash: 3 } } } });
    const made = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in made && made.job);
    await resultOf(homeApi, made.job);
    await home.end('SIGTERM');

    const { machineId } = await api.call('vm.show', BOX);
    const replica = join(away.dataDirectory, 'replicas', machineId);
    const at = {
      runDirectory: join(away.dataDirectory, 'run'),
      branchesDirectory: join(replica, 'branches'),
    };
    const before = [...(await filesBelow(replica)), ...(await filesBelow(at.runDirectory))];
    /** Every branch that there ever was: its directory is the first thing of it. */
    const ids = new Set<string>();
    const watching = watch(at.branchesDirectory, (_event, name) => {
      if (name !== null && isId(name)) ids.add(name);
    });
    t.after(async () => {
      watching.close();
      for (const id of ids) await endRun(join(at.runDirectory, id), systemClock);
    });

    const kills = sized({ what: 'S0.26: kills amid tests', normal: 5, full: 100 });
    for (let i = 0; i < kills; i++) {
      const known = (await api.call('failover.list', BOX)).map(({ branchId }) => branchId);
      await begin(api, known);
      await sleep(systemClock, randomBelow(systemRandom, LIFE_MS_MAX));
      await away.end('SIGKILL');
      api = await away.serve();
      for (const job of await api.call('job.list')) await ended(api, job);
      const branches = await api.call('failover.list', BOX);
      for (const { running, state } of branches) {
        assert.ok(running ? state === 'probed' : state === 'stopped', `${running}, ${state}`);
      }
      const there = new Set(branches.map(({ branchId }) => branchId));
      for (const id of ids) {
        if (!there.has(id)) assert.deepEqual(await tracesOf(at, id), [], `after kill ${i + 1}: ${id}`);
      }
    }
    for (const { branchId } of await api.call('failover.list', BOX)) {
      await resultOf(
        api,
        await api.call('failover.cleanup', { params: { machine: 'box', branch: branchId } }),
      );
    }
    context.diagnostic(`${kills} kills, ${ids.size} branches`);
    for (const id of ids) assert.deepEqual(await tracesOf(at, id), []);
    assert.deepEqual([...(await filesBelow(replica)), ...(await filesBelow(at.runDirectory))], before);
  },
);
