import assert from 'node:assert/strict';
import { test } from 'node:test';
import { speakingHome } from '../../../src/control/machines/speaking-home.ts';
import type { Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';

const [HERE, THERE] = ['here', 'there'];

function machineThat(tenure: Tenure): ProtectedMachine {
  return { right: { tenure } } as ProtectedMachine;
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
  assert.equal(speakingHome(fenced, replicaOf({ epoch: 2, adopted: 'branch' }), HERE), fenced);
  assert.equal(speakingHome(fenced, undefined, HERE), fenced);
  assert.equal(speakingHome(undefined, replica, HERE), undefined);
});
