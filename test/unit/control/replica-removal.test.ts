/** What a site says of a machine ends with its replica. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReplicaActs } from '../../../src/control/acts/replica-acts.ts';
import type { Replica } from '../../../src/replica/index.ts';

type Tools = ConstructorParameters<typeof ReplicaActs>[0];

test('F4 the alerts of a replica go with it, and an older one that is there again is looked at in its place', async () => {
  const standing = new Set(['fenced-replica:m', 'adoption:m', 'arrival:m', 'fenced-replica:other']);
  const older = { record: { machineId: 'm', machineName: 'older' } } as Replica;
  const looked: string[] = [];
  let isRemoved = false;
  const replicas = {
    broken: [],
    get: () => (isRemoved ? older : undefined),
    remove: async () => {
      isRemoved = true;
    },
  };
  const nothing = async () => undefined;
  const acts = new ReplicaActs({
    ...{ replicas, inventory: { replica: () => older }, keeper: { forget: () => undefined } },
    ...{ audit: { acting: (_act: unknown, work: () => unknown) => work() }, forwards: { reports: () => [] } },
    ...{ rules: { forget: nothing }, drills: { forget: nothing }, settle: nothing },
    alerts: { clear: (key: string) => void standing.delete(key) },
    fences: { look: ({ record }: Replica) => void looked.push(record.machineName) },
  } as unknown as Tools);
  await acts.remove('somebody', 'box');
  assert.deepEqual([[...standing], looked], [['fenced-replica:other'], ['older']]);
});
