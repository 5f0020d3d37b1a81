import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { FailoverRequest, GroupPointView, JobView } from '../../../src/api/index.ts';
import { GroupFailovers } from '../../../src/control/acts/group-failovers.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import type { Replica } from '../../../src/replica/index.ts';

const LAN = { lan: { kind: 'bridge', bridge: 'br0' } } as const;

/** A site with one cut of two machines, whose failovers are counted. */
function group(
  checkTogether: (machines: readonly { pointId: string; networks: object }[]) => void,
  begin: (machineId: string) => JobView = () => ({}) as JobView,
) {
  const begun: [string, FailoverRequest['networks']][] = [];
  const members = ['web', 'db'].map((name) => ({ machineId: name, name, pointId: `point-of-${name}` }));
  const failovers = new GroupFailovers({
    groups: { points: async () => [{ cutId: 'cut', members } as unknown as GroupPointView] },
    inventory: { replica: (machineId) => ({ record: { machineId } }) as Replica },
    failovers: {
      test: async (_actor, machineId) => begin(machineId),
      start: async (_actor, machineId, { networks }) => {
        const job = begin(machineId);
        begun.push([machineId, networks]);
        return job;
      },
      checkTogether: async (machines) => checkTogether(machines),
      hasWitness: (machineId) => machineId === 'web',
    },
  });
  return { failovers, begun };
}

it('S0.17 S0.28 a group of which one has no witness begins with none of them', async () => {
  const { failovers, begun } = group(() => undefined);
  await assert.rejects(failovers.start('person', 'shop', { askWitness: true }), { code: 'LEASE_UNKNOWN' });
  assert.deepEqual(begun, []);
});

it('S0.28 all members of a group are looked at together before any of them is begun', async () => {
  const refusal = new Error('one address twice');
  const asked: unknown[] = [];
  const { failovers, begun } = group((machines) => {
    asked.push(...machines.map(({ pointId, networks }) => [pointId, networks]));
    if (asked.length === 2) throw refusal;
  });
  const request = { networks: { web: LAN }, confirmOtherSideDown: true } as const;
  await assert.rejects(failovers.start('person', 'shop', request), refusal);
  assert.deepEqual(asked, [
    ['point-of-web', LAN],
    ['point-of-db', {}],
  ]);
  assert.deepEqual(begun, []);
  await failovers.start('person', 'shop', request);
  assert.deepEqual(begun, [
    ['web', LAN],
    ['db', undefined],
  ]);
});

it('S0.28 a member that cannot be begun hinders no other, and both are told: those that are at work, and those that are not', async () => {
  const full = controlFailure('SITE_DATABASE_FULL', 'no space is left');
  const jobOf = (jobId: string) => ({ jobId }) as JobView;
  const { failovers, begun } = group(
    () => undefined,
    (machineId) => {
      if (machineId === 'web') throw full;
      return jobOf('job of db');
    },
  );
  const request = { confirmOtherSideDown: true } as const;
  for (const answer of [
    await failovers.start('person', 'shop', request),
    await failovers.test('person', 'shop', {}),
  ]) {
    assert.deepEqual(answer, {
      cutId: 'cut',
      jobs: [{ machineId: 'db', name: 'db', job: jobOf('job of db') }],
      failures: [{ machineId: 'web', name: 'web', failure: full.toJSON() }],
    });
  }
  assert.deepEqual(begun, [['db', undefined]]);
  const none = group(
    () => undefined,
    () => {
      throw full;
    },
  );
  await assert.rejects(none.failovers.start('person', 'shop', request), full);
  // What is no failure of the world is a fault of ours, and not told as one.
  const bug = new TypeError('undefined is not a function');
  const broken = group(
    () => undefined,
    () => {
      throw bug;
    },
  );
  await assert.rejects(broken.failovers.start('person', 'shop', request), bug);
});
