/** A group from one site to the other, by the API alone. QEMU without guests: what they would write is not looked at here. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import type { GroupJobs } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { pairedSites, resultOf } from '../../support/paired-sites.ts';
import { EMPTY_MACHINE, socketListens, startedProcess } from '../../support/started.ts';
import type { CleanUp } from '../../support/temporary.ts';

const DISK_BYTES = 1024 * 1024;

/** A QEMU of two disks that does nothing, added to the site and protected. */
async function addMachine(t: CleanUp, directory: string, api: TestApi, name: string, crashPoints: number) {
  const qmpPath = join(directory, `${name}.qmp`);
  const drives: string[] = [];
  for (const disk of ['a', 'b']) {
    const path = join(directory, `${name}-${disk}.qcow2`);
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(DISK_BYTES)]);
    const node = {
      driver: 'qcow2',
      'node-name': disk,
      discard: 'unmap',
      file: { driver: 'file', filename: path },
    };
    drives.push('-blockdev', JSON.stringify(node), '-device', `virtio-blk-pci,id=disk-${disk},drive=${disk}`);
  }
  const child = await startedProcess(t, 'qemu-system-x86_64', [
    ...['-name', name, ...EMPTY_MACHINE],
    ...['-qmp', `unix:${qmpPath},server=on,wait=off`, ...drives],
  ]);
  await socketListens(qmpPath);
  await api.call('vm.add', { body: { attach: { qmpPath, name } } });
  const retention = { types: { crash: crashPoints } };
  await api.call('vm.protect', { params: { machine: name }, body: { schedules: [], retention } });
  return child;
}

it('S0.28 a group is set up, cut, and found whole at the recovery site', {
  timeout: 180_000,
}, async (context) => {
  const { t, directory, home, homeApi: api, awayApi: there } = await pairedSites(context);
  await addMachine(t, directory, api, 'web', 3);
  const db = await addMachine(t, directory, api, 'db', 1);
  const shop = { params: { group: 'shop' } };

  await assert.rejects(there.call('group.points', shop), /holds no points of a group shop/);
  const made = await api.call('group.create', {
    body: { name: 'shop', members: ['web', 'db'], limitMs: 10_000 },
  });
  assert.deepEqual([made.role, made.members.map(({ name }) => name)], ['protected', ['web', 'db']]);
  await assert.rejects(
    api.call('vm.unprotect', { params: { machine: 'db' }, body: {} }),
    /db is in the group shop/,
  );

  /** Cuts the group; resolves when the points of all its members are at the other site. */
  const cutAndWait = async () => {
    const cut = await api.call('group.cut', { ...shop, body: {} });
    assert.equal(cut.reason, undefined);
    assert.equal(cut.together, true);
    for (;;) {
      const points = await there.call('group.points', shop).catch(() => []);
      const found = points.find(({ cutId }) => cutId === cut.cutId);
      if (found) return { cut, found };
      await sleep(systemClock, 50);
    }
  };
  const first = await cutAndWait();
  assert.deepEqual(
    first.found.members.map(({ machineId, pointId }) => ({ machineId, pointId })),
    first.cut.members
      .map(({ machineId, pointId }) => ({ machineId, pointId }))
      .sort((a, b) => (a.machineId < b.machineId ? -1 : 1)),
  );
  assert.ok(first.found.pauseMs > 0 && first.found.pauseMs === first.cut.pauseMs);

  // The policy of `db` alone would keep one point; `web` keeps three.
  for (let round = 0; round < 3; round++) await cutAndWait();
  const points = await there.call('group.points', shop);
  for (const { members } of points.slice(-3)) {
    assert.deepEqual(
      members.map(({ keptFor }) => keptFor.includes('group')),
      [true, true],
    );
  }
  const list = await there.call('point.list', { params: { machine: 'db' } });
  assert.deepEqual(list.at(-1)!.group!.whole, true);

  const [view] = await there.call('group.list');
  assert.deepEqual([view!.role, view!.newest!.cutId], ['replica', points.at(-1)!.cutId]);
  const held = await there.call('point.hold', {
    params: { machine: 'web', point: points.at(-2)!.cutId },
    body: { reason: 'a cut of all' },
  });
  assert.ok(points.at(-2)!.members.some(({ pointId }) => pointId === held.pointId));
  const latest = await there.call('point.show', { params: { machine: 'db', point: 'latest-group' } });
  assert.equal(latest.group!.cutId, points.at(-1)!.cutId);

  // All machines are booted from one cut, each a job of its own.
  const jobsOf = async ({ cutId, jobs }: GroupJobs) => {
    const results: FailoverReport[] = [];
    for (const { job } of jobs) results.push((await resultOf(there, job)) as FailoverReport);
    const cut = points.find((point) => point.cutId === cutId)!;
    assert.deepEqual(
      results.map(({ point }) => point.pointId),
      cut.members.map(({ pointId }) => pointId),
    );
    return results;
  };
  const cleanUp = async () => {
    for (const machine of ['web', 'db']) {
      for (const { branchId } of await there.call('failover.list', { params: { machine } })) {
        const params = { machine, branch: branchId };
        await resultOf(there, await there.call('failover.cleanup', { params }));
      }
    }
  };
  const rehearsed = await jobsOf(
    await there.call('group.test', {
      ...shop,
      body: { cut: points.at(-2)!.cutId, name: 'friday', keep: true },
    }),
  );
  assert.equal(new Set(rehearsed.map(({ branchId }) => branchId)).size, 2);
  await assert.rejects(
    there.call('group.test', { ...shop, body: { cut: points[0]!.groupId } }),
    /no whole cut .* of shop/,
  );
  const confirmed = { confirmOtherSideDown: true } as const;
  const strange = { networks: { web: { lan: { kind: 'bridge', bridge: 'br0' } } } } as const;
  const failover = { ...shop, body: { ...confirmed, ...strange } };
  await assert.rejects(there.call('group.failover', failover), /no NIC lan/);
  await cleanUp();

  // A member that is off: the other one's copy is its own.
  const stopped = home.next((event) => event.event === 'machine' && event.state === 'stopped');
  db.kill('SIGKILL');
  await stopped;
  const apart = await api.call('group.cut', { ...shop, body: {} });
  assert.deepEqual(
    [apart.together, apart.members.find(({ name }) => name === 'web')!.pointId?.length],
    [false, 26],
  );
  assert.match(apart.reason!, /no cut of the whole group: db: /);
  const alerts = await api.call('alert.list');
  assert.ok(alerts.some(({ code }) => code === 'GROUP_CUT_APART'));

  // Its record outlives the process of the site.
  await home.close();
  const again = await home.serve();
  assert.deepEqual((await again.call('group.show', shop)).groupId, made.groupId);
  await again.call('group.remove', shop);
  assert.deepEqual(await again.call('group.list'), []);
  assert.ok((await there.call('group.points', shop)).length > 0);

  // And failed over together, with the other site gone.
  await home.close();
  const begun = await there.call('group.failover', { ...shop, body: confirmed });
  assert.equal(begun.cutId, points.at(-1)!.cutId);
  for (const { branchId, epoch } of await jobsOf(begun)) assert.ok(branchId && epoch === 2);
  await cleanUp();
});
