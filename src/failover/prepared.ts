import { throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { newId } from '../lib/random.ts';
import type { Probe } from '../probe/index.ts';
import type { Assertion } from '../recovery-point/index.ts';
import {
  type BranchRecord,
  branchLayer,
  createBranch,
  type Replica,
  removeBranch,
  type Trunk,
} from '../replica/index.ts';
import { type Boot, bootBranch } from './branch-machine.ts';
import { loadState, storeState } from './branch-state.ts';
import { failoverFailure } from './errors.ts';
import type { LiveBranches } from './live-branches.ts';
import { shutsDown } from './power-off.ts';
import { type AttemptReport, Stopwatch } from './report.ts';
import { type Attempt, summaryOf } from './run-under-way.ts';
import type { FailoverTools } from './tools.ts';
import { verdictOf } from './verdict.ts';

export interface PrepareOptions {
  /** Run in the guest one after the other; each must end with exit code 0. */
  readonly programs: readonly Assertion[];
  readonly probes?: readonly Probe[];
  /** How long the guest may take to shut down afterwards. */
  readonly graceMs: number;
  readonly name?: string;
  readonly signal?: AbortSignal;
}

/**
 * Makes of a point what is to be started from in its place: boots it in isolation, has the guest run programs (which take stray
 * writes back out, say), shuts it down in order and keeps what it wrote as a layer that is not written any more. If
 * anything of that fails, nothing is left. The point does not change.
 */
export async function prepareBranch(
  { tools, live }: { readonly tools: FailoverTools; readonly live: LiveBranches },
  replica: Replica,
  pointId: string,
  options: PrepareOptions,
): Promise<Attempt> {
  const { clock, random, files } = tools;
  const { name, signal } = options;
  throwIfAborted(signal);
  const branchId = newId(clock, random);
  return live.exclusively(branchId, async () => {
    const watch = new Stopwatch(clock);
    const about = { branchId, pointId, purpose: 'prepared' as const, createdAtMs: clock.wallMs() };
    const branch = await watch.time('branch', () =>
      createBranch(files, replica, { ...about, ...(name ? { name } : {}) }),
    );
    let seen: Seen;
    let isReady = false;
    try {
      await storeState(tools, replica, branchId, { phase: 'created', keep: true });
      seen = await bootAndRun({ tools, live }, replica, branch, options, watch);
      await live.end(branchId);
      if (seen.reasons.length === 0) {
        for (const diskId of branch.diskIds) {
          await files.setReadOnly(branchLayer(replica.layout, branchId, diskId), true);
        }
        await storeState(tools, replica, branchId, { phase: 'prepared', keep: true });
        isReady = true;
      }
    } finally {
      if (!isReady) {
        await live.end(branchId);
        await removeBranch(files, replica, branchId);
      }
    }
    return { report: reportOf(replica, branch, seen, isReady, watch), rtoMs: null, runs: false };
  });
}

interface Seen {
  readonly boot: Boot | undefined;
  /** Why it is not ready; none if it is. */
  readonly reasons: readonly string[];
}

/** A guest that does not come up, or a program that fails, is told and not thrown. */
async function bootAndRun(
  { tools, live }: { readonly tools: FailoverTools; readonly live: LiveBranches },
  replica: Replica,
  branch: BranchRecord,
  { programs, probes, graceMs, signal }: PrepareOptions,
  watch: Stopwatch,
): Promise<Seen> {
  const releaseLayers = await replica.holdLayers();
  let isLive = false;
  try {
    const boot = await bootBranch(tools, {
      ...{ replica, branch, keep: true, hasRun: false, probes, programs, watch, signal },
      network: 'isolated',
      onStarted: (machine) => {
        isLive = true;
        live.adopt({ replica, branch, machine, releaseLayers });
      },
    });
    const reasons = [...verdictOf({ probes: boot.probes }).reasons];
    for (const { name, outcome, exitCode, reason } of boot.assertions) {
      if (outcome !== 'held') reasons.push(`${name}: ${reason ?? `exit code ${exitCode}`}`);
    }
    const machine = live.get(branch.branchId)?.machine;
    if (reasons.length > 0 || !machine) return { boot, reasons };
    const isOff = await watch.time('shut-down', () => shutsDown(tools, machine, graceMs, signal));
    return { boot, reasons: isOff ? [] : ['the guest did not shut down in time'] };
  } catch (error) {
    if (!isFailure(error) || error.kind === 'cancelled' || signal?.aborted) throw error;
    return { boot: undefined, reasons: [messageOf(error)] };
  } finally {
    if (!isLive) releaseLayers();
  }
}

function reportOf(
  replica: Replica,
  { branchId, pointId }: BranchRecord,
  { boot, reasons }: Seen,
  kept: boolean,
  watch: Stopwatch,
): AttemptReport {
  return {
    ...{ point: summaryOf(replica.point(pointId)), reason: 'to be prepared', branchId, kept, reasons },
    ...{
      verdict: kept ? 'passed' : 'failed',
      probes: boot?.probes ?? [],
      nonce: boot?.screen.nonce ?? 'not-asked',
    },
    ...{ assertions: boot?.assertions ?? [], picturePath: null, steps: watch.steps },
    network: boot?.network ?? { kind: 'unplugged', reason: 'the machine was not started' },
  };
}

/** The branch that tests and failovers of a point start from: the one that was prepared last, if there is any. */
export async function preparedBranch(
  tools: Pick<FailoverTools, 'files'>,
  replica: Trunk,
  pointId: string,
): Promise<string | undefined> {
  const prepared = replica.branches.filter(
    (branch) => branch.purpose === 'prepared' && branch.pointId === pointId,
  );
  for (const { branchId } of prepared.toReversed()) {
    if ((await loadState(tools, replica, branchId))?.phase === 'prepared') return branchId;
  }
  return undefined;
}

/** Others start from it: it is not booted itself. Throws FAILOVER_BRANCH_PREPARED. */
export function checkNotPrepared({ branchId, purpose }: BranchRecord): void {
  if (purpose !== 'prepared') return;
  const said = `branch ${branchId} is what others of its point start from`;
  throw failoverFailure('FAILOVER_BRANCH_PREPARED', said, { context: { branchId } });
}

/** A branch that was made to prove something is looked at as a test is. */
export function purposeOf({ purpose }: BranchRecord): 'test' | 'failover' {
  return purpose === 'failover' ? 'failover' : 'test';
}
