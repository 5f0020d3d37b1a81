/** What a recovery site does by itself with points that arrive. The machine's disk is empty: nothing boots from it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import type { ArrivalRule, JobView } from '../../../src/api/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, ended, machineThatIsOff, pairedSites, resultOf } from '../../support/paired-sites.ts';

const SIZE_BYTES = 1024 * 1024;
const PREPARE: ArrivalRule = {
  work: {
    kind: 'prepare',
    programs: [{ name: 'revert', command: '/revert', arguments: [], limitMs: 1000 }],
    probes: [{ kind: 'serial', pattern: 'never', limitMs: 2000 }],
  },
};

it('S0.21 each point that arrives is prepared by the site itself, and what fails is told', {
  timeout: 180_000,
}, async (context) => {
  const { directory, away, homeApi, awayApi } = await pairedSites(context);
  const path = join(directory, 'box.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
  await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' }) });
  await homeApi.call('vm.protect', { ...BOX, body: { schedules: [], retention: { types: { crash: 4 } } } });
  const copy = async () => {
    const made = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in made && made.job);
    await resultOf(homeApi, made.job);
  };
  let api = awayApi;
  /** The next job that the site has begun by itself, when it has ended. */
  const seen = new Set<string>();
  const itsOwn = async (): Promise<JobView> => {
    for (;;) {
      const job = (await api.call('job.list', {})).find(
        ({ jobId, actor }) => actor === 'site' && !seen.has(jobId),
      );
      if (!job) {
        await sleep(systemClock, 50);
        continue;
      }
      seen.add(job.jobId);
      return ended(api, job);
    }
  };

  await copy();
  assert.deepEqual(await api.call('arrival.show', BOX), { rule: null });
  await api.call('arrival.set', { ...BOX, body: PREPARE });
  const first = await itsOwn();
  assert.equal(first.kind, 'failover.prepare', 'the newest that is here counts as one that arrives');
  assert.equal((first.result as { verdict: string }).verdict, 'failed');
  const alerts = async () =>
    (await api.call('alert.list', {}))
      .filter(({ code }) => code === 'ARRIVAL_FAILED')
      .map(({ message }) => message);
  while ((await alerts()).length === 0) await sleep(systemClock, 50);
  assert.match((await alerts())[0]!, /^point 1 of box could not be prepared: .*2000 ms/);
  assert.deepEqual(await api.call('failover.list', BOX), [], 'nothing is left of it');

  await away.close();
  api = await away.serve();
  assert.deepEqual(await api.call('arrival.show', BOX), { rule: PREPARE });
  assert.equal((await itsOwn()).args.pointId, first.args.pointId, 'it is tried again when the site starts');
  await api.call('arrival.clear', BOX);
  assert.deepEqual(await alerts(), []);
  assert.deepEqual(await api.call('arrival.show', BOX), { rule: null });
});
