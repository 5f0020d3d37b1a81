/** A site that lives, and whose machine was brought up at the other one: what it does when it hears of that. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { SiteEvent } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { ledgerPortOf } from '../../support/lab-guest.ts';
import { assertLedger } from '../../support/lab-sites.ts';
import { BOX, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import {
  BY_HAND,
  heldAt,
  servedAgain,
  sitesWithMachine,
  verifiedCopy,
  writeToTip,
} from '../../support/site-of-box.ts';

const CONFIRMED = { ...BOX, body: { confirmOtherSideDown: true } } as const;
/** Of a fenced machine: what its site has is the machine again. */
const UNPROTECT = CONFIRMED;
const MIB = 1024 * 1024;
const isToldFenced = (event: SiteEvent) =>
  event.event === 'alert' && event.alert.code === 'PROTECTION_FENCED';

describe('a machine that was brought up at the other site while its own lives', { timeout: 240_000 }, () => {
  it('S0.17 its guest is shut down as soon as its site hears of it, and all that it wrote is kept', async (context) => {
    const { t, directory, home, homeApi, awayApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    const ledger = await ledgerPortOf(t, lab);
    await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);

    // Somebody gives his word for what is not so.
    const begun = await awayApi.call('failover.start', CONFIRMED);
    const report = (await resultOf(awayApi, begun)) as FailoverReport;
    assert.deepEqual([report.verdict, report.epoch], ['passed', 2], JSON.stringify(report.attempts));
    const promised = (await ledger.next()).seq;
    const told = home.next(isToldFenced);
    await homeApi.call('point.create', { ...BOX, body: { type: 'crash' } });
    await told;
    await home.until(async () => {
      const { protected: shown } = await homeApi.call('vm.show', BOX);
      return shown!.presence.state === 'stopped' ? true : undefined;
    });
    const { entries } = await homeApi.call('audit.list');
    const fenced = entries.find(({ act }) => act === 'vm.fence');
    assert.deepEqual([fenced!.actor, fenced!.details], ['site', { outcome: 'shut-down' }]);
    const alerts = await homeApi.call('alert.list');
    assert.deepEqual(
      alerts.map(({ code, severity }) => [code, severity]),
      [['PROTECTION_FENCED', 'critical']],
      'a person is told once',
    );
    const { protected: shown } = await homeApi.call('vm.show', BOX);
    assert.deepEqual([shown!.heldBy!.name, shown!.heldBy!.epoch], ['away', 2]);
    const chainOf = (disk: number) => shown!.disks[disk]!.chain;
    const images = new QemuImages({ clock: systemClock });
    await assertLedger(images, (disk) => chainOf(disk === 'system' ? 0 : 1), promised);
    const [branch] = await awayApi.call('failover.list', BOX);
    assert.ok(branch!.running, 'the other one runs on');
  });

  it('S0.17 it is neither started nor copied there any more, until somebody decides for what that site has', async (context) => {
    const { home, homeApi, awayApi, disk } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const report = (await resultOf(
      awayApi,
      await awayApi.call('failover.start', CONFIRMED),
    )) as FailoverReport;
    const ofBranch = { params: { machine: 'box', branch: report.branchId! } };
    await resultOf(awayApi, await awayApi.call('failover.cleanup', ofBranch));

    await writeToTip(homeApi, 9, 8 * MIB);
    // Whichever comes first: this copy, or the next word between the sites.
    await Promise.allSettled([homeApi.call('point.create', { ...BOX, body: { type: 'crash' } })]);
    const alertOf = (api: typeof homeApi) => home.until(async () => (await api.call('alert.list'))[0]);
    assert.equal((await alertOf(homeApi)).code, 'PROTECTION_FENCED');
    const refused = {
      code: 'PROTECTION_FENCED',
      message: /^box was brought up at site .*, in epoch 2; this site is in epoch 1$/,
    };
    await assert.rejects(homeApi.call('vm.start', BOX), refused);
    await assert.rejects(homeApi.call('point.create', { ...BOX, body: { type: 'crash' } }), refused);

    await home.close();
    const again = await home.serve();
    await assert.rejects(again.call('vm.start', BOX), refused, 'that outlives the site process');
    assert.equal((await alertOf(again)).code, 'PROTECTION_FENCED');

    await assert.rejects(again.call('vm.unprotect', { ...BOX, body: {} }), refused, 'that is a decision');
    await again.call('vm.unprotect', UNPROTECT);
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', `read -q -P 9 ${8 * MIB} ${MIB}`, disk]);
    await again.call('vm.start', BOX);
    assert.equal((await again.call('vm.show', BOX)).protected!.presence.state, 'running');
    assert.deepEqual(await again.call('alert.list'), []);
    await again.call('vm.stop', { ...BOX, body: { force: true } });
  });
});

