/** A disk that is full when a boot has been seen: what can be kept of it decides nothing of what runs. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { prepareBranch } from '../../../src/failover/prepared.ts';
import { probeAgain } from '../../../src/failover/probe-again.ts';
import { RunUnderWay } from '../../../src/failover/run-under-way.ts';
import { branchSite, FAILS, PASSES } from '../../support/branch-site.ts';

describe('a machine that comes up on a disk that is full', () => {
  it('F5 S0.26 a failover whose picture cannot be kept has come up, and says what is missing', async (t) => {
    const { boot, machines, phase, tools } = await branchSite(t, 'failover', /console\.png/);
    const attempt = await boot({ probes: PASSES });
    const { verdict, picturePath, notRecorded } = attempt.report;
    assert.deepEqual([verdict, attempt.runs, picturePath], ['passed', true, null]);
    assert.match(notRecorded!.join(), /^What was seen of the boot is not kept: .*no space left\.$/);
    assert.deepEqual([await machines(), await phase()], [[1, 1], 'probed']);
    const run = new RunUnderWay(tools);
    run.add(attempt);
    const { warnings } = run.report({
      ...{ kind: 'unplanned', machine: { machineId: 'm', name: 'db' }, epoch: 2, accelerator: 'kvm' },
      ...{ chosenBy: 'selection', slow: undefined, otherDisks: () => [] },
    });
    assert.ok(warnings.includes(notRecorded![0]!), warnings.join());
  });

  it('F5 a failover that cannot be recorded has come up, and its guest can be asked again', async (t) => {
    const { boot, machines, phase, tools, live, replica, branch, disk } = await branchSite(
      t,
      'failover',
      /state\.json/,
    );
    const { report } = await boot({ probes: PASSES });
    assert.equal(report.verdict, 'passed');
    assert.match(report.notRecorded!.join(), /^That the machine has come up is not recorded: /);
    assert.deepEqual([await machines(), await phase()], [[1, 1], 'started']);
    const { signal } = new AbortController();
    const ask = () => probeAgain({ tools, live }, replica, branch.branchId, PASSES, signal);
    assert.deepEqual([(await ask())![0]!.passed, await phase()], [true, 'started']);
    disk.isFull = false;
    assert.deepEqual([(await ask())![0]!.passed, await phase()], [true, 'probed']);
  });

  it('F5 a failover that has not come up is ended, whatever can be recorded of it', async (t) => {
    const { boot, machines, branchesLeft, branch } = await branchSite(
      t,
      'failover',
      /state\.json|console\.png/,
    );
    const { report, runs } = await boot({ probes: FAILS });
    assert.deepEqual([report.verdict, runs, report.kept], ['failed', false, true]);
    assert.equal(report.notRecorded!.length, 2);
    assert.deepEqual([await machines(), await branchesLeft()], [[0, 0], [branch.branchId]]);
  });

  it('S0.21 a point of which it cannot be recorded that it is prepared leaves nothing', async (t) => {
    const { tools, live, replica, branch, branchesLeft } = await branchSite(t, 'test', /state\.json/);
    const options = { programs: [], probes: PASSES, graceMs: 10_000 };
    const prepared = prepareBranch({ tools, live }, replica, branch.pointId, options);
    await assert.rejects(prepared, { code: 'DISK_FULL' });
    assert.deepEqual([live.all.length, await branchesLeft()], [0, [branch.branchId]]);
  });

  it('S0.26 a test whose proof cannot be kept has failed, and nothing of it is left', async (t) => {
    for (const keep of [false, true]) {
      for (const full of [/boot\.json/, /console\.png/]) {
        const { boot, machines, branchesLeft } = await branchSite(t, 'test', full);
        await assert.rejects(boot({ probes: PASSES, keep }), { code: 'DISK_FULL' });
        assert.deepEqual([await machines(), await branchesLeft()], [[0, 0], []]);
      }
    }
    const { boot, machines, branchesLeft } = await branchSite(t, 'test', /state\.json/);
    await assert.rejects(boot({ probes: PASSES, keep: true }), { code: 'DISK_FULL' });
    assert.deepEqual([await machines(), await branchesLeft()], [[0, 0], []]);
  });
});
