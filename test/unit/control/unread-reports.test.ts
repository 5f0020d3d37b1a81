/** Reports of machines of which something cannot be opened when they are written: nothing is signed of that but that it cannot be read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JobView, Report } from '../../../src/api/index.ts';
import { Inventory } from '../../../src/control/inventory/inventory.ts';
import { Reports } from '../../../src/control/reports/reports.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { createIdentity } from '../../../src/peer/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const id = () => newId(systemClock, systemRandom);
const MACHINE = id();
const DAMAGED = [{ machineId: MACHINE, error: new Error('record.json is damaged') }];

interface Had {
  readonly replica?: object;
  readonly isReplicaBroken?: boolean;
  readonly isHomeBroken?: boolean;
}

/** The report of a job about a machine of which the site has that. */
async function reported(t: CleanUp, job: Pick<JobView, 'kind' | 'args' | 'result'>, had: Had) {
  const { replica, isReplicaBroken, isHomeBroken } = had;
  const identity = await createIdentity({ name: 'here', clock: systemClock, random: systemRandom });
  const replicas = {
    list: () => (replica ? [replica as Replica] : []),
    get: () => replica,
    broken: isReplicaBroken ? DAMAGED : [],
  };
  const machines = { list: () => [], get: () => undefined, broken: isHomeBroken ? DAMAGED : [] };
  const reports = new Reports({
    ...{ files: nodeFiles, clock: systemClock, log: silentLog, identity, plans: { runs: [] } },
    alerts: { raise: (_key, _severity, failure) => assert.fail(failure), clear: () => undefined },
    audit: { list: () => [], after: () => [] } as never,
    dataDirectory: await temporaryDirectory(t),
    inventory: new Inventory({ machines, replicas } as never),
    origins: { confirmed: () => undefined },
  });
  await reports.open();
  const jobId = id();
  const view: JobView = {
    ...{ jobId, state: 'done', machineId: MACHINE, actor: 'operator:a', createdAtMs: 1, startedAtMs: 2 },
    ...{ endedAtMs: 3, progress: {}, ...job },
  };
  await reports.record({ job: view, steps: [], intent: 1 });
  return (JSON.parse(await reports.read(jobId)) as { readonly report: Report }).report;
}

const BROUGHT_UP = {
  ...{ kind: 'unplanned', machine: { machineId: MACHINE, name: 'db' }, verdict: 'passed', branchId: id() },
  ...{ chosenBy: 'person', startedAtMs: 1, rtoMs: 1, accelerator: 'kvm', steps: [], warnings: [] },
  attempts: [
    {
      point: { pointId: id(), sequence: 1, copyType: 'crash', consistency: 'crash', cutAtMs: 0 },
      ...{ reason: 'asked for', branchId: id(), kept: true, verdict: 'passed', reasons: [], probes: [] },
      ...{ nonce: 'not-asked', assertions: [], network: { kind: 'unplugged', reason: 'none' }, steps: [] },
      picturePath: null,
    },
  ],
};
const START = { kind: 'failover.start', args: {}, result: BROUGHT_UP } as const;

test('F9 S0.17 of a point whose replica cannot be read a report says that, and not that it is gone', async (t) => {
  const ofPoint = ({ missing }: Report) => missing.filter((what) => what.includes('statement'));
  assert.deepEqual(ofPoint(await reported(t, START, { isReplicaBroken: true })), [
    'the signed statement of the point, which cannot be read (record.json is damaged), of attempt 1',
  ]);
  const gone = ['the signed statement of the point, which is gone, of attempt 1'];
  assert.deepEqual(ofPoint(await reported(t, START, {})), gone);
  assert.deepEqual(ofPoint(await reported(t, START, { isHomeBroken: true })), gone);
});

test('F9 F4 S0.17 a replica that can be read does not speak for a machine at home upon it that cannot', async (t) => {
  const why = 'which cannot be read (record.json is damaged)';
  const record = { machineId: MACHINE, machineName: 'db', sourceSiteId: 'there', adopted: 'branch' };
  const replica = { record: { ...record, tenure: { state: 'holds', claim: { epoch: 2, siteId: 'here' } } } };
  const adoption = { kind: 'failover.adopt', args: { branchId: 'branch' } } as never;
  const read = await reported(t, adoption, { replica });
  assert.deepEqual([read.right?.state, read.outcome, read.missing], ['holds', { isAtHome: false }, []]);
  const unread = await reported(t, adoption, { replica, isHomeBroken: true });
  assert.deepEqual([unread.right, unread.outcome], [undefined, undefined]);
  assert.deepEqual(unread.missing, [
    `the right to run the machine, ${why}`,
    `whether the machine is at home here, ${why}`,
  ]);
});
