/** A machine that was adopted, and the replica that it lies upon, know the same claims. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endingAdoption, passOnClaim, passOnClaims } from '../../../src/control/acts/adoptions.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { Claim, Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica, ReplicaRecord } from '../../../src/replica/index.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { fencedSite } from '../../support/fenced-site.ts';

const HIGHER = { epoch: 3, siteId: 'home' };

function replica(machineId: string, adopted?: string): Pick<Replica, 'record'> {
  const tenure = { state: 'fenced', claim: HIGHER } as const;
  const record = { machineId, machineName: machineId, sourceSiteId: 'home', epoch: 3, tenure, adopted };
  return { record } as unknown as Pick<Replica, 'record'>;
}

test('F4 S0.17 what the replica heard while its machine was being adopted the machine hears when the site opens, and no other does', async () => {
  const heard: [string, Claim][] = [];
  const alerts = new Set<string>();
  let isFull = false;
  const machines = {
    get: (machineId: string) => ({
      machine: {
        record: { adopted: { branchId: 'branch' } },
        right: {
          hear: async (claim: Claim) => {
            if (isFull) throw libFailure('DISK_FULL', 'the disk is full');
            heard.push([machineId, claim]);
          },
        },
      } as never,
    }),
  };
  const tools = {
    ...{ siteId: 'away', machines, log: silentLog },
    alerts: { raise: (key: string) => void alerts.add(key), clear: (key: string) => void alerts.delete(key) },
  };
  await passOnClaims(tools, [replica('db', 'branch'), replica('web')]);
  assert.deepEqual(heard, [['db', HIGHER]]);
  isFull = true;
  await passOnClaims(tools, [replica('db', 'branch')]);
  assert.deepEqual([...alerts], ['adopted-claim:db']);
  await assert.rejects(passOnClaim(tools, replica('db', 'branch')), { code: 'DISK_FULL' });
  isFull = false;
  await passOnClaim(tools, replica('db', 'branch'));
  assert.deepEqual([...alerts], []);
});

/** A replica whose machine is at home upon it, and that machine. */
function atHome(o: { readonly replica: Tenure; readonly machine: Tenure }) {
  let record = { ...{ machineId: 'm', adopted: 'branch', epoch: 2 }, tenure: o.replica } as ReplicaRecord;
  const change = (by: Partial<ReplicaRecord> | undefined) => {
    record = { ...record, ...by };
  };
  const upon = {
    get record() {
      return record;
    },
    update: async (decide: (before: ReplicaRecord) => Partial<ReplicaRecord> | undefined) =>
      change(decide(record)),
    disown: async () => change({ adopted: undefined }),
  };
  const machine = {
    record: { adopted: { branchId: 'branch' } },
    right: { tenure: o.machine },
  } as unknown as ProtectedMachine;
  return { upon, replica: upon as unknown as Replica, machine };
}

test('F4 S0.17 a replica whose machine is removed stands where the machine stood, unless it has heard of a higher claim', async () => {
  const held: Tenure = { state: 'holds', claim: { epoch: 2, siteId: 'away' } };
  const fenced: Tenure = { state: 'fenced', claim: HIGHER, lost: held.claim };
  for (const [said, stood] of [
    [held, fenced],
    [fenced, held],
    [fenced, fenced],
  ] as const) {
    const { replica: ended, machine } = atHome({ replica: said, machine: stood });
    await endingAdoption(ended, machine, async () => undefined);
    assert.deepEqual([ended.record.tenure, ended.record.adopted], [fenced, undefined]);
  }
  // What comes while its files go, the replica has heard beside it.
  const { upon, replica: ended, machine } = atHome({ replica: held, machine: held });
  await endingAdoption(ended, machine, () => upon.update(() => ({ tenure: fenced, epoch: 3 })));
  assert.deepEqual([ended.record.tenure, ended.record.adopted], [fenced, undefined]);
});

test('F4 S0.17 while its replica is being adopted, or becomes one again, what was at home here before hears nothing of that claim, and its branch stays', async (t) => {
  const { machine, machineId, machines, ownSiteId, diverged, branch } = await fencedSite(t);
  const { branchId } = await branch();
  const claim = { epoch: 9, siteId: ownSiteId };
  const record = { machineId, adopted: 'a branch of the replica', tenure: { state: 'holds', claim } };
  const upon = { record } as unknown as Pick<Replica, 'record'>;
  const alerts = { raise: () => assert.fail('nothing is wrong'), clear: () => undefined };
  await passOnClaim({ siteId: ownSiteId, machines, log: silentLog, alerts }, upon);
  assert.equal(machine.right.tenure.state, 'fenced');
  assert.deepEqual(
    (await diverged.list(machineId)).map((one) => one.branchId),
    [branchId],
  );
});
