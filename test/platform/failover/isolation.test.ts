import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type AttemptReport, Failovers } from '../../../src/failover/index.ts';
import { branchNetworks, namespaceOf } from '../../../src/failover/network.ts';
import { endRun, runPaths } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { createBranch } from '../../../src/replica/index.ts';
import { leftOf, linkNames, namespacesOf } from '../../support/branch-traces.ts';
import {
  type FailoverSite,
  failoverSite,
  inGuest,
  layerDigests,
  running,
} from '../../support/failover-site.ts';
import { assertTakesWhatIsWritten } from '../../support/overlay-use.ts';

const ADDRESS = '10.9.0.2';
const MIB = 1024 * 1024;

test('S0.25 S0.26 a test runs in isolation while points arrive, and its clean-up leaves nothing', async (t) => {
  const site = await failoverSite(t);
  const { failovers, sites } = site;
  await site.change(`echo ${ADDRESS}/24 > /data/network`);
  const pointId = await site.point();
  const { replica } = site;
  const before = await layerDigests(replica, pointId);
  const links = await linkNames();

  const probes = [
    { kind: 'agent' },
    { kind: 'serial', pattern: '^lab guest up' },
    { kind: 'tcp', host: ADDRESS, port: 80 },
  ] as const;
  const report = await failovers.test(replica, { pointId }, { probes, keep: true });
  assert.equal(report.verdict, 'passed', JSON.stringify(report, null, 1));
  t.diagnostic(JSON.stringify(report.attempts[0]?.probes));
  const branchId = report.branchId!;
  assert.deepEqual(await linkNames(), links, 'nothing of the test is outside of its namespace');

  for (let arrived = 0; arrived < 5; arrived++) await site.point();
  assert.equal(replica.newest?.statement.sequence, 6);

  const sockets = runPaths(join(site.tools.runDirectory, branchId));
  await inGuest(sockets, 'dd if=/dev/urandom of=/data/written bs=1M count=20 && sync');
  await failovers.close();
  // Returns when the process has ended: one that is still on its way out is rightly found running.
  await endRun(join(site.tools.runDirectory, branchId), systemClock);
  await failovers.recover([replica]);
  const [view] = await failovers.list(replica);
  assert.equal(view?.running, false);
  assert.equal(view.phase, 'stopped');

  const writtenBytes = await assertTakesWhatIsWritten(sites.protectedTools.images, replica, view);
  t.diagnostic(`written ${writtenBytes}, on disk ${view.ownBytes}`);
  assert.ok(writtenBytes >= 20 * MIB && writtenBytes < 24 * MIB, `${writtenBytes} bytes`);

  assert.equal(await failovers.cleanup(replica, branchId), true);
  assert.deepEqual(await leftOf(site, branchId), []);
  assert.deepEqual(await linkNames(), links);
  assert.equal(await failovers.cleanup(replica, branchId), false, 'again: nothing to do');
  assert.deepEqual(await layerDigests(replica, pointId), before);
});

/** The id of another branch, as soon as its machine has a process. */
async function startedBesides({ replica, failovers }: FailoverSite, known: string): Promise<string> {
  for (;;) {
    const view = (await failovers.list(replica)).find(({ branchId }) => branchId !== known);
    if (view?.running && view.phase === 'started') return view.branchId;
    await sleep(systemClock, 50);
  }
}

test('S0.26 a site that starts again keeps what is to run and removes what was half made', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica, failovers } = site;

  const kept = (await failovers.test(replica, { pointId }, { keep: true })).branchId!;
  const never = { kind: 'serial', pattern: 'never said', limitMs: 60_000 } as const;
  const interrupted = failovers.test(replica, { pointId }, { probes: [never] });
  const half = await startedBesides(site, kept);

  await failovers.close();
  const second = new Failovers(site.tools);
  t.after(() => second.close());
  await second.recover([replica]);
  assert.deepEqual(await leftOf(site, half), [], 'the machine of the interrupted test is gone');
  const views = await second.list(replica);
  assert.deepEqual(
    views.map(({ branchId, running, phase }) => [branchId, running, phase]),
    [[kept, true, 'probed']],
  );
  const outcome = await interrupted;
  assert.equal(outcome.verdict, 'failed');
  // Two site processes take hold of one machine here: who of them is heard first decides the words.
  assert.match(
    outcome.attempts[0]!.reasons.join(),
    /the machine has ended|did not start|nothing answers|was closed|ended the connection/,
  );
  assert.deepEqual(await leftOf(site, half), []);

  await second.cleanup(replica, kept);
  assert.deepEqual(await leftOf(site, kept), []);
});

