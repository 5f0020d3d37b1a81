/** Branches by the API of the recovery site alone, with the other site gone. The machine's disk is empty: nothing boots from it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, machineThatIsOff, pairedSites, resultOf } from '../../support/paired-sites.ts';

const SIZE_BYTES = 1024 * 1024;
const ofBranch = (branch: string) => ({ params: { machine: 'box', branch } });

it('S0.23 S0.24 futures are named, listed, stopped, booted again and led forward by who operates them', {
  timeout: 180_000,
}, async (context) => {
  const { directory, home, away, homeApi, awayApi } = await pairedSites(context);
  const path = join(directory, 'box.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
  await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' }) });
  const retention = { types: { crash: 3 } };
  await homeApi.call('vm.protect', { ...BOX, body: { schedules: [], retention } });
  for (let copy = 0; copy < 3; copy++) {
    const made = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in made && made.job);
    await resultOf(homeApi, made.job);
  }
  // From here on nothing can come over the wire.
  await home.close();
  const few = { mostRunning: 2, lifetimeMs: 3_600_000 };
  const rules = await awayApi.call('failover.changeRules', { body: few });
  await away.close();
  const api = await away.serve();
  assert.deepEqual(await api.call('failover.rules', {}), rules);

  const test = async (point: string, name: string) =>
    resultOf(api, await api.call('failover.test', { ...BOX, body: { point, name, keep: true } }));
  await test('1', 'c1');
  await test('1', 'c2');
  await assert.rejects(test('2', 'c1'), /has the name «c1»/);
  await assert.rejects(test('2', 'c3'), /2 tests run or start/);
  for (const { endsAtMs } of await api.call('failover.list', BOX))
    assert.ok(endsAtMs! > systemClock.wallMs());
  await api.call('failover.changeRules', { body: { mostRunning: 3, lifetimeMs: null } });
  const branches = async () =>
    (await api.call('failover.list', BOX)).map(({ name, sequence, running }) => [name, sequence, running]);
  assert.deepEqual(await branches(), [
    ['c1', 1, true],
    ['c2', 1, true],
  ]);

  const stop = await api.call('failover.stop', { ...ofBranch('c1'), body: { graceMs: 0 } });
  assert.deepEqual(await resultOf(api, stop), { ended: 'powered-off' });
  const next = await resultOf(
    api,
    await api.call('failover.forward', { ...ofBranch('c2'), body: { name: 'c3', graceMs: 0 } }),
  );
  const { forward } = next as { forward: { oldBranch: string; following: { sequence: number }[] } };
  assert.deepEqual(
    [forward.oldBranch, forward.following.map(({ sequence }) => sequence)],
    ['discarded', [2]],
  );
  await resultOf(api, await api.call('failover.restart', { ...ofBranch('c1'), body: {} }));
  const keep = { to: 'latest', oldBranch: 'keep', name: 'c4', graceMs: 0 } as const;
  await resultOf(api, await api.call('failover.forward', { ...ofBranch('c1'), body: keep }));
  assert.deepEqual(await branches(), [
    ['c1', 1, false],
    ['c3', 2, true],
    ['c4', 3, true],
  ]);
  await assert.rejects(
    resultOf(api, await api.call('failover.forward', { ...ofBranch('c4'), body: {} })),
    /no point follows 3/,
  );

  for (const { branchId } of await api.call('failover.list', BOX)) {
    await resultOf(api, await api.call('failover.cleanup', ofBranch(branchId)));
  }
  assert.deepEqual(await branches(), []);
  await assert.rejects(api.call('failover.stop', { ...ofBranch('c1'), body: {} }), /has no branch c1/);
});
