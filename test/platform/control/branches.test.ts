/** Branches by the API of the recovery site alone, with the other site gone. The machine's disk is empty: nothing boots from it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import type { PointView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, machineThatIsOff, pairedSites, resultOf } from '../../support/paired-sites.ts';

const SIZE_BYTES = 1024 * 1024;
const EVERY_MS = 2000;
const COPIES = 5;

/**
 * Keeps a test running while copies arrive, and looks at how old the newest point was at the most. Resolves with the sequence
 * numbers of the points that are there when no more are made.
 */
async function copiesBesideTest(
  t: TestContext,
  { away, homeApi, awayApi }: Awaited<ReturnType<typeof pairedSites>>,
): Promise<[number, number, number]> {
  const points = async () => {
    const isThere = (await awayApi.call('vm.list')).length > 0;
    return isThere ? await awayApi.call('point.list', BOX) : [];
  };
  await away.until(async () => ((await points()).length > 0 ? true : undefined));
  const begun = await awayApi.call('failover.test', { ...BOX, body: { name: 'beside', keep: true } });
  await resultOf(awayApi, begun);
  const arrived = new Map<number, PointView>();
  await away.until(async () => {
    for (const point of await points()) arrived.set(point.sequence!, point);
    return arrived.size > COPIES ? true : undefined;
  });
  const [beside] = await awayApi.call('failover.list', BOX);
  assert.deepEqual([beside?.name, beside?.running], ['beside', true]);
  const { rpo } = (await homeApi.call('vm.show', BOX)).protected!.replication!;
  const ordered = [...arrived.values()].sort((one, other) => one.sequence! - other.sequence!);
  // The newest point is never older than when the next one comes.
  const oldest = ordered.slice(1).map((point, index) => point.publishedAtMs! - ordered[index]!.cutAtMs);
  t.diagnostic(`beside a test the newest point was at the most ${oldest.join(', ')} ms old`);
  // As the interface judges it: one interval, and one for the transfer.
  assert.equal(rpo.targetMs, EVERY_MS);
  for (const ageMs of [...oldest, rpo.actualMs!]) assert.ok(ageMs <= 2 * EVERY_MS, `${ageMs} ms`);

  await homeApi.call('vm.policy', { ...BOX, body: { schedules: [] } });
  await homeApi.call('vm.stop', { ...BOX, body: { force: true } });
  await resultOf(awayApi, await awayApi.call('failover.cleanup', ofBranch('beside')));
  const made = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
  assert.ok('job' in made && made.job);
  await resultOf(homeApi, made.job);
  // What retention has no reason to keep goes a moment after the copy has come.
  const left = await away.until(async () => {
    const sequences = (await points()).map(({ sequence }) => sequence!);
    return sequences.length === 3 ? sequences : undefined;
  });
  return left.sort((one, other) => one - other) as [number, number, number];
}

const ofBranch = (branch: string) => ({ params: { machine: 'box', branch } });

it('S0.23 S0.24 S0.25 copies arrive in time beside a test; futures are named, listed, stopped, booted again and led forward by who operates them', {
  timeout: 180_000,
}, async (context) => {
  const sites = await pairedSites(context);
  const { directory, home, away, homeApi, awayApi } = sites;
  const path = join(directory, 'box.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
  await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' }) });
  const retention = { types: { crash: 3 } };
  await homeApi.call('vm.start', BOX);
  await homeApi.call('vm.protect', { ...BOX, body: { every: { crash: EVERY_MS }, retention } });
  const [k, later, last] = await copiesBesideTest(context, sites);
  // From here on nothing can come over the wire.
  await home.close();
  const few = { mostRunning: 2, lifetimeMs: 3_600_000 };
  const rules = await awayApi.call('failover.changeRules', { body: few });
  await away.close();
  const api = await away.serve();
  assert.deepEqual(await api.call('failover.rules', {}), rules);

  const test = async (point: string, name: string) =>
    resultOf(api, await api.call('failover.test', { ...BOX, body: { point, name, keep: true } }));
  await test(String(k), 'c1');
  await test(String(k), 'c2');
  await assert.rejects(test(String(later), 'c1'), /has the name «c1»/);
  await assert.rejects(test(String(later), 'c3'), /2 tests run or start/);
  for (const { endsAtMs } of await api.call('failover.list', BOX))
    assert.ok(endsAtMs! > systemClock.wallMs());
  await api.call('failover.changeRules', { body: { mostRunning: 3, lifetimeMs: null } });
  const branches = async () =>
    (await api.call('failover.list', BOX)).map(({ name, sequence, running }) => [name, sequence, running]);
  assert.deepEqual(await branches(), [
    ['c1', k, true],
    ['c2', k, true],
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
    ['discarded', [later]],
  );
  await resultOf(api, await api.call('failover.restart', { ...ofBranch('c1'), body: {} }));
  const keep = { to: 'latest', oldBranch: 'keep', name: 'c4', graceMs: 0 } as const;
  await resultOf(api, await api.call('failover.forward', { ...ofBranch('c1'), body: keep }));
  assert.deepEqual(await branches(), [
    ['c1', k, false],
    ['c3', later, true],
    ['c4', last, true],
  ]);
  await assert.rejects(
    resultOf(api, await api.call('failover.forward', { ...ofBranch('c4'), body: {} })),
    new RegExp(`no point follows ${last}`),
  );

  for (const { branchId } of await api.call('failover.list', BOX)) {
    await resultOf(api, await api.call('failover.cleanup', ofBranch(branchId)));
  }
  assert.deepEqual(await branches(), []);
  await assert.rejects(api.call('failover.stop', { ...ofBranch('c1'), body: {} }), /has no branch c1/);
});
