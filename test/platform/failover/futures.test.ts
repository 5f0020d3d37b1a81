import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadBootProof } from '../../../src/failover/index.ts';
import { branchNetworks, namespaceOf } from '../../../src/failover/network.ts';
import { addressWarnings, checkAddressesFree } from '../../../src/failover/nic-checks.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { leftOf, linkNames, namespacesOf } from '../../support/branch-traces.ts';
import {
  failoverSite,
  inBranch,
  layerDigests,
  pointWithoutBootSector,
  READ_MARK,
  running,
} from '../../support/failover-site.ts';
import { assertTakesWhatIsWritten } from '../../support/overlay-use.ts';

const MIB = 1024 * 1024;
const KEEP_ONE = { types: { crash: 1 } };
const GRACE = { graceMs: 60_000 };
const POWER_OFF = { graceMs: 0 };
const CONFIRMED = { confirmedOtherSideDown: true } as const;

test('S0.23 S0.25 S0.26 futures of one point and of another live side by side while copies arrive, each with its own writes', async (t) => {
  const site = await failoverSite(t);
  const { failovers, sites } = site;
  const [d2, d3] = await site.pointsMarked('D2', 'D3');
  const { replica } = site;
  const before = await layerDigests(replica, d3);
  const links = await linkNames();
  const future = async (pointId: string, name: string) =>
    running(await failovers.test(replica, { pointId }, { keep: true, name }));

  const [c1, c2, other] = await Promise.all([future(d2, 'c1'), future(d2, 'c2'), future(d3, 'other')]);
  const proof = (await loadBootProof(nodeFiles, replica, d2))!.proof;
  const picture = await readFile(join(replica.layout.proofs(d2), proof.picture!.name));
  const shown = createHash('sha256').update(picture).digest('hex');
  assert.equal(
    proof.picture!.sha256,
    shown,
    'of two tests of one point the proof of one stands with its own picture',
  );
  await assert.rejects(future(d3, 'c1'), (error) => isFailure(error, 'BRANCH_NAME_TAKEN'));
  const namespaces = await namespacesOf();
  for (const branchId of [c1, c2, other]) assert.ok(namespaces.includes(namespaceOf(branchId)));
  assert.deepEqual(await linkNames(), links, 'three machines with one address are nowhere on one bridge');

  const arrivals: number[] = [];
  for (let arrived = 0; arrived < 5; arrived++) {
    const sinceMs = systemClock.monotonicMs();
    await site.point();
    arrivals.push(Math.round(systemClock.monotonicMs() - sinceMs));
    await replica.retire(KEEP_ONE, () => false);
    const there = replica.points.map(({ statement }) => statement.sequence);
    assert.deepEqual(
      there,
      [1, 2, 3 + arrived],
      'what tests stand on stays, the newest is there, the rest goes',
    );
  }
  t.diagnostic(`arrivals beside three tests took ${arrivals.join(', ')} ms`);

  await inBranch(site, c1, 'echo one > /data/mine; dd if=/dev/urandom of=/data/much bs=1M count=16; sync');
  await inBranch(site, c2, 'echo two > /data/mine; sync');
  assert.equal(await inBranch(site, other, `${READ_MARK}; ls /data/mine 2>/dev/null || true`), 'D3');
  await inBranch(site, other, 'dd if=/dev/urandom of=/data/some bs=1M count=4; sync');

  assert.equal(await failovers.stop(replica, 'c1', GRACE), 'shut-down');
  assert.equal(await failovers.stop(replica, c1, GRACE), 'not-running');
  assert.equal(await failovers.stop(replica, 'c2', POWER_OFF), 'powered-off');
  const views = new Map((await failovers.list(replica)).map((view) => [view.name, view]));
  t.diagnostic([...views].map(([name, { ownBytes }]) => `${name}: ${ownBytes} bytes`).join(', '));
  assert.ok(views.get('c1')!.ownBytes >= 16 * MIB);
  assert.ok(views.get('c2')!.ownBytes < 8 * MIB);
  assert.deepEqual(
    ['c1', 'c2', 'other'].map((name) => [views.get(name)!.phase, views.get(name)!.running]),
    [
      ['stopped', false],
      ['stopped', false],
      ['probed', true],
    ],
  );

  for (const [name, mine] of [
    ['c2', 'two'],
    ['c1', 'one'],
  ] as const) {
    const branchId = running(await failovers.restart(replica, name));
    assert.equal(await inBranch(site, branchId, `${READ_MARK}; cat /data/mine`), `D2\n${mine}`);
    await failovers.stop(replica, name, POWER_OFF);
  }
  assert.deepEqual(
    (await loadBootProof(nodeFiles, replica, d2))!.proof,
    proof,
    'a branch that has been written to proves nothing of its point',
  );

  const production = running(await failovers.start(replica, { pointId: d2 }, { ...CONFIRMED, name: 'live' }));
  assert.equal(await inBranch(site, production, `${READ_MARK}; ls /data/mine 2>/dev/null || true`), 'D2');
  await assert.rejects(failovers.start(replica, { pointId: d3 }, CONFIRMED), (error) =>
    isFailure(error, 'FAILOVER_RUNS_ALREADY'),
  );
  assert.equal((await failovers.list(replica)).find(({ name }) => name === 'other')?.running, true);
  await failovers.stop(replica, 'other', POWER_OFF);
  const tests = (await failovers.list(replica)).filter(({ name }) => name !== 'live');
  assert.equal(tests.length, 3);
  for (const view of tests) {
    const writtenBytes = await assertTakesWhatIsWritten(sites.protectedTools.images, replica, view);
    t.diagnostic(`${view.name}: written ${writtenBytes}, on disk ${view.ownBytes}`);
  }
  assert.deepEqual(await layerDigests(replica, d3), before, 'no future has changed what they come from');
  for (const { branchId } of await failovers.list(replica)) {
    await failovers.cleanup(replica, branchId);
    assert.deepEqual(await leftOf(site, branchId), []);
  }
  await replica.retire(KEEP_ONE, () => false);
  const { pointId } = replica.newest!.statement;
  await verifyPoint(sites.replicaTools, replica, pointId);
  const layers = ['system', 'data'].flatMap((diskId) => [
    `disks/${diskId}`,
    `disks/${diskId}/${pointId}.leaves`,
    `disks/${diskId}/${pointId}.qcow2`,
  ]);
  const left = await readdir(replica.layout.directory, { recursive: true });
  assert.deepEqual(
    left.filter((name) => !name.startsWith('proofs')).sort(),
    [
      ...['branches', 'disks', 'incoming', 'intents', 'points', `points/${pointId}.json`, 'replica.json'],
      ...layers,
    ].sort(),
    'what a site without tests has',
  );
});

