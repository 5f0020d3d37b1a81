/** A plan that is rehearsed: its machines see each other in one network without a way out, and nothing of it stays. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PlanDocument, PlanRun } from '../../../src/api/index.ts';
import { heardOn, namespaceOf, portsOf } from '../../../src/failover/network.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { linkNames, namespacesOf } from '../../support/branch-traces.ts';
import { lastFirst } from '../../support/last-first.ts';
import { resultOf } from '../../support/paired-sites.ts';
import { sitesWithShop } from '../../support/shop-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const SHOP = { params: { plan: 'shop' } };

/** A bridge of this host, until the test ends. */
async function bridgeOf(t: CleanUp, letter: string): Promise<string> {
  const bridge = `wsr${process.pid}${letter}`;
  await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
  t.after(async () => {
    await runCommand('ip', ['link', 'delete', 'dev', bridge]);
  });
  await runCommand('ip', ['link', 'set', 'dev', bridge, 'up']);
  return bridge;
}

/** What links a namespace has, by kind: nothing of it leads anywhere else. */
async function linkKindsIn(namespace: string): Promise<ReadonlySet<string | undefined>> {
  const { stdout } = await runCommand('ip', ['-n', namespace, '-j', '-d', 'link', 'show']);
  const links = JSON.parse(stdout) as { ifname: string; linkinfo?: { info_kind?: string } }[];
  return new Set(links.filter(({ ifname }) => ifname !== 'lo').map(({ linkinfo }) => linkinfo?.info_kind));
}

async function runsOf(api: TestApi, machine: string): Promise<boolean[]> {
  return (await api.call('failover.list', { params: { machine } })).map(({ running }) => running);
}

describe('a plan that is rehearsed', { timeout: 200_000 }, () => {
  it('F5 F7 its machines ask each other in one network without a way out, stay until all have been asked, and leave nothing', async (context) => {
    const t = lastFirst(context);
    const bridge = await bridgeOf(t, 'a');
    const { away, awayApi } = await sitesWithShop(t);
    const before = await linkNames();
    const document: PlanDocument = {
      plan: 'shop',
      networks: { office: { away: { kind: 'bridge', bridge } } },
      machines: {
        db: { gates: [{ kind: 'tcp', host: '10.77.0.2', port: 80, limitMs: 60_000 }] },
        web: { tier: 2, gates: [{ kind: 'tcp', host: '10.77.0.3', port: 80, limitMs: 60_000 }] },
        cashier: { tier: 3, approval: 'Have you seen enough?' },
      },
    };
    await awayApi.call('plan.put', { body: document });
    await awayApi.call('failover.changeRules', { body: { mostRunning: 2 } });
    await assert.rejects(awayApi.call('plan.run', { ...SHOP, body: { mode: 'test' } }), {
      code: 'PLAN_TOO_LARGE',
    });
    await awayApi.call('failover.changeRules', { body: { mostRunning: 8 } });

    const { run, job } = await awayApi.call('plan.run', { ...SHOP, body: { mode: 'test' } });
    const namespace = namespaceOf(run.runId);
    await away.until(async () => {
      const { steps } = await awayApi.call('plan.showRun', { params: { run: run.runId } });
      return steps[2]!.state === 'asking' || steps.some(({ state }) => state === 'failed')
        ? steps
        : undefined;
    });
    // Both are up now, and the front end asks the database.
    const asked = ['busybox', 'wget', '-q', '-O', '-', 'http://10.77.0.3/cgi-bin/tier'];
    const { stdout } = await runCommand('ip', ['netns', 'exec', namespace, ...asked]);
    assert.match(stdout, /^\S+ < \S+: 0 orders/);
    assert.deepEqual([await runsOf(awayApi, 'db'), await runsOf(awayApi, 'web')], [[true], [true]]);
    // Nothing of it is outside of its namespace, and nothing in there leads out.
    assert.deepEqual(await linkNames(), before);
    assert.deepEqual([...(await portsOf(bridge))], []);
    assert.deepEqual(await heardOn(bridge), []);
    assert.deepEqual(await linkKindsIn(namespace), new Set(['bridge', 'tun']));
    const { stdout: routes } = await runCommand('ip', ['-n', namespace, 'route', 'show', 'default']);
    assert.equal(routes.trim(), '');

    await awayApi.call('plan.approve', { params: { run: run.runId }, body: { machine: 'cashier' } });
    const done = (await resultOf(awayApi, job)) as PlanRun;
    assert.equal(done.verdict, 'partly', JSON.stringify(done.steps));
    assert.deepEqual(
      done.steps.map(({ state }) => state),
      ['done', 'done', 'failed'],
    );
    for (const machine of ['db', 'web']) {
      assert.deepEqual(await runsOf(awayApi, machine), [], `${machine}: nothing of the test is left`);
      const [point] = await awayApi.call('point.list', { params: { machine } });
      assert.equal(point!.proofs.boot?.passed, true);
    }
    assert.ok(!(await namespacesOf()).includes(namespace));
    const left = (await nodeFiles.list(`${away.dataDirectory}/run`)) ?? [];
    assert.deepEqual(
      left.filter((name) => name.includes(run.runId)),
      [],
    );
  });
});
