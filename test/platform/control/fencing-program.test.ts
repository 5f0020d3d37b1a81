/** A program of the operator in the place of his word: it switches the other host off, before anything is taken from it. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { FencingProgram, JobView, PlanRun, Report, RouteBody } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { processesOfRun } from '../../../src/hypervisor/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { killablePair } from '../../support/killable-site.ts';
import { BOX, ended, machineThatIsOff, resultOf } from '../../support/paired-sites.ts';
import { BY_HAND, DISK_BYTES, heldAt, verifiedCopy, write } from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;
const FENCE: { params: { machine: string }; body: RouteBody<'failover.start'> } = {
  ...BOX,
  body: { fence: true, probes: [] },
};

/** Two sites as processes of their own; home runs the machine, and away has a point of it, and a place for programs. */
async function sites(context: TestContext) {
  const pair = await killablePair(context);
  const { directory, home, away, homeApi } = pair;
  const disk = join(directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(DISK_BYTES)]);
  await write(disk, 1, 0, MIB);
  await homeApi.call('vm.add', {
    body: machineThatIsOff({ path: disk, sizeBytes: DISK_BYTES, format: 'qcow2' }),
  });
  await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
  await verifiedCopy(homeApi);
  await homeApi.call('vm.start', BOX);
  const { machineId } = await homeApi.call('vm.show', BOX);
  const programs = join(away.dataDirectory, 'programs');
  await mkdir(programs, { mode: 0o755 });
  const calls = join(directory, 'calls');
  const marks = join(directory, 'marks');
  await writeFile(marks, home.dataDirectory);
  return {
    ...pair,
    runsAtHome: async () => (await processesOfRun(join(home.dataDirectory, 'run', machineId))).length > 0,
    /** Puts the program there: each call of it is written down, then it does that. */
    program: async (does: string) => {
      const said = '$WARMSITE_MACHINE $WARMSITE_SITE $WARMSITE_OTHER_SITE $WARMSITE_EPOCH $*';
      await writeFile(join(programs, 'power-off'), `#!/bin/sh\necho "${said}" >> ${calls}\n${does}\n`);
      await chmod(join(programs, 'power-off'), 0o755);
    },
    calls: async () => (existsSync(calls) ? (await readFile(calls, 'utf8')).trim().split('\n') : []),
    /** What takes the power of the host of home: its site, its machine and its guards end where they stand. */
    powerOff: `exec 2> /dev/null
for process in /proc/[0-9]*; do
  if tr '\\0' ' ' < $process/cmdline | grep -qFf ${marks}; then kill -9 \${process#/proc/}; fi
done
echo outlet 7 is off`,
  };
}

function named(api: TestApi, fencing: FencingProgram): Promise<unknown> {
  return api.call('fencing.change', { body: { fencing } });
}

/** What away has of the right to run the machine: nothing, while it holds points and no more. */
async function nothingTaken(api: TestApi): Promise<void> {
  const { epoch, replica } = await api.call('vm.show', BOX);
  assert.deepEqual([epoch, replica!.right], [1, undefined]);
  assert.deepEqual(await api.call('failover.list', BOX), []);
}

/** What the audit log has of fencing, the oldest first. */
async function audited(api: TestApi) {
  const { entries } = await api.call('audit.list', { query: {} });
  return entries.filter(({ act }) => act === 'failover.fence').toReversed();
}

async function reportOf(api: TestApi, { jobId }: JobView): Promise<Report> {
  const { text } = await api.call('report.show', { params: { report: jobId } });
  return (JSON.parse(text) as { report: Report }).report;
}

