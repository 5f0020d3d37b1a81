import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  buildLabGuest,
  checkLedgerDisks,
  copyLabGuest,
  LEDGER_AREAS,
  LedgerPort,
} from '../../../lab/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { areaOf } from '../../support/image-bytes.ts';
import { reopenMachine, twoSites } from '../../support/two-sites.ts';

const PROTECTION = {
  schedules: [],
  retention: { types: { crash: 3, app: 2 } },
  freezeLimitMs: 5000,
  compression: false,
};

describe('replication of a running machine', { timeout: 120_000 }, () => {
  it('S0.3 S0.14 seeds, sends differences, merges at both sides and keeps the ledger whole', async (t) => {
    const sites = await twoSites(t);
    const guest = await copyLabGuest(await buildLabGuest(), sites.directory);
    const disks = await Promise.all(
      Object.entries({ system: guest.systemDisk, data: guest.dataDisk }).map(async ([diskId, path]) => {
        const { stdout } = await runCommand('qemu-img', ['info', '-f', 'qcow2', '--output=json', path]);
        return { diskId, path, sizeBytes: JSON.parse(stdout)['virtual-size'] as number };
      }),
    );
    const ledgerPath = join(sites.directory, 'ledger');
    const machine = await sites.addMachine(disks, [
      '-chardev',
      `socket,id=ledger,path=${ledgerPath},server=on,wait=off`,
      '-device',
      'virtserialport,chardev=ledger,name=org.warmsite.ledger',
    ]);
    await machine.start();
    assert.equal(machine.presence.state, 'running');
    const ledger = await LedgerPort.connect({ path: ledgerPath, clock: systemClock });
    t.after(() => ledger.close());
    await ledger.reached(10, 60_000);
    await machine.protect({ ...PROTECTION, targetSiteId: sites.target.siteId });
    const promised = new Map<string, number>();
    let newestCutAtMs = 0;
    for (const type of ['crash', 'crash', 'app', 'crash', 'crash', 'app', 'crash', 'crash', 'crash']) {
      const before = ledger.last!.seq;
      const cut = await machine.cut(type);
      promised.set(cut.cutId, before);
      newestCutAtMs = cut.cutAtMs;
      const outcome = await machine.replicate(sites.target);
      assert.equal(outcome.kind, 'sent');
      t.diagnostic(
        `${type} ${cut.consistency} ${cut.degraded ?? ''} pause ${cut.pauseMs.toFixed(1)} ms frozen ${cut.frozenMs ?? 0} wire ${outcome.kind === 'sent' ? outcome.wireBytes : 0}`,
      );
      await ledger.reached(before + 20, 30_000);
      const replica = sites.replicas.list()[0]!;
      await replica.retire(replica.record.retention, () => false);
      for (const disk of await machine.running!.disks())
        assert.ok(disk.chain.length <= 3, 'at most two overlays');
    }
    assert.equal((await reopenMachine(sites)).target?.acknowledged?.cutAtMs, newestCutAtMs);
    const replica = sites.replicas.list()[0]!;
    t.diagnostic(
      `points: ${replica.points.map(({ statement }) => `${statement.sequence}:${statement.consistency}`).join(' ')}`,
    );
    for (const { statement } of replica.points) {
      await verifyPoint(sites.replicaTools, replica, statement.pointId);
      const readers = [];
      for (const [index, diskId] of ['data', 'system'].entries()) {
        const reader = await sites.protectedTools.images.open(replica.chain(statement.pointId, diskId));
        t.after(() => reader.close());
        readers.push({ ...areaOf(reader), partition: LEDGER_AREAS[index]!.partition });
      }
      const check = await checkLedgerDisks(readers);
      assert.ok(check.contiguous, JSON.stringify(check.firstBad));
      assert.ok(
        check.last >= promised.get(statement.pointId)!,
        `ledger ${check.last} < ${promised.get(statement.pointId)}`,
      );
    }
  });
});
