/** Failovers of a machine that runs by leases, undone: it runs at home by leases again, and two never run. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import type { SignedReport } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { processesOfRun } from '../../../src/hypervisor/index.ts';
import type { Vote } from '../../../src/recovery-point/index.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { guardsOf } from '../../support/guards.ts';
import {
  ASK_WITNESS,
  guestIs,
  leaseAt,
  leasedBox,
  standsStill,
  tellAddress,
} from '../../support/leased-box.ts';
import { BOX, ended, resultOf } from '../../support/paired-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';
import { heldAt, verifiedCopy, writeToTip } from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;
const NOW = { ...BOX, body: {} } as const;
const AT_ONCE = { ...BOX, body: { graceMs: 0 } } as const;

/** What the witness, or the recovery site, has promised last. */
async function voteAt({ dataDirectory }: TestSite, api: TestApi): Promise<Vote> {
  const { machineId } = await api.call('vm.show', BOX);
  const path = join(dataDirectory, 'votes', `${machineId}.json`);
  return (JSON.parse(await readFile(path, 'utf8')) as { vote: Vote }).vote;
}

/** The guest runs, and both others lend it that. */
async function isLentByBoth(home: TestSite, api: TestApi): Promise<void> {
  await guestIs(home, api, 'runs');
  await eventually(async () => {
    const lease = await leaseAt(api);
    return lease?.lenders.every(({ lentMs }) => lentMs > 0) ? lease : undefined;
  });
}

async function runsAway(api: TestApi): Promise<boolean> {
  return (await api.call('failover.list', BOX)).some(({ running }) => running);
}

