import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Unread } from '../../../src/control/inventory/inventory.ts';
import { isAtHome, lackOfStanding, rightOf } from '../../../src/control/reports/report-right.ts';
import type { Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';

const [HERE, THERE] = ['here', 'there'];
const FOLLOWS: Tenure = { state: 'follows', claim: { epoch: 2, siteId: THERE } };
const READ: Unread = { home: undefined, replica: undefined };
const HOLDS: Tenure = { state: 'holds', claim: { epoch: 3, siteId: HERE } };

function machineThat(tenure: Tenure, branchId?: string): ProtectedMachine {
  return { right: { tenure }, record: branchId ? { adopted: { branchId } } : {} } as ProtectedMachine;
}

function replicaThat(tenure: Tenure, adopted?: string): Replica {
  return { record: { tenure, adopted, sourceSiteId: THERE } } as unknown as Replica;
}

test('F9 F4 a report names the right of whoever speaks for the machine, and not that of what was at home here before', () => {
  const said = (home: ProtectedMachine | undefined, replica: Replica | undefined) =>
    rightOf({ home, replica, unread: READ }, HERE)?.state;
  const before = machineThat(FOLLOWS, 'an older branch');
  // Of an adoption that has failed, or is under way beside it.
  assert.equal(said(before, replicaThat(HOLDS, 'branch')), 'holds');
  assert.equal(said(machineThat(HOLDS, 'branch'), replicaThat(FOLLOWS, 'branch')), 'holds');
  assert.equal(said(machineThat(FOLLOWS), replicaThat(HOLDS)), 'holds');
  assert.equal(said(machineThat(HOLDS), replicaThat(FOLLOWS)), 'holds', 'it was taken back here');
  assert.deepEqual(rightOf({ home: before, replica: undefined, unread: READ }, HERE), {
    ...{ epoch: 2, siteId: THERE, state: 'follows' },
  });
  assert.equal(said(undefined, undefined), undefined);
});

test('F9 S0.17 where something of the machine cannot be read, what can be speaks for nobody: the report says what it lacks', () => {
  const why = new Error('record.json is damaged');
  const lack = 'the right to run the machine, which cannot be read (record.json is damaged)';
  const ofReplica = { home: undefined, replica: why };
  assert.equal(rightOf({ home: machineThat(HOLDS), replica: undefined, unread: ofReplica }, HERE), undefined);
  assert.deepEqual(lackOfStanding({ unread: ofReplica }, 'adopt'), [lack]);
  const ofHome = { home: why, replica: undefined };
  assert.equal(rightOf({ home: undefined, replica: replicaThat(HOLDS), unread: ofHome }, HERE), undefined);
  assert.deepEqual(lackOfStanding({ unread: ofHome }, 'unplanned'), [lack]);
  assert.equal(lackOfStanding({ unread: ofHome }, 'adopt').length, 2);
  assert.deepEqual(lackOfStanding({ unread: READ }, 'adopt'), []);
});

test('F9 F4 the report of an adoption says that the machine is at home if that branch is, and not an older one', () => {
  const home = machineThat(HOLDS, 'branch');
  assert.equal(isAtHome({ home, unread: READ }, 'branch'), true);
  assert.equal(isAtHome({ home, unread: READ }, 'another branch'), false);
  assert.equal(isAtHome({ home: machineThat(HOLDS), unread: READ }, undefined), false);
  assert.equal(isAtHome({ home: undefined, unread: READ }, 'branch'), false);
});