describe('a fencing program in the place of a word', { timeout: 240_000 }, () => {
  it('S0.17 nothing is taken while it fails or takes too long; when it has switched the other host off, the machine comes up upon that', async (context) => {
    const { homeApi, home, awayApi, runsAtHome, program, calls, powerOff } = await sites(context);
    await assert.rejects(awayApi.call('failover.start', { ...BOX, body: {} }), {
      code: 'FAILOVER_UNCONFIRMED',
      message: /both may run/,
    });
    await assert.rejects(awayApi.call('failover.start', FENCE), { code: 'FAILOVER_NO_FENCING' });
    await assert.rejects(named(awayApi, { program: 'power-off' }), { code: 'FAILOVER_PROGRAM_UNKNOWN' });
    await program('echo no answer from the power unit >&2; exit 3');
    await named(awayApi, { program: 'power-off', arguments: ['outlet', '7'] });
    const looked = (await awayApi.call('doctor')).checks.find(({ check }) => check === 'fencing');
    assert.deepEqual([looked?.verdict, looked?.found], ['ok', 'power-off is there, and may be run']);

    const refused = await ended(awayApi, await awayApi.call('failover.start', FENCE));
    assert.equal(refused.failure?.code, 'FAILOVER_NOT_FENCED', JSON.stringify(refused));
    assert.match(refused.failure.message, /box may still run at site .*: no answer from the power unit$/);
    await nothingTaken(awayApi);
    assert.deepEqual(await calls(), ['box away home 1 outlet 7']);
    const failed = await reportOf(awayApi, refused);
    assert.deepEqual([failed.verdict, failed.confirmations], ['failed', []]);

    await program('echo begun; sleep 1000; exit 0');
    await named(awayApi, { program: 'power-off', limitMs: 500 });
    const late = await ended(awayApi, await awayApi.call('failover.start', FENCE));
    assert.equal(late.failure?.code, 'FAILOVER_NOT_FENCED', JSON.stringify(late));
    assert.match(late.failure.message, /had not ended after 500 ms, and was killed: begun$/);
    await nothingTaken(awayApi);
    assert.equal(await runsAtHome(), true);
    assert.equal((await homeApi.call('vm.show', BOX)).protected!.presence.state, 'running');

    await program(powerOff);
    await named(awayApi, { program: 'power-off' });
    const begun = await awayApi.call('failover.start', FENCE);
    const report = (await resultOf(awayApi, begun)) as FailoverReport;
    assert.equal(report.epoch, 2);
    assert.equal(await runsAtHome(), false, 'it was down before it came up here');
    const phases = (await audited(awayApi)).map(({ phase, actor }) => [phase, actor]);
    const by = begun.actor;
    assert.deepEqual(phases, [
      ...[
        ['intent', by],
        ['failed', by],
      ],
      ...[
        ['intent', by],
        ['failed', by],
      ],
      ...[
        ['intent', by],
        ['done', by],
      ],
    ]);
    const { details } = (await audited(awayApi)).at(-1)!;
    assert.deepEqual(
      [details.jobId, details.exitCode, details.output],
      [begun.jobId, 0, 'outlet 7 is off\n'],
    );
    const { confirmations, verdict } = await reportOf(awayApi, begun);
    assert.deepEqual([verdict, confirmations.length], ['unproven', 1]);
    const { atMs, ...evidence } = confirmations[0]!;
    assert.ok(atMs! >= begun.createdAtMs);
    assert.deepEqual(evidence, {
      ...{ what: 'fenced', by, program: 'power-off', output: 'outlet 7 is off\n' },
    });

    // The power comes back.
    const homeAgain = await home.serve();
    await awayApi.call('peer.address', {
      params: { peer: 'home' },
      body: { host: '127.0.0.1', port: (await homeAgain.call('site.show', {})).peerAddress.port },
    });
    await Promise.allSettled([homeAgain.call('point.create', { ...BOX, body: { type: 'crash' } })]);
    await eventually(async () => ((await heldAt(homeAgain)) === 'fenced' ? true : undefined));
    await assert.rejects(homeAgain.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
  });

  it('S0.17 one whose site is killed in its middle counts for nothing and ends with it; a plan that goes on runs it again', async (context) => {
    const { away, awayApi, runsAtHome, program, calls, powerOff, directory } = await sites(context);
    const processId = join(directory, 'pid');
    const hangs = `echo $$ > ${processId}; ${powerOff.replace('kill -9', 'true')}; sleep 1000`;
    await program(hangs);
    await named(awayApi, { program: 'power-off' });
    const begun = await awayApi.call('failover.start', FENCE);
    const isRun = (times: number) =>
      eventually(async () => ((await calls()).length === times && existsSync(processId) ? true : undefined));
    await isRun(1);
    await away.end('SIGKILL');
    const left = Number(await readFile(processId, 'utf8'));
    await eventually(async () => (existsSync(`/proc/${left}`) ? undefined : true));

    const again = await away.serve();
    const interrupted = await ended(again, begun);
    assert.equal(interrupted.failure?.code, 'JOB_INTERRUPTED');
    await nothingTaken(again);
    assert.equal((await calls()).length, 1, 'nobody has it run again unasked');
    assert.deepEqual(
      (await audited(again)).map(({ phase }) => phase),
      ['intent'],
    );
    const report = await reportOf(again, begun);
    assert.deepEqual([report.verdict, report.confirmations], ['interrupted', []]);

    // A plan goes on by itself; the program is that of the plan.
    await named(again, { program: 'power-off', arguments: ['of the site'] });
    const fencing = { program: 'power-off', arguments: ['of the plan'] };
    await again.call('plan.put', {
      body: { plan: 'shop', fencing, machines: { box: { gates: [] } } },
    });
    const shop = { params: { plan: 'shop' } };
    await assert.rejects(again.call('plan.run', { ...shop, body: { mode: 'unplanned' } }), {
      code: 'PLAN_UNCONFIRMED',
    });
    const { job } = await again.call('plan.run', { ...shop, body: { mode: 'unplanned', fence: true } });
    await isRun(2);
    await away.end('SIGKILL');
    await program(powerOff);
    const last = await away.serve();
    const run = (await resultOf(last, job)) as PlanRun;
    assert.deepEqual([run.verdict, run.steps[0]!.state], ['done', 'done'], JSON.stringify(run.steps));
    const plan = 'box away home 1 of the plan';
    assert.deepEqual(await calls(), ['box away home 1 ', plan, plan]);
    assert.equal(await runsAtHome(), false);
    const step = await reportOf(last, { jobId: run.steps[0]!.jobId! } as JobView);
    assert.deepEqual(
      step.confirmations.map(({ what, by }) => [what, by]),
      [['fenced', `plan:${run.runId}`]],
    );
  });
});
