/** What crash- and application-consistent copies promise, read from the points without any guest running. */
import assert from 'node:assert/strict';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { partitionArea } from '../../../lab/index.ts';
import type { DiskImages, ImageFile } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { piecesOf } from '../../../src/lib/extents.ts';
import { exitOf, runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { GuestAgent } from '../../../src/qmp/index.ts';
import { ranked } from '../../../src/recovery-point/index.ts';
import { readAhead } from '../../../src/replica/index.ts';
import type { CutRecord, ProtectedMachine } from '../../../src/replication/index.ts';
import { areaOf } from '../../support/image-bytes.ts';
import { assertLedger, copyAndSend, inGuest, labSites, sendAll } from '../../support/lab-sites.ts';
import { siteUntil } from '../../support/site-until.ts';

describe('consistency of copies', { timeout: 240_000 }, () => {
  it('S0.5 S0.6 S0.7 S0.9', async (t) => {
    const lab = await labSites(t);
    const { machine, sites } = lab;
    const { images } = sites.protectedTools;
    const ledger = await lab.ledger();
    const agentPath = machine.record.sockets.agentPath!;
    const { freezeLimitMs } = machine.record.protection!;
    const saidOnPoint = async (cut: CutRecord) => {
      await sendAll(machine, sites.target);
      const { copyType, consistency, degraded } = lab.replica().point(cut.cutId).statement;
      assert.deepEqual([copyType, consistency, degraded], [cut.copyType, 'crash', cut.degraded]);
    };
    await inGuest(
      agentPath,
      'while [ ! -e /data/app.db ]; do usleep 20000; done; touch /data/run-sqlite; while [ ! -s /data/app.db-wal ]; do usleep 20000; done',
    );
    await copyAndSend(machine, sites.target);

    await t.test('S0.5 a crash-consistent copy is not noticed by the guest', async () => {
      const log = 'cat /run/log/qemu-ga.log /run/freeze.log 2>/dev/null | wc -l';
      await using agent = await GuestAgent.connect({
        path: agentPath,
        clock: systemClock,
        random: systemRandom,
      });
      const count = async () => (await agent.exec('/bin/sh', ['-c', log])).stdout.trim();
      const promised = (await ledger.next()).seq;
      const before = await count();
      const cost = Number(await count()) - Number(before);
      // The agent's one client is this test: whoever else wanted the agent would wait, and say so on the point.
      const { pointId } = await copyAndSend(machine, sites.target);
      const { statement } = lab.replica().point(pointId);
      assert.deepEqual(
        [statement.consistency, statement.degraded, statement.frozenMs],
        ['crash', undefined, undefined],
      );
      assert.equal(
        Number(await count()) - Number(before),
        2 * cost,
        'the agent was asked something by the copy',
      );
      assert.ok(statement.pauseMs < 500, `${statement.pauseMs} ms`);
      assert.equal(await needsJournal(images, lab.replica().chain(pointId, 'data')), true);
      await assertLedger(images, (diskId) => lab.replica().chain(pointId, diskId), promised);
    });

    await t.test('S0.6 S0.9 an application-consistent copy needs neither journal nor log', async () => {
      const beforeMs = systemClock.monotonicMs();
      const { pointId } = await copyAndSend(machine, sites.target, 'app');
      const tookMs = systemClock.monotonicMs() - beforeMs;
      assert.ok(tookMs < 20_000, `${tookMs} ms from the wish to the point`);
      const { statement } = lab.replica().point(pointId);
      assert.deepEqual(
        [statement.copyType, statement.consistency, statement.degraded],
        ['app', 'application', undefined],
      );
      assert.ok(statement.frozenMs! <= freezeLimitMs, `${statement.frozenMs} ms`);
      t.diagnostic(
        `frozen for ${Math.round(statement.frozenMs!)} ms, cut in ${statement.pauseMs.toFixed(1)} ms`,
      );
      for (const diskId of ['system', 'data']) {
        assert.equal(await needsJournal(images, lab.replica().chain(pointId, diskId)), false, diskId);
      }
      const partition = await dumpPartition(
        images,
        lab.replica().chain(pointId, 'data'),
        join(sites.directory, 'data.raw'),
      );
      const database = join(sites.directory, 'app.db');
      await runCommand('debugfs', ['-R', `dump /app.db ${database}`, partition]);
      await runCommand('debugfs', ['-R', `dump /app.db-wal ${database}-wal`, partition]);
      assert.equal((await stat(`${database}-wal`)).size, 0, 'the write-ahead log holds frames');
      // Opened without its log: all that was committed is in the database itself.
      const question =
        'PRAGMA integrity_check; SELECT sum(amount), count(*) > 0, count(*) % 2 FROM transfers;';
      const { stdout } = await runCommand('sqlite3', [`file:${database}?immutable=1`, question]);
      assert.deepEqual(stdout.trim().split('\n'), ['ok', '0|1|0']);
      await runCommand('e2fsck', ['-f', '-n', partition]);
    });

    await t.test(
      'S0.7 the newest application-consistent point counts as a crash-consistent one',
      async () => {
        const points = lab.replica().points.map(({ statement }) => ({
          ...statement,
          boot: 'not-tried' as const,
        }));
        const newest = points.at(-1)!.pointId;
        assert.equal(points.at(-1)!.consistency, 'application');
        assert.equal(
          ranked(points, { atLeast: 'crash', applicationWorthMs: 0, provenWorthMs: 0 })[0]!.pointId,
          newest,
        );
        await copyAndSend(machine, sites.target);
        const again = lab.replica().points.map(({ statement }) => ({
          ...statement,
          boot: 'not-tried' as const,
        }));
        assert.equal(
          ranked(again, { atLeast: 'application', applicationWorthMs: 0, provenWorthMs: 0 })[0]!.pointId,
          newest,
        );
      },
    );

    await t.test('S0.6 an agent that hangs costs the consistency, not the copy, and is said so', async () => {
      await machine.changeProtection({ freezeLimitMs: 1000 });
      const hang = 'kill -STOP $(pidof qemu-ga); usleep 4000000; kill -CONT $(pidof qemu-ga)';
      await inGuest(agentPath, `(usleep 100000; ${hang}) >/dev/null 2>&1 </dev/null &`);
      await sleep(systemClock, 500);
      const beforeMs = systemClock.monotonicMs();
      const cut = await machine.cut('app');
      const tookMs = systemClock.monotonicMs() - beforeMs;
      assert.equal(cut.consistency, 'crash');
      assert.match(cut.degraded!, /agent does not answer/);
      assert.ok(tookMs < 4000, `the copy took ${tookMs} ms`);
      await saidOnPoint(cut);
    });

    await t.test('S0.6 an agent that is killed while the guest is frozen costs it, too', async () => {
      const limitMs = 2 * freezeLimitMs;
      await machine.changeProtection({ freezeLimitMs: limitMs });
      // The agent marks a freeze on a file system in memory; init starts it again after 200 ms.
      const kill =
        'until [ -e /run/qga.state.isfrozen ]; do usleep 20000; done; usleep 500000; kill -9 $(pidof qemu-ga)';
      await inGuest(agentPath, `(${kill}) >/dev/null 2>&1 </dev/null &`);
      const died = Promise.withResolvers<void>();
      let isAlive = true;
      const unlisten = machine.onEvent(({ name, data }) => {
        if (name !== 'VSERPORT_CHANGE' || data.id !== 'agent' || data.open === true) return;
        isAlive = false;
        died.resolve();
      });
      const cut = await cutLate(machine, () => {
        assert.ok(isAlive, 'it has told that the guest is frozen');
        return died.promise;
      });
      unlisten();
      assert.equal(cut.consistency, 'crash');
      assert.equal(cut.degraded, 'the guest agent ended while the guest was frozen');
      assert.ok(cut.frozenMs! < limitMs, `${cut.frozenMs} ms`);
      t.diagnostic(`its agent killed, thawed after ${cut.frozenMs} ms`);
      await saidOnPoint(cut);
      await inGuest(agentPath, 'touch /data/writable && sync');
    });

    await t.test('S0.6 a cut that takes longer than the guest may be frozen finds it thawed', async () => {
      // Without the hook of its database, which takes seconds on a host that is busy.
      const hooks = '/etc/qemu/fsfreeze-hook.d/*';
      await inGuest(agentPath, `chmod -x ${hooks}`);
      const limitMs = freezeLimitMs / 2;
      await machine.changeProtection({ freezeLimitMs: limitMs });
      // The guard has the agent until the guest is thawed; until then no file system of it can be written to.
      const cut = await cutLate(machine, () => inGuest(agentPath, 'touch /data/late && sync'));
      assert.equal(cut.consistency, 'crash');
      assert.equal(cut.degraded, 'the guest was thawed before the cut had ended (limit)');
      assert.ok(cut.frozenMs! >= limitMs && cut.frozenMs! < freezeLimitMs, `${cut.frozenMs} ms`);
      t.diagnostic(`limit of ${limitMs} ms: thawed after ${cut.frozenMs} ms`);
      await saidOnPoint(cut);
      await inGuest(agentPath, `chmod +x ${hooks}`);
      await machine.changeProtection({ freezeLimitMs });
    });

    await t.test('S0.6 a hook that fails leaves the guest thawed and the copy crash-consistent', async () => {
      const hook = '/etc/qemu/fsfreeze-hook.d/refuses';
      await inGuest(agentPath, `printf '#!/bin/sh\\n[ $1 = thaw ]\\n' > ${hook}; chmod +x ${hook}`);
      const cut = await machine.cut('app');
      assert.equal(cut.consistency, 'crash');
      assert.match(cut.degraded!, /not frozen/);
      await inGuest(agentPath, `rm ${hook}; touch /data/writable`);
    });

    await t.test(
      'S0.6 a site process that is killed while the guest is frozen leaves it thawed in time',
      async () => {
        await machine.release();
        const child = await siteUntil(t, sites, ['freeze'], 'frozen');
        const frozenAtMs = systemClock.monotonicMs();
        child.kill('SIGKILL');
        await exitOf(child);
        await inGuest(agentPath, 'touch /data/after-kill && sync');
        const tookMs = systemClock.monotonicMs() - frozenAtMs;
        assert.ok(tookMs < freezeLimitMs + 3000, `thawed after ${tookMs} ms`);
        assert.equal((await machine.attach()).state, 'running');
        assert.equal((await machine.cut('app')).consistency, 'application');
      },
    );
  });
});

/** An application-consistent copy whose cut waits for something when the guest has been frozen. */
async function cutLate(machine: ProtectedMachine, what: () => Promise<unknown>): Promise<CutRecord> {
  const running = machine.running!;
  const cut = running.cut.bind(running);
  running.cut = async (disks) => {
    await what();
    return cut(disks);
  };
  try {
    return await machine.cut('app');
  } finally {
    running.cut = cut;
  }
}

/** Where the ext4 file system of a lab disk begins: the second partition of both. */
async function fileSystemArea(images: DiskImages, chain: readonly ImageFile[]) {
  await using reader = await images.open(chain);
  const area = await partitionArea(areaOf(reader).read, 2);
  return area!;
}

/** Whether mounting would replay the journal: s_magic, then «recover» of s_feature_incompat (ext4, super.h). */
async function needsJournal(images: DiskImages, chain: readonly ImageFile[]): Promise<boolean> {
  const { offset } = await fileSystemArea(images, chain);
  await using reader = await images.open(chain);
  const superblock = Buffer.alloc(1024);
  await reader.readInto(superblock, offset + 1024);
  assert.equal(superblock.readUInt16LE(0x38), 0xef53);
  return (superblock.readUInt32LE(0x60) & 0x4) !== 0;
}

async function dumpPartition(images: DiskImages, chain: readonly ImageFile[], path: string): Promise<string> {
  const area = await fileSystemArea(images, chain);
  await using reader = await images.open(chain);
  await using file = await open(path, 'w');
  await file.truncate(area.length);
  for await (const { piece, data } of readAhead(reader, piecesOf([area], 1024 * 1024))) {
    await file.write(data, 0, data.length, piece.offset - area.offset);
  }
  return path;
}