test('S0.24 a branch goes forward through the copies that followed its point', async (t) => {
  const site = await failoverSite(t);
  const { failovers } = site;
  const [k, next, last] = await site.pointsMarked('k', 'k+1', 'k+2');
  const { replica } = site;
  const before = await layerDigests(replica, last);
  const discard = { oldBranch: 'discard', ...POWER_OFF } as const;

  const first = running(await failovers.test(replica, { pointId: k }, { keep: true }));
  await inBranch(site, first, 'echo stray > /data/mine; sync');
  const step = await failovers.forward(replica, first, discard);
  const second = running(step);
  assert.deepEqual(
    [step.forward?.from.sequence, step.forward?.following.map(({ sequence }) => sequence)],
    [1, [2]],
  );
  assert.equal(await inBranch(site, second, `${READ_MARK}; ls /data/mine 2>/dev/null || true`), 'k+1');
  assert.deepEqual(await leftOf(site, first), [], 'its writes were to be discarded');

  const far = await failovers.forward(replica, second, {
    ...discard,
    to: last,
    oldBranch: 'keep',
    name: 'far',
  });
  assert.equal(await inBranch(site, running(far), READ_MARK), 'k+2');
  assert.equal(far.forward?.oldBranch, 'kept');
  for (const to of [undefined, k, last]) {
    const options = { ...discard, ...(to ? { to } : {}) };
    await assert.rejects(failovers.forward(replica, 'far', options), (error) =>
      isFailure(error, 'FAILOVER_NOT_FORWARD'),
    );
  }
  assert.equal((await failovers.list(replica)).length, 2);
  assert.equal(await inBranch(site, far.branchId!, READ_MARK), 'k+2', 'what was refused changes nothing');

  // A later point that does not boot costs the branch nothing but its machine's power.
  const bad = await pointWithoutBootSector(site);
  const probes = [{ kind: 'agent', limitMs: 3000 }] as const;
  const failed = await failovers.forward(replica, 'far', { ...discard, to: bad, probes });
  assert.equal(failed.verdict, 'failed');
  assert.equal(failed.forward?.oldBranch, 'kept');
  assert.equal(running(await failovers.restart(replica, 'far')), far.branchId);
  assert.equal(await inBranch(site, far.branchId!, READ_MARK), 'k+2');
  assert.equal(running(await failovers.restart(replica, second)), second, 'the branch that was kept');
  assert.equal(await inBranch(site, second, READ_MARK), 'k+1');
  assert.deepEqual(await layerDigests(replica, last), before, 'no point has changed');
  assert.equal(next, far.forward?.from.pointId);
});

