import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { LabMachine } from '../../../lab/index.ts';
import type { AlertView, JobView, MachineView, PointView } from '../../../src/api/index.ts';
import { siteFiles } from '../../../src/control/base/site-files.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { endRun } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { TestApi } from '../../support/api.ts';
import { inGuest } from '../../support/lab-sites.ts';
import { BOX, ended, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';
import { run } from '../../unit/cli/fake-world.ts';

/** By which the clock of the protected site is ahead. */
const AHEAD_MS = 10 * 60_000;
/** By which what was measured of clocks may be off, on a busy host. */
const CLOSE_MS = 2_000;

async function reportOf(api: TestApi, begun: JobView): Promise<FailoverReport> {
  return (await resultOf(api, begun)) as FailoverReport;
}

/** Resolves when the recovery site holds a point that `wanted` accepts. */
async function published(
  site: TestSite,
  api: TestApi,
  wanted: (point: PointView) => boolean,
): Promise<PointView> {
  return site.until(async () => (await api.call('point.list', BOX)).find(wanted));
}

/** What a command line prints at a site, as a document; it must succeed. */
async function typed<T>(site: TestSite, ...args: readonly string[]): Promise<T> {
  const { exitCode, output, messages } = await run(['--data', site.dataDirectory, '--json', ...args]);
  assert.equal(exitCode, 0, messages + output);
  return JSON.parse(output) as T;
}

const alertOf = (site: TestSite, api: TestApi, code: string): Promise<AlertView> =>
  site.until(async () => (await api.call('alert.list', { query: {} })).find((alert) => alert.code === code));

type Sites = Awaited<ReturnType<typeof pairedSites>>;

/** Points and RPO are counted on the clock of the recovery site, and by how much the other one is wrong is shown. */
async function clocksApart(
  { home, away, homeApi, awayApi }: Sites,
  { beforeMs, there, here }: { beforeMs: number; there: PointView; here: PointView },
) {
  const isClose = (one: number, other: number) => Math.abs(one - other) < CLOSE_MS;
  assert.ok(isClose(here.skewMs!, AHEAD_MS), `${here.skewMs} ms`);
  assert.ok(isClose(here.cutAtMs, there.cutAtMs - AHEAD_MS));
  const times = [beforeMs - CLOSE_MS, here.cutAtMs, here.publishedAtMs!, systemClock.wallMs()];
  assert.deepEqual(
    times.toSorted((one, other) => one - other),
    times,
  );
  const { replica } = await awayApi.call('vm.show', BOX);
  const { newest, rpo } = replica!;
  assert.ok(isClose(newest!.skewMs!, AHEAD_MS));
  assert.ok(rpo.actualMs! < 30_000 && isClose(rpo.actualMs!, systemClock.wallMs() - newest!.cutAtMs));
  const shown = await run(['--data', away.dataDirectory, 'point', 'show', 'box', here.pointId]);
  assert.match(shown.output, /clock there.* (10 min( \d s)?|9 min 5\d s) ahead of the one here/);

  const [ahead, behind] = [
    await alertOf(away, awayApi, 'SITE_CLOCK_SKEW'),
    await alertOf(home, homeApi, 'SITE_CLOCK_SKEW'),
  ];
  assert.match(ahead.message, /of home is (600|599|601)\.\d s away/);
  assert.match(behind.message, /of away is -(600|599|601)\.\d s away/);
}

/** Copies of a running guest that somebody asks for, each of the type that was asked for; nothing else makes any. */
async function copiesOnDemand(sites: Sites, diagnostic: (said: string) => void) {
  const { home, away, homeApi, awayApi } = sites;
  await homeApi.call('vm.protect', { ...BOX, body: { every: {} } });
  const waiting = ['point', 'create', 'box', '--type'];
  const ofType = async (type: string) => {
    const beganMs = systemClock.monotonicMs();
    const { job } = await typed<{ job: JobView }>(home, ...waiting, type);
    diagnostic(`S0.9: a copy of type ${type} in ${Math.round(systemClock.monotonicMs() - beganMs)} ms`);
    return (job.result as { pointId: string }).pointId;
  };
  const latest = async (reference: string) => {
    const view = await typed<PointView>(away, 'point', 'show', 'box', reference);
    const params = { machine: 'box', point: reference };
    assert.equal((await awayApi.call('point.show', { params })).pointId, view.pointId);
    return view.pointId;
  };

  const crash = await ofType('crash');
  await assert.rejects(latest('latest-application'), /POINT_NOT_FOUND/);
  const app = await ofType('app');
  assert.deepEqual(
    [await latest('latest-crash'), await latest('latest-application'), await latest('latest')],
    [app, app, app],
    'an application-consistent point is a crash-consistent one as well',
  );
  const beforeMs = systemClock.wallMs();
  const created = await homeApi.call('point.create', { ...BOX, body: { type: 'crash' } });
  assert.ok('point' in created);
  const { pointId: later } = created.point;
  const arrived = await published(away, awayApi, ({ pointId }) => pointId === later);
  assert.deepEqual([await latest('latest-crash'), await latest('latest-application')], [later, app]);
  await clocksApart(sites, { beforeMs, there: created.point, here: arrived });

  const note = (word: string) => `/bin/sh -c 'echo ${word} >> /run/noted; cat /run/noted'`;
  const hooks = ['--before', note('before'), '--after', note('after')];
  await typed<MachineView>(home, 'vm', 'copy-type', 'add', 'box', 'noting', ...hooks);
  const types = await typed<{ name: string; aim: string }[]>(home, 'vm', 'copy-type', 'list', 'box');
  assert.deepEqual(
    types.map(({ name, aim }) => [name, aim]),
    [
      ['crash', 'crash'],
      ['app', 'application'],
      ['noting', 'application'],
    ],
  );
  const noted = await ofType('noting');
  const { hooks: ran } = await typed<PointView>(home, 'point', 'show', 'box', noted);
  assert.deepEqual(
    ran?.map(({ hook, output }) => [hook, output]),
    [
      ['before', 'before\n'],
      ['after', 'before\nafter\n'],
    ],
  );
  const listed = await typed<PointView[]>(away, 'point', 'list', 'box');
  assert.deepEqual(
    listed.map(({ pointId, copyType, consistency }) => [pointId, copyType, consistency]),
    [
      [crash, 'crash', 'crash'],
      [app, 'app', 'application'],
      [later, 'crash', 'crash'],
      [noted, 'noting', 'application'],
    ],
  );
}

/** A copy that the guest asks for: it opens a port that its owner has plugged in while it runs. */
async function copyForTheGuest({ homeApi, away, awayApi }: Sites, lab: LabMachine) {
  const port = { kind: 'guest' as const, port: 'copy-now' };
  await homeApi.call('vm.policy', {
    ...BOX,
    body: { schedules: [{ copyType: 'crash', triggers: [port] }] },
  });
  await lab.execute('chardev-add', { id: 'copy', backend: { type: 'null', data: {} } });
  await lab.execute('device_add', {
    ...{ driver: 'virtserialport', bus: 'ports.0', id: port.port, chardev: 'copy' },
    name: 'org.warmsite.copy',
  });
  const before = (await awayApi.call('point.list', BOX)).length;
  const open = `until name=$(grep -lx org.warmsite.copy /sys/class/virtio-ports/*/name); do usleep 20000; done
    : > /dev/$(basename $(dirname $name))`;
  await inGuest(lab.agentPath, open);
  const point = await published(away, awayApi, ({ sequence }) => sequence! > before);
  assert.deepEqual([point.sequence, point.copyType], [before + 1, 'crash']);
}

describe('a disaster, over API and command line, with clocks ten minutes apart', { timeout: 300_000 }, () => {
  it('S0.4 S0.7 S0.8 S0.9 S0.16 S0.17 S0.26 S0.29 a machine that was attached to is copied on demand, also on that of its guest, is tested beside itself on one host, fails over there; its old site is fenced, and clean-up leaves nothing', async (context) => {
    const sites = await pairedSites(context, { aheadMs: AHEAD_MS });
    const { t, directory, home, away, homeApi, awayApi } = sites;
    const { lab, attach } = await someonesMachine(t, directory);
    const added = await homeApi.call('vm.add', { body: { attach } });
    assert.deepEqual(
      added.protected!.disks.map(({ chain }) => chain.length),
      [1, 1],
    );
    await copiesOnDemand(sites, (said) => context.diagnostic(said));
    await copyForTheGuest(sites, lab);

    const byHand = (await awayApi.call('point.list', BOX)).length;
    await homeApi.call('vm.policy', { ...BOX, body: { every: { crash: 2000, app: 10_000 } } });
    const first = home.next((event) => event.event === 'point' && event.change === 'acknowledged');
    const point = await published(
      away,
      awayApi,
      ({ consistency, sequence }) => consistency === 'application' && sequence! > byHand,
    );
    assert.equal(point.degraded, undefined);
    await first;
    const { protected: shown } = await homeApi.call('vm.show', BOX);
    assert.ok(shown!.replication!.rpo.actualMs! < 30_000);

    const keep = { ...BOX, body: { keep: true } };
    const test = await reportOf(awayApi, await awayApi.call('failover.test', keep));
    assert.equal(test.verdict, 'passed', JSON.stringify(test.attempts));
    // On one host: the machine runs and is copied beside its own test.
    const [beside] = await awayApi.call('failover.list', BOX);
    assert.deepEqual([beside!.branchId, beside!.running], [test.branchId, true]);
    await home.next((event) => event.event === 'point' && event.change === 'acknowledged');
    assert.equal(await inGuest(lab.agentPath, 'cat /run/noted'), 'before\nafter');
    const proven = await awayApi.call('point.show', {
      params: { machine: 'box', point: test.point.pointId },
    });
    assert.ok(proven.proofs.boot!.passed);
    const reasons = ['newest-proven', 'in-use'];
    assert.deepEqual(
      proven.keptFor!.filter((reason) => reasons.includes(reason)),
      reasons,
    );
    const ofTest = { params: { machine: 'box', branch: test.branchId! } };
    await resultOf(awayApi, await awayApi.call('failover.cleanup', ofTest));
    assert.deepEqual(await awayApi.call('failover.list', BOX), []);

    // The guest is lost, but not its site, which must not go on.
    await lab.kill();
    const fenced = home.next((event) => event.event === 'alert' && event.alert.code === 'PROTECTION_FENCED');
    const misnamed = await ended(
      awayApi,
      await awayApi.call('failover.start', {
        ...BOX,
        body: { confirmOtherSideDown: true, networks: { lna: { kind: 'bridge', bridge: 'br0' } } },
      }),
    );
    assert.equal(misnamed.failure?.code, 'FAILOVER_NIC_UNKNOWN');
    assert.match(misnamed.failure.message, /no NIC lna; it has /);
    const report = await reportOf(
      awayApi,
      await awayApi.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } }),
    );
    assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
    assert.equal(report.epoch, 2, 'a refused failover raises no epoch');
    assert.ok(report.rtoMs! > 0);
    assert.equal((await awayApi.call('vm.show', BOX)).replica!.state, 'failed-over');
    const used = (await awayApi.call('point.list', BOX)).filter(({ keptFor }) => keptFor!.includes('in-use'));
    assert.deepEqual(
      used.map(({ pointId }) => pointId),
      [report.point.pointId],
    );
    // Whichever comes first: this copy, or the next word between the sites.
    await Promise.allSettled([homeApi.call('point.create', { ...BOX, body: { type: 'crash' } })]);
    await fenced;
    assert.equal((await homeApi.call('vm.show', BOX)).protected!.replication!.phase, 'blocked');

    await away.close();
    const again = await away.serve();
    const [branch] = await again.call('failover.list', BOX);
    assert.deepEqual(
      [branch!.branchId, branch!.running],
      [report.branchId, true],
      'it runs on without the site',
    );
    // The host is started anew: no machine runs, the files are there.
    await away.close();
    await endRun(join(siteFiles(away.dataDirectory).run, branch!.branchId), systemClock);
    const rebooted = await away.serve();
    const [stopped] = await rebooted.call('failover.list', BOX);
    assert.deepEqual([stopped!.running, stopped!.state], [false, 'stopped']);
    const ofBranch = { params: { machine: 'box', branch: branch!.branchId } };
    const restarted = await reportOf(rebooted, await rebooted.call('failover.restart', ofBranch));
    assert.equal(restarted.verdict, 'passed', JSON.stringify(restarted.attempts));
    assert.deepEqual([restarted.branchId, restarted.epoch], [branch!.branchId, 2]);
    const twice = await ended(rebooted, await rebooted.call('failover.restart', ofBranch));
    assert.equal(twice.failure?.code, 'FAILOVER_RUNS_ALREADY');
    const { entries } = await rebooted.call('audit.list');
    assert.ok(entries.some(({ act }) => act === 'failover.restart'));
    const removed = await rebooted.call('failover.cleanup', ofBranch);
    assert.deepEqual(await reportOf(rebooted, removed), { removed: true });
    assert.deepEqual(await rebooted.call('failover.list', BOX), []);
  });
});