describe('a machine that is taken back without a word from the site that had brought it up', {
  timeout: 240_000,
}, () => {
  const stateAt = async (api: TestApi) => (await api.call('vm.show', BOX)).protected!.presence.state;

  /** Both sites know that the machine is held away, in epoch 2, where its guest runs; home copies nothing there any more. */
  async function heldAway(context: TestContext) {
    const sites = await sitesWithMachine(context);
    await sites.homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(sites.homeApi);
    const body = { confirmOtherSideDown: true as const, probes: [] };
    await resultOf(sites.awayApi, await sites.awayApi.call('failover.start', { ...BOX, body }));
    await Promise.allSettled([sites.homeApi.call('point.create', { ...BOX, body: { type: 'crash' } })]);
    await sites.home.until(async () => ((await heldAt(sites.homeApi)) === 'fenced' ? true : undefined));
    return sites;
  }

  it('S0.17 that site hears of it as soon as they can talk, though nothing is replicated there any more', async (context) => {
    const { home, homeApi, away } = await heldAway(context);
    await away.close();
    await homeApi.call('vm.unprotect', UNPROTECT);
    await homeApi.call('vm.start', BOX);
    const awayApi = await servedAgain(away, 'away', homeApi);
    // What is told so is ended, in the minute that its guest has for that.
    await away.until(async () => {
      const codes = (await awayApi.call('alert.list')).map(({ code }) => code);
      return codes.includes('REPLICATION_SET_APART') ? true : undefined;
    });
    assert.deepEqual([await stateAt(homeApi), await heldAt(homeApi)], ['running', undefined]);
    await home.until(async () => ((await homeApi.call('alert.list')).length === 0 ? true : undefined));
    await homeApi.call('vm.stop', { ...BOX, body: { force: true } });
  });

  it('S0.17 so does one that had adopted it, also by another process; and it may be taken from there again, as often as people want', async (context) => {
    const { home, homeApi, away, awayApi: first } = await heldAway(context);
    await first.call('failover.adopt', { ...BOX, body: {} });
    await away.close();
    await homeApi.call('vm.unprotect', UNPROTECT);
    const homeAgain = await servedAgain(home, 'home');
    await homeAgain.call('vm.start', BOX);
    const awayApi = await servedAgain(away, 'away', homeAgain);
    await away.until(async () => ((await heldAt(awayApi)) === 'fenced' ? true : undefined));
    await awayApi.call('vm.stop', { ...BOX, body: { force: true } });
    await assert.rejects(awayApi.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });

    // It is not protected there, and yet there is a way to have it there again.
    await awayApi.call('peer.address', {
      params: { peer: 'home' },
      body: { host: '127.0.0.1', port: home.served.site.peerAddress.port },
    });
    await awayApi.call('vm.unprotect', UNPROTECT);
    assert.equal((await awayApi.call('vm.show', BOX)).epoch, 4);
    await home.until(async () => ((await heldAt(homeAgain)) === 'fenced' ? true : undefined));
    await homeAgain.call('vm.stop', { ...BOX, body: { force: true } });
    await awayApi.call('vm.start', BOX);
    await awayApi.call('vm.stop', { ...BOX, body: { force: true } });
  });
});