test('F5 of a test of several machines nothing is left when the site process has gone in the middle', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica, failovers, tools } = site;
  const testId = newId(systemClock, systemRandom);
  await assert.rejects(failovers.test(replica, { pointId }, { together: testId }), (error) =>
    isFailure(error, 'FAILOVER_TEST_OVER'),
  );
  await failovers.together.open(testId);
  const report = await failovers.test(replica, { pointId }, { together: testId });
  const branchId = running(report);
  const [{ network }] = report.attempts as [AttemptReport];
  assert.ok(network.kind === 'isolated' && network.namespace === namespaceOf(testId), network.kind);

  // As after a SIGKILL: its machine runs on, and nobody is left who knows of the test.
  await failovers.close();
  const second = new Failovers(tools);
  t.after(() => second.close());
  await second.recover([replica]);
  assert.deepEqual(await leftOf(site, branchId), []);
  assert.ok(!(await namespacesOf()).includes(namespaceOf(testId)));
  assert.deepEqual(await nodeFiles.list(tools.runDirectory), []);
  assert.deepEqual(await second.list(replica), []);
});

test('S0.26 two that remove the network of a branch at once are both right', async () => {
  const branchId = '0123456789abcdefghjkmnpqrt';
  for (let round = 0; round < 5; round++) {
    await branchNetworks.isolate(branchId, [
      { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' },
    ]);
    await Promise.all([1, 2, 3, 4].map(() => branchNetworks.remove(branchId)));
  }
});

test('a process that has been given an old number of ours is left alone', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const branchId = '0123456789abcdefghjkmnpqrs';
  await createBranch(nodeFiles, site.replica, { branchId, pointId, purpose: 'test', createdAtMs: 0 });
  await branchNetworks.isolate(branchId, [
    { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' },
  ]);
  const run = join(site.tools.runDirectory, branchId);
  await mkdir(run, { recursive: true });
  // This very process: that the test ends well shows that it was spared.
  await writeFile(join(run, 'pid'), String(process.pid));
  await site.failovers.recover([site.replica]);
  assert.deepEqual(await leftOf(site, branchId), []);
});

test('a test that is cancelled, and a kept one whose guest shuts down, end in order', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica, failovers } = site;
  const never = { kind: 'serial', pattern: 'never said', limitMs: 60_000 } as const;
  const cancel = new AbortController();
  const test = failovers.test(replica, { pointId }, { probes: [never], signal: cancel.signal });
  const cancelled = assert.rejects(test, (error) => isFailure(error, 'CANCELLED'));
  const branchId = await startedBesides(site, '');
  await assert.rejects(failovers.cleanup(replica, branchId), (error) =>
    isFailure(error, 'FAILOVER_BRANCH_BUSY'),
  );
  cancel.abort();
  await cancelled;
  assert.deepEqual(await leftOf(site, branchId), []);

  const kept = (await failovers.test(replica, { pointId }, { keep: true })).branchId!;
  const sockets = runPaths(join(site.tools.runDirectory, kept));
  await inGuest(sockets, 'echo mine > /data/mine; sync');
  await inGuest(sockets, '(sleep 1; kill -USR1 1) > /dev/null 2>&1 &');
  while ((await failovers.list(replica))[0]?.phase !== 'stopped') await sleep(systemClock, 50);
  assert.ok(!(await namespacesOf()).includes(namespaceOf(kept)));

  const again = await failovers.restart(replica, kept);
  assert.equal(again.verdict, 'passed', JSON.stringify(again));
  assert.equal(await inGuest(sockets, 'cat /data/mine'), 'mine', 'S0.23 a future keeps its own writes');
  await failovers.cleanup(replica, kept);
  assert.deepEqual(await leftOf(site, kept), []);
});

test('S0.26 a tap on a bridge of this host is removed with its branch, and only that', async (t) => {
  const bridge = `wst${process.pid}`;
  await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
  t.after(async () => {
    await runCommand('ip', ['link', 'delete', 'dev', bridge]);
  });
  const before = await linkNames();
  const nic = { nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:aa:00:01', network: 'office' } as const;
  const nics = [nic, { ...nic, nicId: 'wan' }];
  const branchId = '0123456789abcdefghjkmnpqrt';
  for (let times = 0; times < 2; times++) {
    const { report, attachments } = await branchNetworks.connect(branchId, nics, {
      lan: { kind: 'bridge', bridge },
    });
    assert.deepEqual(report, { kind: 'connected', unplugged: ['wan'] });
    assert.equal((await linkNames()).length, before.length + 1);
    assert.ok((await linkNames()).includes(attachments.lan!.interfaceName));
  }
  await assert.rejects(
    branchNetworks.connect(branchId, nics, { lan: { kind: 'bridge', bridge: 'x master y' } }),
    (error) => isFailure(error, 'FAILOVER_NETWORK_INVALID'),
  );
  await branchNetworks.remove(branchId);
  assert.deepEqual(await linkNames(), before);
});
