import assert from 'node:assert/strict';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { SeedFile, verifyPoint } from '../../../src/replica/index.ts';
import { failoversOf } from '../../support/failover-site.ts';
import { assertLedger, copyAndSend, labSites } from '../../support/lab-sites.ts';

const MIB = 1024 * 1024;

describe('a running machine seeded by courier', { timeout: 300_000 }, () => {
  it('S0.27 deltas of a writing guest come before the base; lost seed, second seed, chain verified, it boots', async (t) => {
    const lab = await labSites(t);
    const { sites, machine } = lab;
    const { failovers } = await failoversOf(t, sites);
    const ledger = await lab.ledger();
    await ledger.reached(10, 60_000);
    const target = () => sites.target;
    const lost = await machine.exportSeed(target, join(sites.directory, 'lost.wsseed'));
    const { size: baseBytes } = await stat(lost.path);
    let wireBytes = 0;
    const promised = new Map<string, number>();
    const copy = async () => {
      const before = ledger.last!.seq;
      const { pointId, wireBytes: sent } = await copyAndSend(machine, sites.target);
      promised.set(pointId, before);
      wireBytes += sent;
      await ledger.reached(before + 30, 60_000);
    };
    for (let i = 0; i < 3; i++) await copy();
    await rm(lost.path);
    const seed = await machine.exportSeed(target, join(sites.directory, 'second.wsseed'));
    for (let i = 0; i < 5; i++) await copy();
    for (const disk of await machine.running!.disks())
      assert.ok(disk.chain.length <= 3, 'the chain stays short');
    t.diagnostic(`seed ${baseBytes} bytes compressed, wire ${wireBytes} bytes for 9 points`);
    assert.ok(wireBytes < 8 * MIB + baseBytes / 4, `${wireBytes} bytes crossed the wire`);

    const replica = lab.replica();
    await assert.rejects(failovers.test(replica, {}), { code: 'REPLICA_AWAITING_SEED' });
    {
      await using file = await SeedFile.open(nodeFiles, seed.path);
      assert.equal((await replica.seeding.import(file)).kind, 'imported');
    }
    assert.deepEqual(
      replica.points.map(({ statement }) => statement.sequence),
      [4, 5, 6, 7, 8, 9],
    );
    await copy();
    for (const { statement } of replica.points) {
      const { pointId } = statement;
      await verifyPoint(sites.replicaTools, replica, pointId);
      const chainOf = (diskId: string) => replica.chain(pointId, diskId);
      await assertLedger(sites.replicaTools.images, chainOf, promised.get(pointId)!);
    }
    await machine.running!.quit();
    const report = await failovers.test(replica, {}, { probes: [{ kind: 'agent', limitMs: 120_000 }] });
    assert.equal(report.verdict, 'passed', JSON.stringify(report, null, 1));
  });
});
