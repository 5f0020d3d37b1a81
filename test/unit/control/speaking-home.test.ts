import assert from 'node:assert/strict';
import { test } from 'node:test';
import { speakingHome } from '../../../src/control/machines/speaking-home.ts';
import type { Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';

const [HERE, THERE] = ['here', 'there'];

function machineThat(tenure: Tenure, branchId?: string): ProtectedMachine {
  return { right: { tenure }, record: branchId ? { adopted: { branchId } } : {} } as ProtectedMachine;
}

function replicaOf(o: { readonly epoch: number; readonly adopted?: string }): Replica {
  const record = { sourceSiteId: THERE, ...o };
  return { record } as unknown as Replica;
}

test('F4 of a machine that was at home here and has gone elsewhere its replica speaks, until it is taken back here', () => {
  const fenced = machineThat({ state: 'follows', claim: { epoch: 2, siteId: THERE } });
  const below = machineThat({ state: 'holds', claim: { epoch: 1, siteId: HERE } });
  const above = machineThat({ state: 'holds', claim: { epoch: 4, siteId: HERE } });
  const replica = replicaOf({ epoch: 2 });
  assert.equal(speakingHome(fenced, replica, HERE), undefined);
  assert.equal(speakingHome(below, replica, HERE), undefined);
  assert.equal(speakingHome(above, replica, HERE), above);
  assert.equal(speakingHome(fenced, undefined, HERE), fenced);
  assert.equal(speakingHome(undefined, replica, HERE), undefined);
});

test('F4 S0.17 a replica that is being adopted speaks until the machine upon it is there, not the one that was at home here before', () => {
  const follows: Tenure = { state: 'follows', claim: { epoch: 2, siteId: THERE } };
  const replica = replicaOf({ epoch: 3, adopted: 'branch' });
  const adopted = machineThat(follows, 'branch');
  assert.equal(speakingHome(adopted, replica, HERE), adopted);
  for (const before of [machineThat(follows), machineThat(follows, 'an older branch')])
    assert.equal(speakingHome(before, replica, HERE), undefined);
});
