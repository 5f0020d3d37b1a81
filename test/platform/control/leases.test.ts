/** A machine that runs only while one of two other sites lends it that: no two sites run it, and nobody has to give his word. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import type { PlanRun } from '../../../src/api/index.ts';
import { processesOfRun } from '../../../src/hypervisor/index.ts';
import type { Claim, Vote } from '../../../src/recovery-point/index.ts';
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
import { heldAt } from '../../support/site-of-box.ts';

const NOW = { ...BOX, body: {} } as const;

async function alertsOf(api: TestApi): Promise<string[]> {
  return (await api.call('alert.list')).map(({ code }) => code);
}

describe('leases', { timeout: 240_000 }, () => {
  it('S0.17 a guest stands still when neither lender answers, and goes on with the next lease', async (context) => {
    const { home, homeApi, away, witness } = await leasedBox(context);
    const lent = await guestIs(home, homeApi, 'runs');
    assert.deepEqual(lent.lenders.map(({ role }) => role).sort(), ['recovery', 'witness']);
    await away.close();
    // One of two is enough.
    await home.until(async () => ((await alertsOf(homeApi)).includes('LEASE_AT_RISK') ? true : undefined));
    assert.equal((await leaseAt(homeApi))!.guest, 'runs');
    await witness.close();
    await guestIs(home, homeApi, 'stopped');
    const { protected: stopped } = await homeApi.call('vm.show', BOX);
    assert.equal(stopped!.presence.standstill?.why, 'paused');
    assert.ok((await alertsOf(homeApi)).includes('LEASE_NOT_LENT'));
    const witnessApi = await witness.serve();
    await tellAddress(witness, 'witness', [homeApi]);
    await guestIs(home, homeApi, 'runs');
    assert.ok(!(await alertsOf(homeApi)).includes('LEASE_NOT_LENT'));
    // A person ends that: nobody has to lend it any more.
    const awayAgain = await away.serve();
    await tellAddress(away, 'away', [homeApi, witnessApi]);
    await homeApi.call('vm.lease.end', NOW);
    assert.equal(await leaseAt(homeApi), undefined);
    await assert.rejects(awayAgain.call('failover.start', ASK_WITNESS), { code: 'LEASE_UNKNOWN' });
  });

  it('S0.17 the other site brings a machine up on the word of the witness alone, and not while it may still run', async (context) => {
    const { home, homeApi, away, awayApi, witness, witnessApi, qmpPath } = await leasedBox(context);
    await guestIs(home, homeApi, 'runs');
    const early = await ended(awayApi, await awayApi.call('failover.start', ASK_WITNESS));
    assert.equal(early.failure?.code, 'LEASE_HELD', JSON.stringify(early));
    assert.equal((await guestIs(home, homeApi, 'runs')).guest, 'runs');
    // The site ends, and with it whoever asks for leases; its guest runs on until the guard stops it.
    await home.close();
    await awayApi.call('plan.put', { body: { plan: 'all', machines: { box: {} } } });
    const params = { plan: 'all' };
    await assert.rejects(awayApi.call('plan.run', { params, body: { mode: 'unplanned' } }), {
      code: 'PLAN_UNCONFIRMED',
    });
    const { job } = await awayApi.call('plan.run', { params, body: { mode: 'unplanned', askWitness: true } });
    await standsStill(qmpPath);
    const { steps } = (await resultOf(awayApi, job)) as PlanRun;
    assert.equal(steps[0]?.state, 'done', JSON.stringify(steps));
    const { epoch } = await awayApi.call('vm.show', BOX);
    assert.equal(epoch, 3, 'the epoch of the claim that was let go is not used again');
    // It comes back, and finds itself fenced.
    const again = await home.serve();
    await tellAddress(home, 'home', [awayApi]);
    await home.until(async () => ((await heldAt(again)) === 'fenced' ? true : undefined));
    await home.until(async () =>
      (await again.call('vm.show', BOX)).protected!.presence.state === 'stopped' ? true : undefined,
    );
    assert.deepEqual(await processesOfRun(dirname(qmpPath)), []);
    // As a site leaves it that is killed after it held the machine, and before it had forgotten by what it asked: it lets nothing go.
    await away.close();
    const { machineId } = await again.call('vm.show', BOX);
    const path = join(away.dataDirectory, 'votes', `${machineId}.json`);
    const { told, ...record } = JSON.parse(await readFile(path, 'utf8')) as { told: Claim };
    await writeFile(path, JSON.stringify({ ...record, seeking: told }));
    await away.serve();
    await tellAddress(away, 'away', [again, witnessApi]);
    await eventually(async () => {
      const now = JSON.parse(await readFile(path, 'utf8')) as { seeking?: Claim; told?: Claim };
      return now.seeking === undefined && now.told !== undefined ? now : undefined;
    });
    const votes = join(witness.dataDirectory, 'votes', `${machineId}.json`);
    const { vote } = JSON.parse(await readFile(votes, 'utf8')) as { vote: Vote };
    assert.deepEqual({ ...vote.entitled }, told);
    assert.equal(vote.before, undefined);
    await assert.rejects(again.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
  });

  it('S0.17 a witness that was away hears of the end of leases, and what nobody would lend runs on without any', async (context) => {
    const { home, homeApi, away, witness, witnessApi } = await leasedBox(context);
    await home.until(async () =>
      (await leaseAt(homeApi))!.lenders.every(({ lentMs }) => lentMs > 0) ? true : undefined,
    );
    const forgetting = witnessApi.call('lease.forget', { ...BOX, body: { confirmNotRun: true } });
    await assert.rejects(forgetting, { code: 'LEASE_LENT' });
    const { machineId } = await homeApi.call('vm.show', BOX);
    const known = join(witness.dataDirectory, 'votes', `${machineId}.json`);
    await witness.close();
    await homeApi.call('vm.lease.end', NOW);
    await home.until(async () =>
      (await homeApi.call('alert.list')).some(({ key }) => key === `lease-end:${machineId}`)
        ? true
        : undefined,
    );
    await readFile(known);
    await witness.serve();
    await tellAddress(witness, 'witness', [homeApi]);
    await home.until(async () =>
      (await homeApi.call('alert.list')).every(({ key }) => key !== `lease-end:${machineId}`)
        ? true
        : undefined,
    );
    assert.equal((JSON.parse(await readFile(known, 'utf8')) as { ended?: true }).ended, true);
    await witness.close();
    await away.close();
    await assert.rejects(homeApi.call('vm.lease', { ...BOX, body: { witness: 'witness' } }), {
      code: 'LEASE_REFUSED',
    });
    const { protected: there } = await homeApi.call('vm.show', BOX);
    assert.deepEqual([there!.lease, there!.presence.state], [undefined, 'running']);
    assert.equal(there!.presence.standstill, undefined);
  });

  it('S0.17 a guard that is killed is there again before its lease is over', async (context) => {
    const { home, homeApi, qmpPath } = await leasedBox(context);
    await guestIs(home, homeApi, 'runs');
    const guards = () => guardsOf(dirname(qmpPath), 'lease-guard-main');
    const [guard] = await guards();
    process.kill(guard!, 'SIGKILL');
    await eventually(async () => (await guards()).find((one) => one !== guard));
    await home.close();
    await standsStill(qmpPath);
  });
});
