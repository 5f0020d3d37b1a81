/** A plan that brings machines up in another network: other addresses in the guest, and everybody there hears of it. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import type { PlanDocument, PlanRun } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { Frames } from '../../support/frames.ts';
import { lastFirst } from '../../support/last-first.ts';
import { ended, resultOf } from '../../support/paired-sites.ts';
import { SHOP_MACHINES, sitesWithShop } from '../../support/shop-sites.ts';

const SHOP = { params: { plan: 'shop' } };
const [DB, WEB] = SHOP_MACHINES;

describe('a plan that brings machines up in another network', { timeout: 200_000 }, () => {
  it('F5 F7 a guest has the addresses that the plan gives it before its gates are asked, and the bridge is told where it is', async (context) => {
    const t = lastFirst(context);
    const bridge = `wsp${process.pid}`;
    await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
    t.after(async () => {
      await runCommand('ip', ['link', 'delete', 'dev', bridge]);
    });
    await runCommand('ip', ['address', 'add', '10.88.0.254/24', 'dev', bridge]);
    await runCommand('ip', ['link', 'set', 'dev', bridge, 'up']);
    const frames = await Frames.on(t, bridge, 'arp or rarp');
    const { home, awayApi } = await sitesWithShop(t);
    t.after(async () => {
      // Their taps would stay.
      for (const machine of ['db', 'web']) {
        for (const { branchId } of await awayApi.call('failover.list', { params: { machine } })) {
          const params = { machine, branch: branchId };
          await resultOf(awayApi, await awayApi.call('failover.cleanup', { params }));
        }
      }
    });
    const document: PlanDocument = {
      plan: 'shop',
      networks: { office: { away: { kind: 'bridge', bridge } } },
      machines: {
        db: { at: { away: { mac: 'new', uuid: 'new' } } },
        web: {
          gates: [
            { kind: 'http', url: 'http://{lan}/', pattern: '^web$', limitMs: 60_000 },
            {
              ...{ kind: 'guest', command: '/bin/sh', pattern: '^2$' },
              arguments: ['-c', 'grep -c ^processor /proc/cpuinfo'],
            },
          ],
          at: {
            away: {
              addresses: {
                lan: { addresses: ['10.88.0.3/24'], gateway: '10.88.0.254', dns: ['10.88.0.53'] },
              },
              memoryBytes: 192 * 1024 * 1024,
              cpus: 2,
            },
          },
        },
      },
    };
    const { findings } = await awayApi.call('plan.put', { body: document });
    assert.deepEqual(findings, []);
    const elsewhere = { ...document, machines: { web: { gates: document.machines.web!.gates! } } };
    const checked = await awayApi.call('plan.check', { body: elsewhere });
    assert.match(checked.findings[0]!.message, /asks \{lan\}, and nothing says what address/);

    await home.close();
    const body = { mode: 'unplanned', confirmOtherSideDown: true } as const;
    const { job } = await awayApi.call('plan.run', { ...SHOP, body });
    const run = (await resultOf(awayApi, job)) as PlanRun;
    assert.equal(run.verdict, 'done', JSON.stringify(run.steps));
    const web = run.steps.find(({ machine }) => machine === 'web')!;
    const { result } = await ended(awayApi, await awayApi.call('job.show', { params: { job: web.jobId! } }));
    const [attempt] = (result as FailoverReport).attempts;
    assert.deepEqual(
      attempt!.addresses!.nics.map(({ mac, interfaceName, found }) => ({ mac, interfaceName, found })),
      [{ mac: WEB.mac, interfaceName: 'eth0', found: ['10.88.0.3/24'] }],
    );
    context.diagnostic(`set ${attempt!.addresses!.rounds} times`);

    // The switch hears of the NIC by its address alone, and everybody on the network of its new address, unasked.
    await frames.seen(new RegExp(`^\\S+ ${WEB.mac} > .*ethertype Reverse ARP`));
    await frames.seen(
      new RegExp(`^\\S+ ${WEB.mac} > .*Request who-has 10\\.88\\.0\\.3 .*tell 10\\.88\\.0\\.3`),
    );

    const commandOf = async (machine: string) => {
      const [branch] = await awayApi.call('failover.list', { params: { machine } });
      return (await readFile(`/proc/${branch!.processId}/cmdline`, 'utf8')).replaceAll('\0', ' ');
    };
    const asPlanned = await commandOf('web');
    assert.match(asPlanned, new RegExp(`mac=${WEB.mac}`));
    assert.match(asPlanned, /-m (size=)?(192M|201326592B|196608K|192\b)/);
    assert.match(asPlanned, /-uuid 6f1f2c3e-0d2a-4b5e-8f7a-012345678011/);
    const asNew = await commandOf('db');
    assert.match(asNew, /mac=52:54:00:/);
    assert.doesNotMatch(asNew, new RegExp(`${DB.mac}|6f1f2c3e`));
  });
});
