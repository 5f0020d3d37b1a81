import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AdoptionActs } from '../../../src/control/acts/adoptions.ts';
import { FENCE_AGAIN_AFTER_MS } from '../../../src/control/machines/fence-watch.ts';
import { ReplicaFences } from '../../../src/control/replicas/replica-fences.ts';
import type { Failovers } from '../../../src/failover/index.ts';
import { failuresOf } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { afterHearing, type Tenure } from '../../../src/recovery-point/index.ts';
import { REPLICA_ERRORS, type Replica, type ReplicaRecord } from '../../../src/replica/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const [HOME, HERE] = ['home', 'here'];
const HELD: Tenure = { state: 'holds', claim: { epoch: 2, siteId: HERE! } };
type Change = { readonly tenure?: Tenure; readonly epoch?: number; readonly adopted?: string | undefined };
const replicaFailure = failuresOf(REPLICA_ERRORS);

/** A site that has brought a machine up in a branch of its replica, which runs. */
function broughtUp(tenure: Tenure = HELD) {
  const clock = new FakeClock();
  const alerts = new Map<string, string>();
  const stopped: string[] = [];
  const branch = { branchId: 'b1', purpose: 'failover', pointId: 'p1' };
  const replica = {
    record: { machineId: 'm', machineName: 'box', sourceSiteId: HOME, epoch: tenure.claim.epoch, tenure },
    branches: [branch],
    update: async (change: Change | ((record: ReplicaRecord) => Change | undefined)) => {
      const record = replica.record as unknown as ReplicaRecord;
      replica.record = { ...replica.record, ...(typeof change === 'function' ? change(record) : change) };
    },
  };
  const failovers = {
    list: async () => [{ ...branch, running: !stopped.includes('b1') }],
    stop: async (_replica: Replica, branchId: string) => {
      stopped.push(branchId);
      return 'shut-down' as const;
    },
  } as unknown as Failovers;
  const asReplica = replica as unknown as Replica;
  const there = [asReplica];
  const passedOn: number[] = [];
  let isFull = false;
  const fences = new ReplicaFences({
    ...{ siteId: HERE!, clock, failovers, log: silentLog },
    replicas: { list: () => there },
    alerts: {
      raise: (key, _severity, failure) => void alerts.set(key, failure.code),
      clear: (key) => void alerts.delete(key),
    },
    audit: { note: () => undefined },
    passOn: async ({ record }) => {
      if (isFull) throw replicaFailure('REPLICA_IN_USE', 'the machine cannot store it');
      passedOn.push(record.epoch);
    },
  });
  const hear = async (epoch: number) => {
    const after = afterHearing(replica.record.tenure, HERE!, { epoch, siteId: HOME! });
    await replica.update({ tenure: after, epoch });
    fences.look(asReplica);
  };
  return {
    clock,
    replica,
    asReplica,
    failovers,
    fences,
    alerts: () => [...alerts.values()],
    stopped,
    hear,
    passedOn,
    remove: () => void there.pop(),
    fill: (full: boolean) => {
      isFull = full;
    },
  };
}

test('S0.17 what was brought up here ends as soon as its site hears of a higher claim; before, it is left alone', async () => {
  const { clock, fences, alerts, stopped, hear, replica } = broughtUp();
  fences.begin();
  await clock.turn(0);
  assert.deepEqual([stopped, alerts()], [[], []]);
  await hear(3);
  await clock.turn(0);
  assert.deepEqual(
    [stopped, alerts(), replica.record.tenure.state],
    [['b1'], ['REPLICATION_SET_APART'], 'follows'],
  );
  await fences.close();
});

test('S0.17 so it does if that was heard while it was being adopted, and the adoption comes to nothing', async () => {
  const { clock, asReplica, replica, failovers, fences, stopped, hear } = broughtUp();
  const acts = new AdoptionActs({
    ...{ clock, random: systemRandom, fences, identity: { siteId: HERE! }, log: silentLog },
    alerts: { raise: () => undefined, clear: () => undefined },
    failovers: {
      list: failovers.list,
      adopt: async () => {
        await replica.update({ adopted: 'b1' });
        await hear(3);
        await clock.turn(0);
        await replica.update({ adopted: undefined });
        throw replicaFailure('REPLICA_IN_USE', 'no machine can be made of it');
      },
    },
    machines: {
      adopting: { check: () => undefined, create: () => assert.fail('it is adopted above') },
      get: () => undefined,
    },
    inventory: {
      replica: () => asReplica,
      view: () => assert.fail('nothing is to be shown'),
      find: () => assert.fail('nothing is to be shown'),
    },
    audit: { acting: async (_act, work) => work() },
    reports: { ofAdoptions: async () => undefined },
    diverged: { aloneAt: () => assert.fail('nothing was at home here before') },
  });
  const adopting = assert.rejects(acts.adopt('somebody', 'box', {}), { code: 'REPLICA_IN_USE' });
  await clock.turn(0);
  await adopting;
  await clock.turn(0);
  assert.deepEqual([stopped, replica.record.tenure.state], [['b1'], 'follows']);
  await fences.close();
});

test('F4 what runs of a machine that was given up here is ended: another site may take it at any moment', async () => {
  const { clock, fences, alerts, stopped, replica } = broughtUp({ state: 'follows', claim: HELD.claim });
  fences.begin();
  await clock.turn(0);
  assert.deepEqual([stopped, alerts()], [['b1'], ['REPLICATION_GIVEN_UP']]);
  assert.deepEqual(replica.record.tenure, { state: 'follows', claim: HELD.claim });
  await fences.close();
});

test('F4 S0.17 what was heard of a machine that is at home upon its replica is passed on to it, until it has heard', async () => {
  const { clock, fences, alerts, stopped, replica, passedOn, hear, fill } = broughtUp();
  await replica.update({ adopted: 'b1' });
  fill(true);
  await hear(3);
  await clock.turn(0);
  assert.deepEqual(passedOn, []);
  fill(false);
  await clock.turn(FENCE_AGAIN_AFTER_MS);
  assert.deepEqual([passedOn, stopped, alerts()], [[3], [], []], 'its process is another watch’s');
  await fences.close();
});

test('F4 nothing is said any more of a replica that has been removed, nor tried again', async () => {
  const { clock, fences, alerts, replica, remove } = broughtUp({ state: 'follows', claim: HELD.claim });
  replica.update = async () => {
    throw replicaFailure('REPLICA_REMOVED', 'it has been removed');
  };
  fences.begin();
  await clock.turn(0);
  assert.deepEqual(alerts(), ['REPLICATION_GIVEN_UP']);
  remove();
  await clock.turn(FENCE_AGAIN_AFTER_MS);
  assert.deepEqual([alerts(), clock.pending], [[], 0]);
  await fences.close();
});
