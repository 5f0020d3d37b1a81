/** Another site takes a machine while a failover of it is under way here: nothing of it runs from then on. */
import assert from 'node:assert/strict';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { runPaths } from '../../../src/hypervisor/index.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { FAILS, PASSES } from '../../support/branch-site.ts';
import { threePoints } from '../../support/three-points.ts';

const ASKED_FOR_LONG = [{ kind: 'serial', pattern: '^never', limitMs: 1_000_000 }] as const;
const WORD = { confirmedOtherSideDown: true } as const;
/** The failure says which claim it was. */
const fenced = (error: unknown) => isFailure(error, 'FAILOVER_FENCED') && error.context.epoch === 3;

describe('a machine that another site takes while it is brought up here', () => {
  it('S0.17 of several points none is tried any more', async (t) => {
    const { failovers, replica, ran, hear, at, processes, tenure } = await threePoints(t);
    at('run', () => hear({ look: false }));
    const options = { ...WORD, probes: FAILS };
    await assert.rejects(failovers.start(replica, {}, options), fenced);
    assert.deepEqual([ran.length, await processes(), tenure()], [1, [], 'fenced']);
  });

  it('S0.17 its guest does not begin, and one that is asked, or has just answered, is ended at once', async (t) => {
    for (const step of ['start', 'run', 'picture'] as const) {
      const { failovers, replica, ran, hear, at, processes } = await threePoints(t);
      at(step, () => hear({ look: step === 'run' }));
      const options = { ...WORD, probes: step === 'run' ? ASKED_FOR_LONG : PASSES };
      await assert.rejects(failovers.start(replica, {}, options), fenced, step);
      assert.deepEqual([ran.length, await processes()], [step === 'start' ? 0 : 1, []], step);
      const [branch, ...others] = await failovers.list(replica);
      assert.deepEqual([branch!.phase, others], ['failed', []], step);
    }
  });

  it('S0.17 what had run here before does not begin again: neither by itself nor because a later point has not come up', async (t) => {
    for (const act of ['restart', 'forward'] as const) {
      const { failovers, replica, ran, hear, at, processes } = await threePoints(t);
      const { pointId } = replica.points[0]!.statement;
      const { branchId } = await failovers.start(replica, { pointId }, { ...WORD, probes: PASSES });
      if (act === 'restart') await failovers.stop(replica, branchId!, { graceMs: 10_000 });
      at('start', () => hear({ look: false }));
      const options = { oldBranch: 'keep', graceMs: 10_000, probes: PASSES } as const;
      await assert.rejects(failovers[act](replica, branchId!, options), fenced, act);
      assert.deepEqual([ran, await processes()], [[1], []], act);
      const phases = (await failovers.list(replica)).map(({ phase }) => phase);
      assert.deepEqual(phases, act === 'restart' ? ['failed'] : ['stopped', 'failed']);
    }
  });

  it('S0.17 a guest that is asked once more, because nobody saw it come up, is asked no longer and ended at once', async (t) => {
    const { failovers, replica, hear, processes, tenure } = await threePoints(t);
    const { branchId } = await failovers.start(replica, {}, { ...WORD, probes: PASSES });
    const { signal } = new AbortController();
    const ask = (probes: typeof PASSES | typeof ASKED_FOR_LONG) =>
      failovers.probeAgain(replica, branchId!, probes, signal);
    assert.equal((await ask(PASSES))?.[0]?.passed, true);
    const refused = assert.rejects(ask(ASKED_FOR_LONG), fenced);
    await hear({ look: false });
    // Right then, and not when it is tried again.
    assert.equal(await failovers.stop(replica, branchId!, { graceMs: 10_000 }), 'shut-down');
    await refused;
    assert.deepEqual([await processes(), tenure()], [[], 'fenced']);
    await assert.rejects(ask(PASSES), fenced);
  });

  it('S0.17 a guest that has just answered is not up where another site has taken it meanwhile', async (t) => {
    const { failovers, replica, hear, runDirectory } = await threePoints(t);
    const { branchId } = await failovers.start(replica, {}, { ...WORD, probes: PASSES });
    const { signal } = new AbortController();
    const says = [{ kind: 'serial', pattern: '^at last', limitMs: 1_000_000 }] as const;
    const refused = assert.rejects(failovers.probeAgain(replica, branchId!, says, signal), fenced);
    await hear({ look: false });
    await appendFile(runPaths(join(runDirectory, branchId!)).serialPath, 'at last\n');
    await refused;
  });

  it('S0.17 a report names the epoch by which the machine came up, also if another site has taken it since', async (t) => {
    const { failovers, replica, hear, at } = await threePoints(t);
    at('recorded', () => hear({ look: false }));
    const { verdict, epoch } = await failovers.start(replica, {}, { ...WORD, probes: PASSES });
    assert.deepEqual([verdict, epoch, replica.record.epoch], ['passed', 2, 3]);
  });
});
