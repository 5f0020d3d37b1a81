import assert from 'node:assert/strict';
import { chmod, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { SiteEvent } from '../../../src/api/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, resultOf } from '../../support/paired-sites.ts';
import {
  BY_HAND,
  DISK_BYTES,
  sitesWithMachine,
  verifiedCopy,
  writeToTip,
} from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;
const retired = (event: SiteEvent) => event.event === 'point' && event.change === 'retired';
const acknowledged = (event: SiteEvent) => event.event === 'point' && event.change === 'acknowledged';

describe('two sites over the API', { timeout: 120_000 }, () => {
  it('S0.16 copies arrive verified; retention keeps what the policy says, with the reason, and merges the rest', async (t) => {
    const { homeApi, away, awayApi } = await sitesWithMachine(t);
    const shown = await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    assert.equal(shown.protected!.protection!.targetName, 'away');
    for (const pattern of [11, 12, 13, 14, 15]) {
      if (pattern > 11) await writeToTip(homeApi, pattern, (pattern - 10) * MIB);
      const merged = pattern > 13 ? away.next(retired) : undefined;
      assert.equal((await verifiedCopy(homeApi)).sequence, pattern - 10);
      await merged;
    }
    const points = await awayApi.call('point.list', BOX);
    assert.deepEqual(
      points.map(({ sequence, keptFor, state }) => [sequence, state, keptFor]),
      [
        [3, 'verified', ['type-crash']],
        [4, 'verified', ['type-crash']],
        [5, 'verified', ['newest', 'type-crash']],
      ],
    );
    for (const { pointId } of points) {
      const job = await awayApi.call('point.verify', { params: { machine: 'box', point: pointId } });
      await resultOf(awayApi, job);
    }
    const latest = await awayApi.call('point.show', { params: { machine: 'box', point: 'latest' } });
    assert.ok(latest.proofs.content);
    assert.equal((await awayApi.call('site.show')).points, 3);
    const { protected: home } = await homeApi.call('vm.show', BOX);
    assert.equal(home!.disks[0]!.chain.length, 2, 'what was acknowledged has been merged at home');
  });

  it('S0.15 S0.16 a preview changes nothing and is told at both sites; a held point stays until it is released, and no more are held than a chain may be deep', async (t) => {
    const { homeApi, away, awayApi } = await sitesWithMachine(t);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const first = { params: { machine: 'box', point: '1' } };
    const held = await awayApi.call('point.hold', { ...first, body: { reason: 'audit', forMs: 1e9 } });
    assert.equal(held.hold!.reason, 'audit');
    assert.equal(held.hold!.untilMs! - held.hold!.sinceMs, 1e9);
    assert.deepEqual(held.keptFor, ['newest', 'held', 'type-crash']);
    // With the held point these places make the deepest chain there may be.
    await homeApi.call('vm.policy', { ...BOX, body: { retention: { types: { crash: 3, app: 124 } } } });
    for (const pattern of [12, 13, 14]) {
      await writeToTip(homeApi, pattern, pattern * MIB);
      await verifiedCopy(homeApi);
    }
    const second = { params: { machine: 'box', point: '2' } };
    const oneMore = awayApi.call('point.hold', { ...second, body: { reason: 'also' } });
    await assert.rejects(oneMore, { code: 'REPLICA_TOO_DEEP' });
    const isDeep = async () => (await awayApi.call('alert.list')).find(({ code }) => code === 'REPLICA_DEEP');
    assert.equal((await away.until(isDeep)).severity, 'warning');
    const sequences = async () => (await awayApi.call('point.list', BOX)).map(({ sequence }) => sequence);
    assert.deepEqual(await sequences(), [1, 2, 3, 4]);
    const body = { retention: { types: { crash: 1 } } };
    for (const api of [homeApi, awayApi]) {
      const { points } = await api.call('retention.preview', { ...BOX, body });
      assert.deepEqual(
        points.map(({ sequence, keptFor }) => [sequence, ...keptFor]),
        [[1, 'held'], [2], [3], [4, 'newest', 'type-crash']],
      );
    }
    const tooMany = homeApi.call('retention.preview', {
      ...BOX,
      body: { retention: { types: { crash: 128, app: 1 } } },
    });
    await assert.rejects(tooMany, { code: 'POLICY_TOO_DEEP' });
    assert.deepEqual(await sequences(), [1, 2, 3, 4]);
    // All have arrived in this hour, or the one before: what the site keeps by a floor of its own is the newest of each.
    const calendar = { zone: 'UTC', hourly: 2 };
    await awayApi.call('replica.changeFloor', { body: { calendar } });
    const { points } = await homeApi.call('retention.preview', { ...BOX, body });
    assert.ok(points.at(-1)!.keptFor.includes('floor'), 'the other site is told as well');
    const none = { zone: 'UTC', hourly: 49 };
    await assert.rejects(awayApi.call('replica.changeFloor', { body: { calendar: none } }), {
      code: 'POLICY_TOO_DEEP',
    });
    assert.deepEqual(await awayApi.call('replica.floor'), { calendar });
    await awayApi.call('replica.changeFloor', { body: { calendar: null } });
    assert.deepEqual(await awayApi.call('replica.floor'), {});
    const gone = away.next(retired);
    const released = await awayApi.call('point.release', first);
    assert.equal(released.hold, undefined);
    await gone;
    assert.deepEqual(await sequences(), [2, 3, 4]);
  });

  it('S0.8 copies are made on schedule and when a trigger is called; what cannot be kept is refused and changes nothing', async (t) => {
    const { home, homeApi, awayApi } = await sitesWithMachine(t);
    const schedules = [
      { copyType: 'crash', triggers: [{ kind: 'interval' as const, everyMs: 3_600_000 }] },
      { copyType: 'app', triggers: [{ kind: 'call' as const, name: 'deploy' }] },
    ];
    const first = home.next(acknowledged);
    await homeApi.call('vm.protect', {
      ...BOX,
      body: { schedules, retention: { types: { crash: 4, app: 2 } } },
    });
    await first;
    await writeToTip(homeApi, 9, 8 * MIB);
    const second = home.next(acknowledged);
    const trigger = (name: string) => ({ params: { machine: 'box', trigger: name } });
    assert.deepEqual(await homeApi.call('trigger.call', trigger('deploy')), { copyTypes: ['app'] });
    await second;
    const made = (await awayApi.call('point.list', BOX)).map(({ copyType }) => copyType);
    assert.deepEqual(made, ['crash', 'app']);
    await assert.rejects(homeApi.call('trigger.call', trigger('nothing')), { code: 'TRIGGER_UNKNOWN' });
    const never = [
      { copyType: 'app', triggers: [{ kind: 'fixed' as const, cron: '0 0 30 2 *', zone: 'UTC' }] },
    ];
    const refused = homeApi.call('vm.policy', { ...BOX, body: { schedules: never } });
    await assert.rejects(refused, { code: 'POLICY_NEVER' });
    const keepsNone = homeApi.call('vm.policy', { ...BOX, body: { retention: { types: { app: 1 } } } });
    await assert.rejects(keepsNone, { code: 'POLICY_KEEPS_NOTHING' });
    const { protection } = (await homeApi.call('vm.show', BOX)).protected!;
    assert.deepEqual(protection!.schedules, schedules);
    assert.deepEqual(protection!.retention, { types: { crash: 4, app: 2 } });
  });

  it('copies on schedule; a stopped machine is copied once after it was written to, and not again', async (t) => {
    const { home, homeApi, awayApi } = await sitesWithMachine(t);
    const first = home.next(acknowledged);
    await homeApi.call('vm.protect', { ...BOX, body: { ...BY_HAND, every: { crash: 500 } } });
    await first;
    const second = home.next(acknowledged);
    await writeToTip(homeApi, 7, 8 * MIB);
    await second;
    await sleep(systemClock, 1500);
    assert.equal((await awayApi.call('point.list', BOX)).length, 2);
    const { replication } = (await homeApi.call('vm.show', BOX)).protected!;
    assert.match(replication!.lastSkip!.reason, /does not run/);
    assert.equal(replication!.rpo.actualMs, 0);
    assert.deepEqual(await homeApi.call('alert.list'), []);
  });

  it('S0.11 sites that end and start again go on with differences; a lost database costs no point', async (t) => {
    const { home, away, homeApi, awayApi } = await sitesWithMachine(t);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const before = await awayApi.call('point.list', BOX);
    await away.close();
    await writeToTip(homeApi, 9, 9 * MIB);
    const unsent = await homeApi.call('point.create', { ...BOX, body: { type: 'crash' } });
    assert.ok('point' in unsent && unsent.point.state === 'unsent');
    await home.close();
    for (const suffix of ['', '-wal', '-shm'])
      await rm(join(away.dataDirectory, `site.db${suffix}`), { force: true });
    const awayAgain = await away.serve();
    assert.deepEqual(await awayAgain.call('point.list', BOX), before);
    assert.equal((await awayAgain.call('site.show')).points, 1);
    // Its port has changed: a new token tells the other site.
    const arrived = away.next((event) => event.event === 'point' && event.change === 'published');
    const homeAgain = await home.serve();
    const { token } = await awayAgain.call('site.token', { body: { host: '127.0.0.1' } });
    await homeAgain.call('site.pair', { body: { token } });
    await arrived;
    const points = await awayAgain.call('point.list', BOX);
    assert.deepEqual(
      points.map(({ sequence }) => sequence),
      [1, 2],
    );
    assert.ok(points[1]!.receivedBytes! < 2 * MIB, `${points[1]!.receivedBytes} bytes for 1 MiB of changes`);
    assert.equal(points[1]!.pointId, unsent.point.pointId);
    await resultOf(
      awayAgain,
      await awayAgain.call('point.verify', { params: { machine: 'box', point: 'latest' } }),
    );
    const rebuilt = await awayAgain.call('site.rebuild');
    assert.deepEqual(rebuilt, { machines: 0, replicas: 1, points: 2, broken: [] });
  });

  it('a replica that is damaged is shown as broken, with an alert, and not taken for none', async (t) => {
    const { away, homeApi, awayApi } = await sitesWithMachine(t);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const [machine] = await awayApi.call('vm.list');
    await away.close();
    const directory = join(away.dataDirectory, 'replicas', machine!.machineId);
    await rm(join(directory, 'disks'), { recursive: true });
    const again = await away.serve();
    const [broken] = await again.call('vm.list');
    assert.deepEqual([broken!.machineId, broken!.broken!.kind], [machine!.machineId, 'corrupt']);
    const [alert] = await again.call('alert.list');
    assert.deepEqual([alert!.severity, alert!.machineId], ['critical', machine!.machineId]);
    await assert.rejects(again.call('point.list', { params: { machine: machine!.machineId } }), {
      code: broken!.broken!.code,
    });
  });

  it('a managed machine is started, copied while it runs, asked to stop and unplugged; then it is the owner’s again', async (t) => {
    const { home, disk, homeApi, awayApi } = await sitesWithMachine(t);
    const started = await homeApi.call('vm.start', BOX);
    assert.equal(started.protected!.presence.state, 'running');
    const first = home.next(acknowledged);
    await homeApi.call('vm.protect', { ...BOX, body: { ...BY_HAND, every: { crash: 60_000 } } });
    await first;
    await verifiedCopy(homeApi);
    await home.close();
    const api = await home.serve();
    assert.equal((await api.call('point.list', BOX)).at(-1)!.state, 'verified');
    await assert.rejects(api.call('vm.remove', BOX), { code: 'MACHINE_STILL_PROTECTED' });
    await assert.rejects(api.call('vm.stop', { ...BOX, body: { limitMs: 1000 } }), {
      code: 'MACHINE_STOP_TIMEOUT',
    });
    const stopped = await api.call('vm.stop', { ...BOX, body: { force: true } });
    assert.equal(stopped.protected!.presence.state, 'stopped');
    const freed = await api.call('vm.unprotect', BOX);
    assert.equal(freed.protected!.protection, null);
    assert.deepEqual(freed.protected!.disks[0]!.chain, [{ path: disk, format: 'qcow2' }]);
    await api.call('vm.remove', BOX);
    assert.deepEqual(await api.call('vm.list'), []);
    assert.ok((await awayApi.call('point.list', BOX)).length >= 2, 'the replica stays');
  });

  it('a disk that is not what it is said to be is refused before anything is written', async (t) => {
    const { directory, homeApi } = await sitesWithMachine(t);
    const [machine] = await homeApi.call('vm.list');
    const other = join(directory, 'other.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', other, String(DISK_BYTES)]);
    const child = join(directory, 'child.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', other, child]);
    const configuration = { ...(machine!.configuration as object), name: 'another' };
    const add = (path: string, format: 'qcow2' | 'raw') =>
      homeApi.call('vm.add', { body: { configuration, disks: [{ diskId: 'disk0', path, format }] } });
    await assert.rejects(add(child, 'qcow2'), { code: 'MACHINE_DISK_UNSUITABLE', message: /backing file/ });
    await assert.rejects(add(other, 'raw'), { code: 'MACHINE_DISK_UNSUITABLE' });
    await assert.rejects(add(join(directory, 'none'), 'raw'), { code: 'MACHINE_DISK_UNSUITABLE' });
    await assert.rejects(add(join(directory, 'disk.qcow2'), 'qcow2'), { code: 'MACHINE_EXISTS' });
    assert.equal((await homeApi.call('vm.list')).length, 1);
  });

  it('doctor looks at everything and says what to do about what it found', async (t) => {
    const { home, homeApi, disk } = await sitesWithMachine(t);
    const { checks } = await homeApi.call('doctor');
    for (const { check, verdict, remedy } of checks) {
      assert.equal(verdict === 'ok', remedy === undefined, check);
      const mustBeFine = ['qemu-system-x86_64', 'qemu-img', 'qemu-nbd', 'data directory', 'keys'];
      if (mustBeFine.includes(check)) assert.equal(verdict, 'ok', check);
    }
    const about = ['peer away', 'machine box', 'disks of box'];
    const fine = checks.filter(({ check, verdict }) => about.includes(check) && verdict === 'ok');
    assert.equal(fine.length, about.length);

    const keys = join(home.dataDirectory, 'keys');
    await chmod(join(keys, 'identity.json'), 0o640);
    await rename(disk, `${disk}.away`);
    const bad = (await homeApi.call('doctor')).checks.filter(({ verdict }) => verdict === 'failed');
    assert.deepEqual(
      bad.map(({ check, found }) => [check, found]),
      [
        ['keys', `${join(keys, 'identity.json')} has mode 640`],
        ['disks of box', `${disk} is not there`],
      ],
    );
  });
});
