/** A proof that cannot be read says nothing of its point: it stops no failover, no drill and no cut of a group. */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { it } from 'node:test';
import { BootsOfPoints, measuredMs } from '../../../src/control/acts/plan-proofs.ts';
import { ReplicaKeeper } from '../../../src/control/replicas/replica-keeper.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { PASSES } from '../../support/branch-site.ts';
import { eventually } from '../../support/eventually.ts';
import { threePoints } from '../../support/three-points.ts';

const WORD = { confirmedOtherSideDown: true } as const;

/** Three points of a machine; of the oldest the proof of its boot is damaged. */
async function damaged(t: Parameters<typeof threePoints>[0]) {
  const made = await threePoints(t);
  // A test has to find room in the chain beside the places of the policy.
  await made.replica.update((record) => ({ ...record, retention: { types: { crash: 8 } } }));
  const { pointId } = made.replica.points[0]!.statement;
  const path = join(made.replica.layout.proofs(pointId), 'boot.json');
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, '');
  return { ...made, pointId, path };
}

it('F5 a failover comes up beside a proof that cannot be read, and its report names the file', async (t) => {
  for (const choice of ['selection', 'person'] as const) {
    const { failovers, replica, path } = await damaged(t);
    const { pointId } = replica.points.at(-1)!.statement;
    const { verdict, warnings } = await failovers.start(replica, choice === 'person' ? { pointId } : {}, {
      ...WORD,
      probes: PASSES,
    });
    assert.equal(verdict, 'passed');
    assert.ok(
      warnings.some((said) => said.startsWith('A proof of point 1 cannot be read') && said.includes(path)),
      warnings.join(),
    );
  }
});

it('F4 a test writes a proof anew that cannot be read', async (t) => {
  const { failovers, replica, pointId } = await damaged(t);
  const { verdict, warnings } = await failovers.test(replica, { pointId }, { probes: PASSES });
  assert.equal(verdict, 'passed');
  assert.match(warnings.join(), /A proof of point 1 cannot be read/);
  const again = await failovers.test(replica, { pointId }, { probes: PASSES });
  assert.doesNotMatch(again.warnings.join(), /cannot be read/);
});

it('F5 a plan counts a proof that cannot be read for nothing, in its cuts and in its estimate', async (t) => {
  const { failovers, replica, pointId } = await damaged(t);
  const boots = new BootsOfPoints(nodeFiles);
  assert.equal(await boots.hasFailed(replica, pointId), false);
  assert.equal(await measuredMs(nodeFiles, replica), undefined);
  await failovers.test(replica, { pointId }, { probes: PASSES });
  assert.equal(typeof (await measuredMs(nodeFiles, replica)), 'number');
});

it('F6 retention stands still by a proof that cannot be read, and says which file and what to do; points are listed meanwhile', async (t) => {
  const { replica, pointId, path } = await damaged(t);
  const standing = new Map<string, Failure>();
  const keeper = new ReplicaKeeper({
    ...{ files: nodeFiles, log: silentLog, replicas: { list: () => [replica], get: () => replica } },
    ...{ index: { refresh: () => undefined }, events: { emit: () => undefined } },
    ...{ forwarding: () => new Map(), floor: () => new Map() },
    hypervisor: { offer: () => new Promise(() => undefined) },
    clock: { monotonicMs: () => 0 },
    alerts: {
      raise: (key: string, _: unknown, failure: Failure) => void standing.set(key, failure),
      clear: (key: string) => void standing.delete(key),
    },
  } as unknown as ConstructorParameters<typeof ReplicaKeeper>[0]);
  const key = `retention:${replica.record.machineId}`;
  keeper.tend(replica);
  await eventually(async () => standing.get(key));
  assert.deepEqual([...standing.keys()], [key]);
  const { message, hint } = standing.get(key)!;
  assert.ok(message.includes(path), message);
  assert.match(hint, /failover test/);
  const reasons = [...(await keeper.reasons(replica)).values()];
  assert.deepEqual(reasons, [['proof-unread'], ['proof-unread'], ['proof-unread']]);
  assert.deepEqual(await keeper.proofs(replica, replica.point(pointId)), {
    ...{ content: undefined, boot: undefined, application: undefined },
  });
  await rm(path);
  keeper.tend(replica);
  await eventually(async () => standing.size === 0 || undefined);
});

it('F6 members of a group keep what belongs to cuts of one whose proofs cannot be read, and nothing else', async (t) => {
  const { replica: unread } = await damaged(t);
  const group = {
    ...{ version: 1, groupId: 'g', groupName: 'pair', cutId: 'c', pauseMs: 1 },
    members: [
      { machineId: unread.record.machineId, pointId: unread.points[0]!.statement.pointId },
      { machineId: 'web', pointId: 'grouped' },
    ],
  };
  Object.assign(unread.points[0]!.statement, { group });
  const point = (pointId: string, sequence: number, own = {}) => ({
    statement: { pointId, sequence, machineId: 'web', ...own },
    statementDigest: '',
  });
  const web = {
    record: { machineId: 'web', machineName: 'web', retention: { types: {} } },
    layout: unread.layout,
    points: [point('grouped', 1, { group }), point('single', 2)],
    retention: (_policy: unknown, _isProven: unknown, others: ReadonlyMap<string, readonly string[]>) =>
      ['grouped', 'single'].map((pointId, i) => ({
        ...{ pointId, sequence: i + 1, reasons: others.get(pointId) ?? [] },
      })),
  };
  const keeper = new ReplicaKeeper({
    ...{ files: nodeFiles, log: silentLog, replicas: { list: () => [unread, web] } },
    ...{ forwarding: () => new Map(), floor: () => new Map() },
  } as unknown as ConstructorParameters<typeof ReplicaKeeper>[0]);
  const reasons = await keeper.reasons(web as unknown as typeof unread);
  assert.deepEqual(
    [...reasons],
    [
      ['grouped', ['group', 'newest-group']],
      ['single', []],
    ],
  );
});
