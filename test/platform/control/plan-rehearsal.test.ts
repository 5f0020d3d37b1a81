/** A plan that is rehearsed: its machines see each other in one network without a way out, and nothing of it stays. */
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { PlanDocument, PlanRun } from '../../../src/api/index.ts';
import { heardOn, namespaceOf, portsOf, tapOf } from '../../../src/failover/network.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { linkNames, namespacesOf } from '../../support/branch-traces.ts';
import { lastFirst } from '../../support/last-first.ts';
import { resultOf } from '../../support/paired-sites.ts';
import { sitesWithShop } from '../../support/shop-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const SHOP = { params: { plan: 'shop' } };
const MIB = 1024 * 1024;
const COUNT_CPUS = 'grep -c ^processor /proc/cpuinfo';
/** A kernel keeps some of it for itself; the machine has 256 MiB by its point. */
const OF_192_MIB = '^MemTotal: +1[3-9][0-9]{4} kB$';

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

/** Puts programs to where the operator of a site puts them; the path of what «see» writes. */
async function operatorsPrograms(dataDirectory: string): Promise<string> {
  const directory = join(dataDirectory, 'programs');
  const seen = join(dataDirectory, 'seen');
  const texts = {
    tell: 'echo "$WARMSITE_SITE $WARMSITE_PLAN $WARMSITE_MODE $WARMSITE_WHEN $WARMSITE_MACHINE $WARMSITE_MACHINE_ID"',
    see: `(echo "$WARMSITE_NETWORK $WARMSITE_MACHINE $WARMSITE_BRANCH"; ip -o link) > ${seen}`,
    refuse: 'echo "$1"; exit 1',
  };
  await mkdir(directory, { mode: 0o755 });
  for (const [name, text] of Object.entries(texts)) {
    await writeFile(join(directory, name), `#!/bin/sh\n${text}\n`);
    await chmod(join(directory, name), 0o755);
  }
  return seen;
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
    const document: PlanDocument = {
      plan: 'shop',
      networks: { office: { away: { kind: 'bridge', bridge } } },
      machines: {
        db: {
          gates: [
            { kind: 'tcp', host: '10.77.0.2', port: 80, limitMs: 60_000 },
            { kind: 'sql', system: 'sqlite', database: ':memory:', query: 'select 40 + 2', pattern: '^42$' },
            { kind: 'guest', command: '/bin/cat', arguments: ['/proc/sys/kernel/hostname'], pattern: '^db$' },
            // What it has in a rehearsal, and not on the day itself.
            { kind: 'guest', command: '/bin/sh', arguments: ['-c', COUNT_CPUS], pattern: '^2$' },
            { kind: 'guest', command: '/bin/cat', arguments: ['/proc/meminfo'], pattern: OF_192_MIB },
          ],
          at: { away: { cpus: 3, memoryBytes: 320 * MIB, inTest: { cpus: 2, memoryBytes: 192 * MIB } } },
          hooks: { before: [{ program: 'tell', on: ['test'] }], after: [{ program: 'tell' }] },
        },
        web: {
          tier: 2,
          gates: [
            {
              kind: 'http',
              url: 'http://10.77.0.3/cgi-bin/tier',
              pattern: '^web < db: 0 orders',
              limitMs: 60_000,
            },
            { kind: 'script', program: 'see', limitMs: 60_000 },
          ],
        },
        lame: {
          tier: 3,
          hooks: { before: [{ program: 'refuse', on: ['test'], arguments: ['out of order'] }] },
        },
        cashier: { tier: 3, approval: 'Have you seen enough?' },
      },
    };
    const lacking = await awayApi.call('plan.put', { body: document });
    assert.equal(lacking.findings.filter(({ message }) => /no program/.test(message)).length, 4);
    const seen = await operatorsPrograms(away.dataDirectory);
    await awayApi.call('failover.changeRules', { body: { mostRunning: 2 } });
    await assert.rejects(awayApi.call('plan.run', { ...SHOP, body: { mode: 'test' } }), {
      code: 'PLAN_TOO_LARGE',
    });
    await awayApi.call('failover.changeRules', { body: { mostRunning: 8 } });

    const { run, job } = await awayApi.call('plan.run', { ...SHOP, body: { mode: 'test' } });
    const namespace = namespaceOf(run.runId);
    await away.until(async () => {
      const { steps } = await awayApi.call('plan.showRun', { params: { run: run.runId } });
      return ['asking', 'blocked'].includes(steps[3]!.state) ? steps : undefined;
    });
    // Both are up now, and the front end asks the database.
    const asked = ['busybox', 'wget', '-q', '-O', '-', 'http://10.77.0.3/cgi-bin/tier'];
    const { stdout } = await runCommand('ip', ['netns', 'exec', namespace, ...asked]);
    assert.match(stdout, /^web < db: 0 orders/);
    // A program that is a gate sees what the machine is in, and no more of the network.
    const [told, ...links] = (await readFile(seen, 'utf8')).trim().split('\n');
    assert.match(told!, /^isolated web [0-9a-z]{26}$/);
    assert.ok(
      links.length > 0 && links.every((link) => /: (lo|br0|ws[0-9a-f]+-0): /.test(link)),
      links.join(),
    );
    assert.deepEqual([await runsOf(awayApi, 'db'), await runsOf(awayApi, 'web')], [[true], [true]]);
    // Nothing of it is outside of its namespace, and nothing in there leads out.
    const outside = await linkNames();
    for (const machine of ['db', 'web']) {
      const [branch] = await awayApi.call('failover.list', { params: { machine } });
      assert.ok(!outside.includes(tapOf(branch!.branchId, 0)), machine);
    }
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
      ['done', 'done', 'failed', 'failed'],
    );
    const [db, , lame] = done.steps;
    assert.match(lame!.reason!, /the hook refuse before it: exit code 1: out of order/);
    // What was not to be run in a test was not.
    assert.deepEqual(
      db!.hooks!.map(({ when, program, outcome, output }) => [when, program, outcome, output]),
      [['before', 'tell', 'passed', `away shop test before db ${db!.machineId}\n`]],
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
