import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { FailoverRequest, GroupPointView, JobView } from '../../../src/api/index.ts';
import { GroupFailovers } from '../../../src/control/acts/group-failovers.ts';
import type { Replica } from '../../../src/replica/index.ts';

const LAN = { lan: { kind: 'bridge', bridge: 'br0' } } as const;

/** A site with one cut of two machines, whose failovers are counted. */
function group(checkTogether: (machines: readonly { pointId: string; networks: object }[]) => void) {
  const begun: [string, FailoverRequest['networks']][] = [];
  const members = ['web', 'db'].map((name) => ({ machineId: name, name, pointId: `point-of-${name}` }));
  const failovers = new GroupFailovers({
    groups: { points: async () => [{ cutId: 'cut', members } as unknown as GroupPointView] },
    inventory: { replica: (machineId) => ({ record: { machineId } }) as Replica },
    failovers: {
      test: () => Promise.reject(new Error('no test was asked for')),
      start: async (_actor, machineId, { networks }) => {
        begun.push([machineId, networks]);
        return {} as JobView;
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
