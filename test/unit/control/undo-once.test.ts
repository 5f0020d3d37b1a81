import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandoverActs } from '../../../src/control/acts/handover-acts.ts';
import type { JobArgs, JobRequest } from '../../../src/control/base/jobs.ts';
import type { Tenure } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';

describe('the undoing of a failover', () => {
  /** What a site does that is asked to undo what it brought up by the claim of epoch 2. */
  function asked() {
    const record = {
      ...{ machineId: 'm', machineName: 'db', sourceSiteId: 'home', epoch: 2 },
      tenure: { state: 'holds', claim: { epoch: 2, siteId: 'here' } } as Tenure,
    };
    const replica = { record } as unknown as Replica;
    const undone: number[] = [];
    const requests: JobRequest[] = [];
    const acts = new HandoverActs({
      siteId: 'here',
      inventory: { replica: () => replica },
      jobs: () => ({ start: (request: JobRequest) => requests.push(request) }),
      acts: { tended: async (_machineId: string, work: (of: Replica) => Promise<unknown>) => work(replica) },
      failovers: { undo: async () => undone.push(record.tenure.claim.epoch) },
    } as unknown as ConstructorParameters<typeof HandoverActs>[0]);
    acts.undo('operator:a', 'db', {});
    const { signal } = new AbortController();
    const carryOut = (args: JobArgs = requests[0]!.args) =>
      acts.handlers['failover.undo'].run({
        ...{ jobId: 'j', machineId: 'm', args, signal, progress: () => undefined },
      });
    return { record, undone, carryOut };
  }

  it('S0.17 is that of the one that was meant, also when it is carried out once more', async () => {
    const { record, undone, carryOut } = asked();
    await carryOut();
    record.tenure = { state: 'follows', claim: { epoch: 2, siteId: 'here' } };
    await carryOut();
    assert.deepEqual(undone, [2, 2]);
    // Somebody has brought the machine up here again.
    record.tenure = { state: 'holds', claim: { epoch: 3, siteId: 'here' } };
    await assert.rejects(carryOut(), { code: 'MACHINE_UNSETTLED' });
    assert.deepEqual(undone, [2, 2]);
    // What an earlier version was asked says nothing of that.
    await carryOut({ graceMs: 0 });
    assert.deepEqual(undone, [2, 2, 3]);
  });
});
