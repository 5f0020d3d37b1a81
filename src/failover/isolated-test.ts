import { checkProbes } from '../probe/index.ts';
import { checkBranchName, freeBranchName, type Trunk } from '../replica/index.ts';
import type { BringUp } from './bring-up.ts';
import type { Candidates, PointChoice } from './candidates.ts';
import type { TestOptions } from './options.ts';
import type { FailoverReport } from './report.ts';
import { headOf, RunUnderWay } from './run-under-way.ts';
import type { SharedTests } from './shared-tests.ts';
import { startable } from './start-check.ts';
import type { TestGuard } from './test-guard.ts';
import { limitsOf } from './test-limits.ts';
import type { FailoverTools } from './tools.ts';

/** Boots states in isolation, one after the other, until one passes its probes: see `Failovers.test`. */
export async function isolatedTest(
  o: {
    readonly tools: FailoverTools;
    readonly bringUp: BringUp;
    readonly guard: TestGuard;
    readonly shared: SharedTests;
  },
  replica: Trunk,
  chosen: { readonly choice: PointChoice; readonly candidates: () => Promise<Candidates> },
  options: TestOptions,
): Promise<FailoverReport> {
  const { tools } = o;
  const { keep = false, name, probes, changes, asCut = false, signal } = options;
  checkProbes(probes ?? []);
  checkBranchName(replica, name);
  const together = options.together === undefined ? undefined : o.shared.need(options.together);
  const limits = await limitsOf(tools, options);
  const run = new RunUnderWay(tools);
  const { candidates, warnings: notRead } = await chosen.candidates();
  // What cannot start here says nothing of the point, and is no proof against it.
  const given = { ...changes, ...limits };
  const { passedOver, warnings } = await startable(tools.hypervisor, replica, candidates, given);
  run.warn([...notRead, ...warnings]);
  await o.guard.admit(async () => {
    for (const candidate of candidates) {
      if (passedOver.has(candidate.pointId)) continue;
      const attempt = await o.bringUp.onNewBranch({
        ...{ replica, candidate, purpose: 'test', networks: {}, commandMs: run.startMs },
        ...{ name: name && freeBranchName(replica, name), keep, limits, probes },
        ...{ asCut, together, changes, signal },
      });
      if (run.add(attempt)) break;
    }
  });
  return run.report(await headOf(tools, replica, 'test', chosen.choice));
}