describe('leases and undoing', { timeout: 240_000 }, () => {
  it('S0.17 what was brought up by votes is undone, and runs at home by leases again, until votes bring it up once more', async (context) => {
    const { home, homeApi, away, awayApi, witness, witnessApi, qmpPath } = await leasedBox(context);
    await isLentByBoth(home, homeApi);
    await home.close();
    const begun = await awayApi.call('failover.start', ASK_WITNESS);
    await standsStill(qmpPath);
    const first = (await resultOf(awayApi, begun)) as FailoverReport;
    const params = { machine: 'box', branch: first.branchId! };
    let again = await home.serve();
    await tellAddress(home, 'home', [awayApi, witnessApi]);
    await home.until(async () => ((await heldAt(again)) === 'fenced' ? true : undefined));
    await home.until(async () =>
      (await again.call('vm.show', BOX)).protected!.presence.state === 'stopped' ? true : undefined,
    );
    assert.deepEqual(await processesOfRun(dirname(qmpPath)), []);
    // As long as it runs there, its home neither gets it back nor starts it.
    await assert.rejects(again.call('failover.withdraw', NOW), { code: 'MACHINE_TAKEN' });
    await assert.rejects(again.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
    assert.ok(await runsAway(awayApi));

    await resultOf(awayApi, await awayApi.call('failover.undo', AT_ONCE));
    assert.ok(!(await runsAway(awayApi)));
    // Given up is not given back: it is for its home to ask for it.
    await assert.rejects(again.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
    const changedMind = await ended(awayApi, await awayApi.call('failover.start', ASK_WITNESS));
    assert.equal(changedMind.failure?.code, 'LEASE_HELD', JSON.stringify(changedMind));
    const { epoch } = await again.call('failover.withdraw', NOW);
    await again.call('vm.start', BOX);
    await isLentByBoth(home, again);
    assert.equal((await guardsOf(dirname(qmpPath), 'lease-guard-main')).length, 1);
    const { siteId } = await again.call('site.show');
    for (const lender of [away, witness]) {
      const { entitled, term, before } = await voteAt(lender, awayApi);
      assert.deepEqual([{ ...entitled }, term, before], [{ epoch, siteId }, 'leased', undefined]);
    }
    // The other site does not start what it has given up, by whatever way.
    const restart = await awayApi.call('failover.restart', { params, body: { probes: [] } });
    assert.equal((await ended(awayApi, restart)).failure?.code, 'FAILOVER_FENCED');
    const held = await ended(awayApi, await awayApi.call('failover.start', ASK_WITNESS));
    assert.equal(held.failure?.code, 'LEASE_HELD', JSON.stringify(held));
    await isLentByBoth(home, again);
    const { sequence } = await verifiedCopy(again);
    assert.equal(sequence, 2);

    // It stands still once nobody lends it, and comes up there by votes as before.
    await home.close();
    const second = await awayApi.call('failover.start', ASK_WITNESS);
    await standsStill(qmpPath);
    const report = (await resultOf(awayApi, second)) as FailoverReport;
    assert.notEqual(report.branchId, first.branchId);
    assert.equal(report.heldBy, 'votes');
    // It holds the machine: to bring it up from another point it asks nobody, and its report claims no votes.
    const stopped = { machine: 'box', branch: report.branchId! };
    await resultOf(awayApi, await awayApi.call('failover.stop', { params: stopped, body: { graceMs: 0 } }));
    const third = await awayApi.call('failover.start', ASK_WITNESS);
    assert.equal(((await resultOf(awayApi, third)) as FailoverReport).heldBy, 'held-before');
    const said = async ({ jobId }: { jobId: string }) => {
      const { text } = await awayApi.call('report.show', { params: { report: jobId } });
      return (JSON.parse(text) as SignedReport).report.confirmations.map(({ what }) => what);
    };
    assert.deepEqual([await said(second), await said(third)], [['votes'], []]);
    again = await home.serve();
    await tellAddress(home, 'home', [awayApi, witnessApi]);
    await home.until(async () => ((await heldAt(again)) === 'fenced' ? true : undefined));
  });

  it('S0.17 an undoing of which the witness hears nothing, and a home that has heard of no failover', async (context) => {
    const { home, homeApi, awayApi, witness, qmpPath } = await leasedBox(context);
    await isLentByBoth(home, homeApi);
    await home.close();
    const begun = await awayApi.call('failover.start', ASK_WITNESS);
    await standsStill(qmpPath);
    await resultOf(awayApi, begun);
    await witness.close();
    await resultOf(awayApi, await awayApi.call('failover.undo', AT_ONCE));
    // Its guest stands still; nobody has told its site anything, and the recovery site lends it nothing.
    const again = await home.serve();
    await home.until(async () => ((await heldAt(again)) === 'fenced' ? true : undefined));
    await home.until(async () =>
      (await again.call('vm.show', BOX)).protected!.presence.state === 'stopped' ? true : undefined,
    );
    await again.call('failover.withdraw', NOW);
    await again.call('vm.start', BOX);
    await guestIs(home, again, 'runs');
    // The witness thinks that the other site holds it, until it is asked.
    const witnessAgain = await witness.serve();
    await tellAddress(witness, 'witness', [again, awayApi]);
    await tellAddress(home, 'home', [awayApi, witnessAgain]);
    await isLentByBoth(home, again);
    assert.ok(!(await runsAway(awayApi)));
  });

  it('S0.17 an offer that is withdrawn: it runs by leases again, and nobody brings it up by votes', async (context) => {
    const { home, homeApi, awayApi } = await leasedBox(context);
    await isLentByBoth(home, homeApi);
    // What was asked for in vain, and let go, is above the claim by which its home takes it back.
    for (let asked = 0; asked < 3; asked++) {
      const early = await ended(awayApi, await awayApi.call('failover.start', ASK_WITNESS));
      assert.equal(early.failure?.code, 'LEASE_HELD', JSON.stringify(early));
    }
    const ceding = { ...BOX, body: { powerOff: true } } as const;
    await resultOf(homeApi, await homeApi.call('failover.cede', ceding));
    assert.equal(await heldAt(homeApi), 'offered');
    await assert.rejects(homeApi.call('vm.start', BOX), { code: 'PROTECTION_CEDED' });
    await homeApi.call('failover.withdraw', NOW);
    await writeToTip(homeApi, 5, 8 * MIB);
    await homeApi.call('vm.start', BOX);
    await isLentByBoth(home, homeApi);
    const held = await ended(awayApi, await awayApi.call('failover.start', ASK_WITNESS));
    assert.equal(held.failure?.code, 'LEASE_HELD', JSON.stringify(held));
    const taking = await ended(
      awayApi,
      await awayApi.call('failover.take', { ...BOX, body: { probes: [] } }),
    );
    assert.equal(taking.failure?.code, 'FAILOVER_NOT_OFFERED');
    await isLentByBoth(home, homeApi);
  });
});
