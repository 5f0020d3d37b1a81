/** Plans as a person types them, at two sites that are served. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { PlanRun } from '../../../src/api/index.ts';
import { type CommandResult, runCommand } from '../../../src/lib/processes.ts';
import { eventually } from '../../support/eventually.ts';
import { agreeingGate, sitesWithMachines } from '../../support/plan-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';

const WARMSITE = join(import.meta.dirname, '..', '..', '..', 'bin', 'warmsite.mjs');
const SHOP = `
plan: shop
description: what customers see
machines:
  db: { gates: [{ kind: script, program: agree }] }
  web: { tier: 2, approval: Is the licence server up?, gates: [{ kind: script, program: agree }] }
`;

describe('a recovery plan on the command line', { timeout: 300_000 }, () => {
  it('F5 is checked, compared, stored, estimated, rehearsed, approved, moved and removed as a person types it', async (context) => {
    const { directory, home, away } = await sitesWithMachines(context, ['db', 'web'], 'office');
    const type =
      (site: TestSite) =>
      (line: string): Promise<CommandResult> =>
        runCommand(process.execPath, [WARMSITE, '--data', site.dataDirectory, ...line.split(' ')], {
          ...{ cwd: directory, allowExit: [1, 2, 3, 4] },
        });
    const gate = await agreeingGate(away.dataDirectory);
    const [here, there] = [type(home), type(away)];
    const asJson = async (line: string) => JSON.parse((await there(`--json ${line}`)).stdout);
    await writeFile(join(directory, 'shop.yaml'), SHOP);
    await writeFile(join(directory, 'more.yaml'), `${SHOP}  mail: {}\n`);

    const sound = await there('plan check shop.yaml');
    assert.equal(sound.exitCode, 0, sound.stderr);
    assert.match(sound.stdout, /1\. *db\n.*2\. *web/);
    const lacking = await there('plan check more.yaml');
    assert.equal(lacking.exitCode, 1);
    assert.match(lacking.stdout, /error: this site has no machine mail/);
    assert.match((await there('plan diff shop.yaml')).stdout, /no plan of that name yet/);
    assert.equal((await there('plan estimate shop')).exitCode, 3);
    assert.equal((await there('plan put shop.yaml')).exitCode, 0);
    assert.match((await there('plan list')).stdout, /^shop +1 +2 .*what customers see/m);
    assert.match((await there('plan show shop')).stdout, /^web +2 .*Is the licence server up\?/m);
    assert.match((await there('plan diff more.yaml')).stdout, /^\+ machine mail$/m);
    assert.match((await there('plan diff shop.yaml')).stdout, /Nothing would change/);
    assert.match((await there('plan estimate shop')).stdout, /not measured/);
    assert.equal((await there('plan run shop')).exitCode, 2, 'it wants to know what is to be done');
    assert.match((await there('plan run shop --unplanned')).stderr, /PLAN_UNCONFIRMED/);

    // A rehearsal asks, and prints the line with which to say yes.
    const begun = await there('plan run shop --test --no-wait');
    const [, jobId] = /warmsite (job show \S+)/.exec(begun.stdout)!;
    const [newest] = (await asJson('plan runs')) as PlanRun[];
    const [, yes] = await eventually(
      async () =>
        /^Say yes: warmsite (plan approve .+)$/m.exec((await there(`plan runs ${newest!.runId}`)).stdout) ??
        undefined,
    );
    assert.equal((await there(yes!)).exitCode, 0);
    assert.equal((await there(`${jobId} --wait`)).exitCode, 0);
    const shown = await there(`plan runs ${newest!.runId}`);
    assert.match(shown.stdout, /end +done/);
    assert.match((await there('plan runs')).stdout, new RegExp(`^${newest!.runId} +shop +test .*done`, 'm'));
    const { totalMs } = await asJson('plan estimate shop');
    assert.ok(totalMs > 0);

    // Both sites have it, and each is told what the other one has to do.
    const later = { plan: 'shop', machines: { db: { gates: [gate] }, web: { tier: 2 } } };
    await writeFile(join(directory, 'shop.json'), JSON.stringify(later));
    assert.equal((await there('plan put shop.json')).exitCode, 0);
    await eventually(async () => (/^shop +2 /m.test((await here('plan list')).stdout) ? true : undefined));
    const taking = await there('plan run shop --planned --no-wait');
    assert.match(taking.stderr, /takes the machines of shop over .*: warmsite plan run shop --planned/);
    const [, taken] = /warmsite (job show \S+)/.exec(taking.stdout)!;
    const ceding = await here('plan run shop --planned');
    assert.match(ceding.stderr, /hands the machines of shop over/);
    assert.equal(ceding.exitCode, 0, ceding.stdout);
    assert.match(ceding.stdout, /how +cede/);
    const moved = await there(`${taken} --wait`);
    assert.equal(moved.exitCode, 0, moved.stdout);
    const runs = (await asJson('plan runs')) as PlanRun[];
    assert.deepEqual(
      [runs[0]!.request.mode, runs[0]!.request.waitMs, runs[0]!.verdict],
      ['take', 3_600_000, 'done'],
    );

    assert.equal((await there('plan remove shop')).exitCode, 0);
    assert.match((await there('plan list')).stdout, /No plans/);
    assert.match((await there('plan show shop')).stderr, /PLAN_UNKNOWN/);
  });
});
