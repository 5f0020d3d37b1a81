/** The life of disks as an operator sees it: over the API. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, resultOf } from '../../support/paired-sites.ts';
import { BY_HAND, sitesWithMachine, verifiedCopy, write, writeToTip } from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;

describe('disks that come and go, over the API', { timeout: 120_000 }, () => {
  it('S0.28 a disk put into a machine that is off is in the next point; a failover to an older one says that it lacks it; taken out, it is given back', async (t) => {
    const { homeApi, awayApi, directory, disk } = await sitesWithMachine(t);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    const first = await verifiedCopy(homeApi);
    const path = join(directory, 'late.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, '16M']);
    await write(path, 5, 0, 2 * MIB);

    const file = { path, format: 'qcow2' as const };
    const refusals = [
      [{}, 'MACHINE_DISK_UNCLEAR'],
      [{ file: { path: disk, format: 'qcow2' as const } }, 'MACHINE_EXISTS'],
      [{ diskId: 'disk0', file }, 'MACHINE_CONFIGURATION_INVALID'],
      [{ file: { path: join(directory, 'nothing'), format: 'raw' as const } }, 'MACHINE_DISK_UNSUITABLE'],
    ] as const;
    for (const [body, code] of refusals) {
      await assert.rejects(homeApi.call('vm.disk.add', { ...BOX, body }), { code });
    }
    const shown = await homeApi.call('vm.disk.add', { ...BOX, body: { diskId: 'late', file } });
    const [, late] = shown.protected!.disks;
    assert.deepEqual(late, { diskId: 'late', sizeBytes: 16 * MIB, isNew: true, chain: [file] });

    await writeToTip(homeApi, 2, 8 * MIB);
    const second = await verifiedCopy(homeApi);
    const params = (point: string) => ({ params: { machine: 'box', point } });
    const point = await awayApi.call('point.show', params(second.pointId));
    assert.deepEqual(
      point.disks?.map(({ diskId, changedBytes }) => [diskId, changedBytes]),
      [
        ['disk0', MIB],
        ['late', 2 * MIB],
      ],
    );
    const job = await awayApi.call('point.verify', params(second.pointId));
    await resultOf(awayApi, job);
    const after = await homeApi.call('vm.show', BOX);
    assert.equal(after.protected!.disks[1]!.isNew, undefined);
    assert.equal(after.protected!.disks[1]!.chain.length, 2);

    const body = { point: first.pointId, probes: [] };
    const test = await awayApi.call('failover.test', { ...BOX, body });
    const { warnings } = (await resultOf(awayApi, test)) as { warnings: string[] };
    assert.ok(
      warnings.some((said) => said.includes('late')),
      warnings.join('; '),
    );

    // Taken out again: in no further point, and its own file holds everything.
    const remove = { params: { machine: 'box', disk: 'late' } };
    const removed = await homeApi.call('vm.disk.remove', remove);
    assert.equal(removed.protected!.disks[1]!.isLeaving, true);
    await assert.rejects(homeApi.call('vm.disk.remove', remove), { code: 'PROTECTION_DISK_UNKNOWN' });
    await assert.rejects(homeApi.call('vm.disk.remove', { params: { machine: 'box', disk: 'disk0' } }), {
      code: 'PROTECTION_DISK_LAST',
    });
    const third = await verifiedCopy(homeApi);
    const last = await awayApi.call('point.show', params(third.pointId));
    assert.deepEqual(
      last.disks?.map(({ diskId }) => diskId),
      ['disk0'],
    );
    while ((await homeApi.call('vm.show', BOX)).protected!.disks.length > 1) await sleep(systemClock, 20);
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', `read -q -P 5 0 ${2 * MIB}`, path]);
    await resultOf(awayApi, await awayApi.call('point.verify', params(second.pointId)));
  });
});
