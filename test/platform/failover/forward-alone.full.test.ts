import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import {
  failoverSite,
  inBranch,
  pointWithoutBootSector,
  READ_MARK,
  running,
} from '../../support/failover-site.ts';

const GRACE = { graceMs: 60_000 };
const POWER_OFF = { graceMs: 0 };
const CONFIRMED = { confirmedOtherSideDown: true } as const;

test('S0.24 a failover goes forward alone: never two of its machines run', async (t) => {
  const site = await failoverSite(t);
  const { failovers } = site;
  const [k, later] = await site.pointsMarked('first', 'later');
  const bad = await pointWithoutBootSector(site);
  const { replica } = site;
  const bridge = `wsf${process.pid}`;
  await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
  t.after(async () => {
    await runCommand('ip', ['link', 'delete', 'dev', bridge]);
  });
  const networks = { lan: { kind: 'bridge', bridge } } as const;
  const first = running(
    await failovers.start(replica, { pointId: k }, { ...CONFIRMED, networks, name: 'live' }),
  );
  const { epoch } = replica.record;
  await inBranch(site, first, 'echo people > /data/mine; sync');
  const forward = await failovers.forward(replica, 'live', {
    to: later,
    oldBranch: 'keep',
    networks,
    ...GRACE,
  });
  assert.equal(await inBranch(site, running(forward), READ_MARK), 'later');
  assert.equal(forward.kind, 'unplanned');
  assert.deepEqual(forward.attempts[0]?.network, { kind: 'connected', unplugged: [] });
  assert.equal(replica.record.epoch, epoch, 'the old source is fenced already');
  const views = await failovers.list(replica);
  assert.deepEqual(
    views.map(({ branchId, running, phase }) => [branchId, running, phase]),
    [
      [first, false, 'stopped'],
      [forward.branchId, true, 'probed'],
    ],
  );
  await assert.rejects(failovers.restart(replica, first), (error) =>
    isFailure(error, 'FAILOVER_RUNS_ALREADY'),
  );

  // A later point that does not boot must not leave people without the machine that they had.
  const live = forward.branchId!;
  const probes = [{ kind: 'agent', limitMs: 3000 }] as const;
  const missed = await failovers.forward(replica, live, {
    oldBranch: 'discard',
    probes,
    networks,
    ...POWER_OFF,
  });
  assert.deepEqual(
    [missed.verdict, missed.branchId, missed.forward?.oldBranch, missed.point.pointId],
    ['failed', live, 'runs-again', bad],
  );
  assert.deepEqual(missed.attempts.at(-1)?.network, { kind: 'connected', unplugged: [] });
  assert.equal(await inBranch(site, live, READ_MARK), 'later');
  const stays = new AbortController();
  stays.abort();
  await assert.rejects(
    failovers.forward(replica, live, { oldBranch: 'keep', networks, ...POWER_OFF, signal: stays.signal }),
  );
  assert.equal(await inBranch(site, live, READ_MARK), 'later', 'a cancelled one changes nothing');
});
