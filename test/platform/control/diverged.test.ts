/** What a machine wrote at its home after the other site had brought it up: a branch with a name, which is looked at, kept, and removed. */
import assert from 'node:assert/strict';
import { readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { processesOfRun, QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { killablePair } from '../../support/killable-site.ts';
import { assertLedger, inGuest } from '../../support/lab-sites.ts';
import { BOX, machineThatIsOff, resultOf } from '../../support/paired-sites.ts';
import {
  BY_HAND,
  DISK_BYTES,
  heldAt,
  holds,
  sitesWithGuest,
  tipAt,
  verifiedCopy,
  write,
  writeToTip,
} from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;
const CONFIRMED = { confirmOtherSideDown: true as const, probes: [] };
const LAN = { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' } as const;
const named = (branch: string) => ({ params: { machine: 'box', branch } });

/** Whether a MiB of a raw image is all of one pattern. */
async function rawHolds(path: string, pattern: number, offset: number): Promise<boolean> {
  const all = (await readFile(path)).subarray(offset, offset + MIB);
  return all.equals(Buffer.alloc(MIB, pattern));
}

async function divergedAt(api: TestApi) {
  return (await api.call('failover.list', BOX)).filter(({ purpose }) => purpose === 'diverged');
}

describe('what a home wrote after the other site had brought its machine up', { timeout: 300_000 }, () => {
  it('S0.17 is a branch with a name: booted in isolation, exported, kept through kills and turns, and removed by a person alone', async (context) => {
    const { directory, home, homeApi: first, awayApi } = await killablePair(context);
    const disk = join(directory, 'disk.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(DISK_BYTES)]);
    await write(disk, 1, 0, 4 * MIB);
    await first.call('vm.add', {
      body: machineThatIsOff({ path: disk, sizeBytes: DISK_BYTES, format: 'qcow2' }, [LAN]),
    });
    await first.call('vm.protect', { ...BOX, body: BY_HAND });
    const point = await verifiedCopy(first);
    assert.deepEqual(
      await first.call('failover.list', BOX).catch((error) => error.code),
      'MACHINE_NO_REPLICA',
    );
    await writeToTip(first, 5, 6 * MIB);
    await home.end('SIGKILL');

    const begun = await awayApi.call('failover.start', { ...BOX, body: CONFIRMED });
    const { branchId } = (await resultOf(awayApi, begun)) as FailoverReport;
    await awayApi.call('failover.adopt', { ...BOX, body: { branch: branchId! } });
    const before = await processesOfRun(join(directory, 'away', 'run', branchId!));
    await awayApi.call('vm.protect', { ...BOX, body: BY_HAND });

    // It comes back, hears of that, and has its branch before anything else has happened, also after a kill.
    let homeApi = await home.serve();
    await eventually(async () => ((await heldAt(homeApi)) === undefined ? undefined : true));
    const [heard] = await divergedAt(homeApi);
    await home.end('SIGKILL');
    homeApi = await home.serve();
    const [branch] = await divergedAt(homeApi);
    assert.equal(branch!.branchId, heard!.branchId);
    assert.deepEqual(
      [branch!.name, branch!.pointId, branch!.sequence, branch!.running],
      ['diverged-1', point.pointId, 1, false],
    );
    assert.ok(branch!.divergedAtMs! <= branch!.createdAtMs);
    assert.ok(branch!.ownBytes >= MIB && branch!.ownBytes < 2 * MIB, `${branch!.ownBytes} bytes`);
    await assert.rejects(homeApi.call('vm.start', BOX), /.*/);
    await assert.rejects(homeApi.call('failover.stop', { ...named('diverged-1'), body: {} }), {
      code: 'FAILOVER_BRANCH_DIVERGED',
    });
    await assert.rejects(homeApi.call('failover.restart', { ...named('diverged-1'), body: {} }), {
      code: 'FAILOVER_BRANCH_DIVERGED',
    });

    // A test of it is a branch upon it, without a way out, and what it writes is its own.
    const tip = await tipAt(homeApi);
    const bytes = await readFile(tip);
    const tested = (await resultOf(
      homeApi,
      await homeApi.call('failover.testBranch', {
        ...named('diverged-1'),
        body: { keep: true, name: 'look', probes: [] },
      }),
    )) as FailoverReport;
    assert.deepEqual(
      [tested.kind, tested.verdict, tested.point.branchName, tested.attempts[0]!.network.kind],
      ['test', 'unproven', 'diverged-1', 'isolated'],
    );
    const run = join(directory, 'home', 'run', tested.branchId!);
    const testing = await processesOfRun(run);
    assert.equal(testing.length, 1);
    const networkOf = (pid: number | 'self') => readlink(`/proc/${pid}/ns/net`);
    assert.notEqual(await networkOf(testing[0]!), await networkOf('self'));
    // The site process dies; the test runs on, and is found.
    await home.end('SIGKILL');
    homeApi = await home.serve();
    assert.deepEqual(await processesOfRun(run), testing);
    const look = (await homeApi.call('failover.list', BOX)).find(({ name }) => name === 'look');
    assert.deepEqual([look!.upon, look!.purpose, look!.running], [branch!.branchId, 'test', true]);
    const needed = { code: 'BRANCH_NEEDED' };
    const cleanUp = async (name: string) =>
      resultOf(homeApi, await homeApi.call('failover.cleanup', named(name)));
    await assert.rejects(cleanUp('diverged-1'), /tests lie upon diverged-1/);
    const word = { ...BOX, body: { confirmOtherSideDown: true } } as const;
    await assert.rejects(homeApi.call('vm.unprotect', word), needed);
    await assert.rejects(homeApi.call('failover.withdraw', word), needed);
    await resultOf(homeApi, await homeApi.call('failover.stop', { ...named('look'), body: { graceMs: 0 } }));
    await write(
      join(directory, 'home', 'protected', branch!.machineId, 'branches', look!.branchId, 'disk0.qcow2'),
      6,
      7 * MIB,
      MIB,
    );
    const again = (await resultOf(
      homeApi,
      await homeApi.call('failover.restart', { ...named('look'), body: { probes: [] } }),
    )) as FailoverReport;
    assert.equal(again.branchId, look!.branchId);
    await cleanUp('look');
    assert.deepEqual(await processesOfRun(run), []);
    assert.ok((await readFile(tip)).equals(bytes), 'no byte of it has changed');

    // Its disks as files, which are read and not written.
    const exported = async () =>
      (await resultOf(
        homeApi,
        await homeApi.call('failover.export', { ...named('diverged-1'), body: { path: directory } }),
      )) as { directory: string; disks: { file: string; sizeBytes: number }[] };
    const { directory: out, disks } = await exported();
    assert.deepEqual(
      [out, disks],
      [join(directory, 'box-diverged-1'), [{ diskId: 'disk0', file: 'disk0.raw', sizeBytes: DISK_BYTES }]],
    );
    const raw = join(out, 'disk0.raw');
    const { size, mode, blocks } = await stat(raw);
    assert.deepEqual([size, mode & 0o222], [DISK_BYTES, 0]);
    assert.ok(blocks * 512 < 8 * MIB, 'it is sparse');
    assert.deepEqual(
      [await rawHolds(raw, 1, 0), await rawHolds(raw, 5, 6 * MIB), await rawHolds(raw, 0, 7 * MIB)],
      [true, true, true],
    );
    await assert.rejects(exported(), /is there already/, 'what was exported before is not taken for it');

    // The copies of the other site come in beside it, and the machine comes home: it is a branch still, of an older generation.
    await verifiedCopy(awayApi);
    assert.equal(await heldAt(homeApi), 'handed-over');
    assert.deepEqual(await processesOfRun(join(directory, 'away', 'run', branchId!)), before, 'it runs on');
    await resultOf(awayApi, await awayApi.call('failover.cede', { ...BOX, body: { powerOff: true } }));
    const taken = await homeApi.call('failover.take', { ...BOX, body: { probes: [], waitMs: 30_000 } });
    await resultOf(homeApi, taken);
    await homeApi.call('failover.adopt', { ...BOX, body: {} });
    const [kept] = await divergedAt(homeApi);
    assert.deepEqual(
      [kept!.branchId, kept!.name, kept!.ownBytes],
      [branch!.branchId, 'diverged-1', branch!.ownBytes],
    );
    const tested2 = (await resultOf(
      homeApi,
      await homeApi.call('failover.testBranch', { ...named('diverged-1'), body: { probes: [] } }),
    )) as FailoverReport;
    assert.equal(tested2.attempts[0]!.kept, false);
    assert.ok(await holds(tip, 5, 6 * MIB));
    await cleanUp('diverged-1');
    assert.deepEqual(await divergedAt(homeApi), []);
    await assert.rejects(stat(tip), { code: 'ENOENT' });
    assert.equal((await homeApi.call('vm.show', BOX)).protected!.presence.state, 'running');
    await homeApi.call('vm.stop', { ...BOX, body: { force: true } });
  });

  it('S0.17 a guest that is booted on it finds what it wrote last, while the machine runs on at the other site', async (context) => {
    const { directory, lab, ledger, home, homeApi, away, awayApi } = await sitesWithGuest(context);
    const begun = await awayApi.call('failover.start', {
      ...BOX,
      body: { confirmOtherSideDown: true, name: 'there' },
    });
    assert.equal(((await resultOf(awayApi, begun)) as FailoverReport).verdict, 'passed');
    await inGuest(lab.agentPath, 'echo written-at-home > /data/only-here && sync');
    const promised = (await ledger.next()).seq;
    await Promise.allSettled([homeApi.call('point.create', { ...BOX, body: { type: 'crash' } })]);
    await home.until(async () => {
      const { heldBy, presence } = (await homeApi.call('vm.show', BOX)).protected!;
      return heldBy?.how === 'fenced' && presence.state === 'stopped' ? true : undefined;
    });

    const [branch] = await divergedAt(homeApi);
    assert.equal(branch!.name, 'diverged-1');
    const probes = [
      { kind: 'agent' as const },
      {
        kind: 'guest' as const,
        command: '/bin/cat',
        arguments: ['/data/only-here'],
        pattern: '^written-at-home$',
      },
    ];
    const report = (await resultOf(
      homeApi,
      await homeApi.call('failover.testBranch', { ...named('diverged-1'), body: { probes } }),
    )) as FailoverReport;
    assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
    assert.notEqual(report.attempts[0]!.network.kind, 'connected');
    assert.deepEqual(
      (await homeApi.call('failover.list', BOX)).map(({ purpose }) => purpose),
      ['diverged'],
      'nothing of the test is left',
    );
    const { reports } = await homeApi.call('report.list', { query: { limit: '1' } });
    assert.deepEqual([reports[0]!.kind, reports[0]!.verdict], ['test', 'passed']);

    const { directory: out } = (await resultOf(
      homeApi,
      await homeApi.call('failover.export', { ...named('diverged-1'), body: { path: directory } }),
    )) as { directory: string };
    const images = new QemuImages({ clock: systemClock });
    const { disks } = (await homeApi.call('vm.show', BOX)).protected!;
    const rawOf = (name: 'system' | 'data') => [
      { path: join(out, `${disks[name === 'system' ? 0 : 1]!.diskId}.raw`), format: 'raw' as const },
    ];
    await assertLedger(images, rawOf, promised);

    await resultOf(homeApi, await homeApi.call('failover.cleanup', named('diverged-1')));
    await assert.rejects(homeApi.call('vm.show', BOX), { code: 'MACHINE_UNKNOWN' });
    const [there] = await awayApi.call('failover.list', BOX);
    assert.deepEqual([there!.name, there!.running], ['there', true]);
    await resultOf(awayApi, await awayApi.call('failover.cleanup', named('there')));
    await away.close();
  });
});
