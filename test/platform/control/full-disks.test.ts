/** File systems that are full in earnest, at either end: below a running guest, and below its replica. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { SiteEvent } from '../../../src/api/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { ledgerPortOf } from '../../support/lab-guest.ts';
import { INCREMENT_BYTES_MAX, inGuest } from '../../support/lab-sites.ts';
import { BOX, pairedSites, someonesMachine } from '../../support/paired-sites.ts';
import { verifiedCopy } from '../../support/site-of-box.ts';
import { assertWholeReplicaAt } from '../../support/site-replica.ts';
import { type SmallFileSystem, smallFileSystem } from '../../support/small-file-system.ts';

const MIB = 1024 * 1024;
const retired = (event: SiteEvent) => event.event === 'point' && event.change === 'retired';
const CRASH = { ...BOX, body: { type: 'crash' } } as const;

describe('disks that are full', { timeout: 240_000 }, () => {
  it('S0.10 S0.11', async (context) => {
    let homeDisk!: SmallFileSystem;
    let awayDisk!: SmallFileSystem;
    const { t, directory, home, away, homeApi, awayApi } = await pairedSites(context, {
      prepare: async (t, at) => {
        homeDisk = await smallFileSystem(t, join(at, 'home'), 64 * MIB);
        awayDisk = await smallFileSystem(t, join(at, 'away'), 160 * MIB);
      },
    });
    const { lab, attach } = await someonesMachine(t, directory);
    const ledger = await ledgerPortOf(t, lab);
    const fill = (name: string, mib: number) =>
      inGuest(
        lab.agentPath,
        `labtool fill --file /data/${name} --bytes ${mib * MIB} --seed ${mib} --pattern random && sync`,
      );
    const atHome = async () => (await homeApi.call('vm.show', BOX)).protected!;
    const points = () => awayApi.call('point.list', BOX);
    const sequences = async () => (await points()).map(({ sequence }) => sequence);
    const alerts = async (api: typeof homeApi) => (await api.call('alert.list')).map(({ code }) => code);
    await homeApi.call('vm.add', { body: { attach } });
    const retention = { types: { crash: 2, app: 0 } };
    await homeApi.call('vm.protect', { ...BOX, body: { every: {}, retention } });
    await verifiedCopy(homeApi);

    await context.test(
      'below a running guest: it stands still, everybody is told, and it goes on by itself when there is room',
      async () => {
        await homeDisk.fill(6 * MIB);
        const writing = fill('one', 16);
        const standstill = await home.until(async () => (await atHome()).presence.standstill);
        assert.deepEqual(standstill, { why: 'no-space', disks: ['disk1'] });
        // What the guest wanted to write at once may have been larger than what is left.
        await homeDisk.fill(0);
        const [alert] = await homeApi.call('alert.list');
        assert.deepEqual([alert!.code, alert!.severity], ['MACHINE_NO_SPACE', 'critical']);
        assert.match(alert!.message, /^box stands still: disk disk1 cannot grow, .*\/home\//);

        // A copy would need a layer; the one that the guest stands upon stays its tip, and nothing half made is left.
        const before = await atHome();
        await assert.rejects(homeApi.call('point.create', CRASH), { code: 'DISK_FULL' });
        const { disks, presence } = await atHome();
        assert.deepEqual([disks, presence], [before.disks, before.presence]);

        // Where there is room for a copy, though not for the guest, it has what the guest had written until then.
        const promised = ledger.last!.seq;
        await homeDisk.fill(3 * MIB);
        await verifiedCopy(homeApi);
        await homeDisk.makeRoom();
        await writing;
        assert.ok((await ledger.next()).seq > promised);
        assert.equal((await atHome()).presence.standstill, undefined);
        assert.deepEqual(await alerts(homeApi), []);
        const [act] = (await homeApi.call('audit.list')).entries;
        assert.deepEqual([act!.actor, act!.act], ['site', 'vm.continue']);

        const gone = away.next(retired);
        await verifiedCopy(homeApi);
        await gone;
        const received = (await points()).map(({ receivedBytes }) => receivedBytes!);
        context.diagnostic(`${received.join(' and ')} bytes for 16 MiB that were written over the full disk`);
        assert.ok(received[0]! + received[1]! < 16 * MIB + INCREMENT_BYTES_MAX);
        assert.deepEqual(await sequences(), [2, 3]);
      },
    );

    await context.test(
      'below a replica: what cannot be received or merged waits, and goes on incrementally when there is room',
      async () => {
        const first = { params: { machine: 'box', point: '2' } };
        await awayApi.call('point.hold', { ...first, body: { reason: 'folded when there is no room' } });
        await fill('two', 20);
        await awayDisk.fill(6 * MIB);
        await homeApi.call('point.create', CRASH);
        while ((await atHome()).replication!.failure?.code !== 'DISK_FULL') await sleep(systemClock, 50);
        assert.deepEqual(await sequences(), [2, 3], 'nothing incomplete is listed');
        await ledger.next();
        await awayDisk.makeRoom();
        const gone = away.next(retired);
        await verifiedCopy(homeApi);
        await gone;
        assert.deepEqual(await sequences(), [2, 4, 5]);
        const [, fourth] = await points();
        assert.ok(fourth!.receivedBytes! < 20 * MIB + INCREMENT_BYTES_MAX, `${fourth!.receivedBytes} bytes`);

        // The third point's layer and the fourth's, some 36 MiB, are to go into the base.
        await awayDisk.fill(3 * MIB);
        await awayApi.call('point.release', first);
        const alert = await away.until(async () => (await awayApi.call('alert.list'))[0]);
        context.diagnostic(`a merge on the full disk: ${alert.code}`);
        assert.match(alert.key, /^retention:/);
        assert.deepEqual(await sequences(), [4, 5], 'what was acknowledged and is to be kept');
        const promised = (await ledger.next()).seq;
        await awayDisk.makeRoom();
        await verifiedCopy(homeApi);
        await away.until(async () => (String(await sequences()) === '5,6' ? true : undefined));
        const { receivedBytes } = (await points()).at(-1)!;
        assert.ok(receivedBytes! < INCREMENT_BYTES_MAX, `${receivedBytes} bytes`);
        for (const api of [homeApi, awayApi]) assert.deepEqual(await alerts(api), []);

        await home.close();
        await away.close();
        assert.equal(await assertWholeReplicaAt(away.dataDirectory, promised), 2);
      },
    );
  });
});