test('S0.23 an address that another branch has on a bridge is refused there, and nowhere else', async (t) => {
  const bridges = [`wsa${process.pid}`, `wsb${process.pid}`] as const;
  for (const bridge of bridges) {
    await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
    t.after(async () => {
      await runCommand('ip', ['link', 'delete', 'dev', bridge]);
    });
  }
  const branchId = '0123456789abcdefghjkmnpqrv';
  const nic = { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' } as const;
  const configuration = {
    ...{ name: 'lab', uuid: '6a1c5a5e-0000-4000-8000-00000000000b', architecture: 'x86_64', chipset: 'q35' },
    ...{ firmware: 'bios', cpus: 1, memoryBytes: 256 * MIB, guestAgent: true },
    disks: [{ diskId: 'system', bus: 'virtio-blk', sizeBytes: MIB }],
    nics: [{ ...nic, nicId: 'wan', mac: '52:54:00:aa:00:02' }, nic],
  };
  t.after(() => branchNetworks.remove(branchId));
  await branchNetworks.connect(branchId, configuration.nics, { lan: { kind: 'bridge', bridge: bridges[0] } });
  const neighbours = [{ branchId, machineName: 'clone', configuration }];
  const to = (bridge: string, nicId: string) =>
    checkAddressesFree({ [nicId]: { kind: 'bridge', bridge } }, [configuration], neighbours);
  await assert.rejects(to(bridges[0], 'lan'), (error) => isFailure(error, 'FAILOVER_ADDRESS_TAKEN'));
  await to(bridges[0], 'wan');
  await to(bridges[1], 'lan');
  await to('no-such-bridge', 'lan');

  // A machine that is no branch says something on the second bridge.
  const cable = `wsc${process.pid}`;
  await runCommand('ip', ['link', 'add', cable, 'type', 'veth', 'peer', 'name', `${cable}x`]);
  t.after(() => runCommand('ip', ['link', 'delete', 'dev', cable]).then(() => undefined));
  await runCommand('ip', ['link', 'set', 'dev', cable, 'master', bridges[1], 'up']);
  await runCommand('ip', ['link', 'set', 'dev', `${cable}x`, 'address', nic.mac, 'up']);
  await runCommand('ip', ['link', 'set', 'dev', bridges[1], 'up']);
  const home = [{ machineName: 'twin', configuration }];
  const warned = (bridge: string, running: typeof home) =>
    addressWarnings({ lan: { kind: 'bridge', bridge } }, [configuration], running);
  while ((await warned(bridges[1], [])).length === 0);
  assert.match(
    (await warned(bridges[1], []))[0]!,
    new RegExp(`${nic.mac} of lan was heard on .* by ${cable}, \\d+ s ago`),
  );
  assert.deepEqual(await warned(bridges[0], []), []);
  assert.match(
    (await warned(bridges[0], home))[0]!,
    /twin, which is at home here and runs, has .* not known/,
  );
  await assert.rejects(warned(bridges[1], home), (error) => isFailure(error, 'FAILOVER_ADDRESS_TAKEN'));
});
