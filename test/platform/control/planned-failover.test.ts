/** A machine that is handed over to the other site by people of both, with a running guest whose ledger tells what is lost: nothing. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { ReplicaLayout } from '../../../src/replica/index.ts';
import type { TestApi } from '../../support/api.ts';
import { assertLedger } from '../../support/lab-sites.ts';
import { BOX, ended, pair, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import { TestSite } from '../../support/served-sites.ts';
import {
  BY_HAND,
  heldAt,
  sitesWithGuest,
  sitesWithMachine,
  verifiedCopy,
  writeToTip,
} from '../../support/site-of-box.ts';
import { chainInHeaders } from '../../support/sound-layers.ts';

const MIB = 1024 * 1024;
const NOW = { ...BOX, body: {} } as const;

interface Ceded {
  readonly epoch: number;
  readonly pointId: string;
  readonly sequence: number;
  readonly state: string;
}

async function cede(api: TestApi): Promise<Ceded> {
  return (await resultOf(api, await api.call('failover.cede', NOW))) as Ceded;
}

describe('a planned failover', { timeout: 240_000 }, () => {
  it('S0.17 a running guest is shut down, and every record that it wrote is at the other site when it starts there', async (context) => {
    const { ledger, home, homeApi, away, awayApi } = await sitesWithGuest(context);

    // Whoever is to take it waits for it, so that nobody runs it for as short as can be.
    const taking = await awayApi.call('failover.take', { ...BOX, body: { waitMs: 120_000 } });
    const promised = (await ledger.next()).seq;
    const { epoch, sequence } = await cede(homeApi);
    assert.equal(epoch, 2);
    const { protected: left, machineId } = await homeApi.call('vm.show', BOX);
    const images = new QemuImages({ clock: systemClock });
    const last = await assertLedger(
      images,
      (disk) => left!.disks[disk === 'system' ? 0 : 1]!.chain,
      Math.max(promised, ledger.last!.seq),
    );

    const report = (await resultOf(awayApi, taking)) as FailoverReport;
    assert.deepEqual(
      [report.kind, report.verdict, report.epoch, report.point.sequence, report.attempts.length],
      ['planned', 'passed', 2, sequence, 1],
      JSON.stringify(report.attempts),
    );
    assert.equal(report.warnings.filter((warning) => /planned/.test(warning)).length, 0);
    assert.equal(report.attempts[0]!.reason, 'the last state of the machine');
    const layout = new ReplicaLayout(away.dataDirectory, machineId);
    const chains = {
      system: await chainInHeaders(layout.layer('disk0', report.point.pointId)),
      data: await chainInHeaders(layout.layer('disk1', report.point.pointId)),
    };
    const there = await assertLedger(images, (disk) => chains[disk], last);
    assert.equal(there, last, 'the point is the last state, to the record');

    await home.until(async () => ((await heldAt(homeApi)) === 'handed-over' ? true : undefined));
    assert.deepEqual(await homeApi.call('alert.list'), [], 'all is as it was meant');
    assert.equal((await awayApi.call('vm.show', BOX)).replica!.right, 'held');
    await assert.rejects(homeApi.call('point.create', { ...BOX, body: { type: 'crash' } }), {
      code: 'PROTECTION_CEDED',
    });
    const again = await ended(awayApi, await awayApi.call('failover.take', NOW));
    assert.equal(again.failure!.code, 'FAILOVER_TAKEN');
  });

  it('S0.17 what was offered is withdrawn, and goes on incrementally where it was; what was taken is not', async (context) => {
    const { home, homeApi, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await writeToTip(homeApi, 7, 8 * MIB);
    const offered = await cede(homeApi);
    assert.deepEqual([offered.epoch, offered.sequence, offered.state], [2, 2, 'cedes']);
    assert.equal(await heldAt(homeApi), 'offered');
    assert.deepEqual(
      (await homeApi.call('alert.list')).map(({ code, severity }) => [code, severity]),
      [['PROTECTION_CEDED', 'warning']],
      'nobody runs it: that is told',
    );
    await assert.rejects(homeApi.call('vm.start', BOX), { code: 'PROTECTION_CEDED' });
    assert.deepEqual(await cede(homeApi), offered, 'again nothing changes');

    await home.close();
    const reopened = await home.serve();
    await assert.rejects(
      reopened.call('vm.start', BOX),
      { code: 'PROTECTION_CEDED' },
      'that outlives the site process',
    );
    assert.equal((await awayApi.call('vm.show', BOX)).replica!.right, 'offered');

    const back = await reopened.call('failover.withdraw', NOW);
    assert.deepEqual([back.epoch, back.protected!.heldBy], [3, undefined]);
    assert.equal((await awayApi.call('vm.show', BOX)).replica!.right, undefined);
    const late = await ended(awayApi, await awayApi.call('failover.take', NOW));
    assert.equal(late.failure!.code, 'FAILOVER_NOT_OFFERED');
    await assert.rejects(reopened.call('failover.withdraw', NOW), { code: 'PROTECTION_NOT_CEDED' });
    await home.until(async () => ((await reopened.call('alert.list')).length === 0 ? true : undefined));

    await writeToTip(reopened, 9, 12 * MIB);
    const { pointId, sequence } = await verifiedCopy(reopened);
    assert.equal(sequence, 3);
    const [point] = (await awayApi.call('point.list', BOX)).filter((one) => one.pointId === pointId);
    assert.deepEqual([point!.epoch, point!.changedBytes], [3, MIB], 'a difference, of the new epoch');

    const once = await cede(reopened);
    assert.equal(once.epoch, 4);
    const report = (await resultOf(
      awayApi,
      await awayApi.call('failover.take', { ...BOX, body: { probes: [] } }),
    )) as FailoverReport;
    assert.deepEqual([report.kind, report.verdict, report.epoch], ['planned', 'unproven', 4]);
    await assert.rejects(reopened.call('failover.withdraw', NOW), (error: Error & { code: string }) =>
      ['MACHINE_TAKEN', 'PROTECTION_NOT_CEDED'].includes(error.code),
    );
    assert.equal(await heldAt(reopened), 'handed-over');
  });

  it('S0.17 two sites that both hold it, because somebody was wrong: the lower claim gives way as soon as they talk, and its writes stay', async (context) => {
    const { t, directory, home, homeApi, away, awayApi } = await pairedSites(context);
    const { attach } = await someonesMachine(t, directory);
    await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await cede(homeApi);
    const report = (await resultOf(awayApi, await awayApi.call('failover.take', NOW))) as FailoverReport;
    const branch = report.branchId!;
    await home.until(async () => ((await heldAt(homeApi)) === 'handed-over' ? true : undefined));
    const back = await homeApi.call('failover.withdraw', { ...BOX, body: { confirmOtherSideDown: true } });
    assert.deepEqual([back.epoch, back.protected!.heldBy], [3, undefined]);

    await writeToTip(homeApi, 7, 8 * MIB);
    const { pointId } = await verifiedCopy(homeApi);
    const branches = () => awayApi.call('failover.list', BOX);
    await away.until(async () => ((await branches()).every(({ running }) => !running) ? true : undefined));
    const { entries } = await awayApi.call('audit.list');
    assert.deepEqual(entries.find(({ act }) => act === 'failover.fence')!.details, {
      branchId: branch,
      outcome: 'shut-down',
    });
    await away.until(async () =>
      (await awayApi.call('vm.show', BOX)).replica!.right === undefined ? true : undefined,
    );
    assert.deepEqual(
      (await awayApi.call('alert.list')).map(({ code }) => code),
      ['REPLICATION_SET_APART'],
    );
    assert.deepEqual(
      (await branches()).map(({ branchId }) => branchId),
      [branch],
      'what was written there is kept',
    );
    const params = { machine: 'box', branch };
    const restarted = await ended(awayApi, await awayApi.call('failover.restart', { params, body: {} }));
    assert.equal(restarted.failure!.code, 'FAILOVER_FENCED');
    const points = await awayApi.call('point.list', BOX);
    assert.deepEqual([points.at(-1)!.pointId, points.at(-1)!.epoch], [pointId, 3]);
    await resultOf(awayApi, await awayApi.call('failover.cleanup', { params }));
    await away.until(async () => ((await awayApi.call('alert.list')).length === 0 ? true : undefined));
  });

  it('S0.17 what was offered or handed over is not made one’s own by ending its protection', async (context) => {
    const { home, homeApi, awayApi, disk } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await cede(homeApi);
    const refused = { code: 'PROTECTION_CEDED' };
    await assert.rejects(homeApi.call('vm.unprotect', NOW), refused);
    await assert.rejects(homeApi.call('vm.unprotect', { ...BOX, body: { keepOrigin: true } }), refused);
    await assert.rejects(awayApi.call('replica.remove', BOX), { code: 'REPLICA_NEEDED' });
    await resultOf(awayApi, await awayApi.call('failover.take', { ...BOX, body: { probes: [] } }));
    await home.until(async () => ((await heldAt(homeApi)) === 'handed-over' ? true : undefined));
    await homeApi.call('vm.unprotect', NOW);
    await assert.rejects(homeApi.call('vm.start', BOX), refused);
    await assert.rejects(homeApi.call('vm.protect', { ...BOX, body: BY_HAND }), refused);
    const { stdout } = await runCommand('qemu-img', ['info', '--output=json', disk]);
    assert.ok(!('backing-filename' in JSON.parse(stdout)), 'its files are its owner’s again');
  });

  it('S0.17 the last copy goes to a site that wants its copies far apart, and the first one to a site that has none', async (context) => {
    const { homeApi, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: { ...BY_HAND, spacingMs: 6 * 3_600_000 } });
    const first = await cede(homeApi);
    assert.equal(first.state, 'cedes');
    await homeApi.call('failover.withdraw', NOW);
    await writeToTip(homeApi, 7, 8 * MIB);
    const { pointId } = await cede(homeApi);
    const point = (await awayApi.call('point.list', BOX)).at(-1)!;
    assert.deepEqual([point.pointId, point.changedBytes], [pointId, MIB]);
  });

  it('S0.17 of two that take a machine at once one does', async (context) => {
    const { homeApi, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const taking = () => awayApi.call('failover.take', { ...BOX, body: { waitMs: 60_000, probes: [] } });
    const both = [await taking(), await taking(), await taking(), await taking(), await taking()];
    // Whoever waits takes no turn from others.
    await cede(homeApi);
    const ends = await Promise.all(both.map((job) => ended(awayApi, job)));
    const codes = ends.map(({ state, failure }) => failure?.code ?? state).sort();
    assert.equal(codes.filter((code) => code === 'done').length, 1, codes.join());
    const others = codes.filter((code) => code !== 'done');
    assert.ok(
      others.every((code) => code === 'FAILOVER_RUNS_ALREADY' || code === 'FAILOVER_TAKEN'),
      codes.join(),
    );
    const branches = await awayApi.call('failover.list', BOX);
    assert.equal(branches.length, 1);
  });

  it('S0.17 S0.29 a further site learns of the new epoch with the next copy, and gets a difference', async (context) => {
    const { t, directory, home, homeApi } = await sitesWithMachine(context);
    const east = await TestSite.init(t, directory, 'east');
    const eastApi = await east.serve();
    await pair(homeApi, eastApi);
    await homeApi.call('vm.protect', { ...BOX, body: { ...BY_HAND, target: 'away' } });
    await homeApi.call('target.add', { ...BOX, body: { target: 'east' } });
    const newestAtEast = async () => (await eastApi.call('point.list', BOX).catch(() => [])).at(-1);
    const caughtUp = ({ pointId }: { readonly pointId: string }) =>
      home.until(async () => {
        const newest = await newestAtEast();
        return newest?.pointId === pointId ? newest : undefined;
      });
    await caughtUp(await verifiedCopy(homeApi));

    await writeToTip(homeApi, 7, 8 * MIB);
    await caughtUp(await cede(homeApi));
    await homeApi.call('failover.withdraw', NOW);
    await writeToTip(homeApi, 9, 12 * MIB);
    const point = await caughtUp(await verifiedCopy(homeApi));
    assert.deepEqual([point.epoch, point.changedBytes], [3, MIB]);
    assert.deepEqual(await homeApi.call('alert.list'), []);
    // Of two sites that have it, the one that is named gets it.
    const ceded = await homeApi.call('failover.cede', { ...BOX, body: { to: 'east' } });
    assert.equal(((await resultOf(homeApi, ceded)) as Ceded).epoch, 4);
    assert.equal((await eastApi.call('vm.show', BOX)).replica!.right, 'offered');
  });

  it('S0.17 a machine that cannot be handed over runs on where it is', async (context) => {
    const { homeApi, away } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await homeApi.call('vm.start', BOX);
    // There is nothing on its disk that could shut down.
    const impatient = await ended(
      homeApi,
      await homeApi.call('failover.cede', { ...BOX, body: { graceMs: 1_000 } }),
    );
    assert.equal(impatient.failure!.code, 'MACHINE_STOP_TIMEOUT');
    const presence = async () => (await homeApi.call('vm.show', BOX)).protected!.presence.state;
    assert.deepEqual([await presence(), await heldAt(homeApi)], ['running', undefined]);

    await away.close();
    const alone = await ended(
      homeApi,
      await homeApi.call('failover.cede', { ...BOX, body: { powerOff: true } }),
    );
    assert.match(alone.failure!.code, /^PEER_/, 'whoever is not there is asked before the guest is');
    assert.deepEqual([await presence(), await heldAt(homeApi)], ['running', undefined]);
  });

  it('S0.17 a site that ends while the guest is being shut down goes on with it when it starts again', async (context) => {
    const { home, homeApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await homeApi.call('vm.start', BOX);
    const job = await homeApi.call('failover.cede', { ...BOX, body: { graceMs: 600_000 } });
    const isAt = (step: string) => async (api: TestApi) => {
      const { progress } = await api.call('job.show', { params: { job: job.jobId }, query: {} });
      return progress?.step === step ? true : undefined;
    };
    const shutting = isAt('shutting the guest down');
    await home.until(() => shutting(homeApi));

    await home.close();
    const again = await home.serve();
    await home.until(() => shutting(again));
    const { protected: atHome } = await again.call('vm.show', BOX);
    assert.deepEqual([atHome!.presence.state, atHome!.heldBy], ['running', undefined]);
    // A person loses patience.
    await again.call('vm.stop', { ...BOX, body: { force: true } });
    assert.equal(((await resultOf(again, job)) as Ceded).state, 'cedes');
    assert.equal(await heldAt(again), 'offered');
  });
});
