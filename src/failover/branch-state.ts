import { join } from 'node:path';
import { loadRecord, storeRecord } from '../lib/records.ts';
import type { BranchRecord, Trunk } from '../replica/index.ts';
import { BRANCH_STATE, type BranchPhase, type BranchState } from './records.ts';
import type { FailoverTools } from './tools.ts';

type StateTools = Pick<FailoverTools, 'files' | 'clock'>;

/** Durable on return, so that whatever is done next is found by the next process. */
export function storeState(
  { files, clock }: StateTools,
  replica: Trunk,
  branchId: string,
  state: Omit<BranchState, 'changedAtMs'>,
): Promise<void> {
  const body = { ...state, changedAtMs: clock.wallMs() };
  return storeRecord(files, statePath(replica, branchId), BRANCH_STATE, body);
}

export function loadState(
  { files }: Pick<StateTools, 'files'>,
  replica: Trunk,
  branchId: string,
): Promise<BranchState | undefined> {
  return loadRecord(files, statePath(replica, branchId), BRANCH_STATE);
}

function statePath(replica: Trunk, branchId: string): string {
  return join(replica.layout.branch(branchId), 'state.json');
}

/** What a site that starts again does with a branch. */
export type Recovery =
  /** Its machine runs and is to run: connect to it. */
  | 'attach'
  /** Its files are somebody's work: keep them, with no machine running. */
  | 'keep-files'
  /** Nothing in it is anybody's work: it was half made, or a test that nobody asked to keep. */
  | 'remove';

/**
 * Pure. What was being prepared is removed unless it was ready. A test is removed unless it had ended and was to be kept. The machine of a failover that had been started is
 * left running even if nobody saw its probes, because people may be working on it; one that failed its probes is not.
 * Whatever had run before it was booted again is never removed.
 */
export function recoveryOf(o: {
  readonly purpose: BranchRecord['purpose'];
  readonly phase: BranchPhase | undefined;
  readonly keep: boolean;
  readonly running: boolean;
  /** It was being booted again. */
  readonly hasRun: boolean;
}): Recovery {
  const { purpose, phase, keep, running, hasRun } = o;
  if (purpose === 'prepared') return phase === 'prepared' ? 'keep-files' : 'remove';
  if (hasRun) return running ? 'attach' : 'keep-files';
  if (phase === undefined || phase === 'created' || phase === 'network') return 'remove';
  if (purpose !== 'failover') {
    if (!keep || phase === 'started') return 'remove';
    return running ? 'attach' : 'keep-files';
  }
  return running && phase !== 'failed' ? 'attach' : 'keep-files';
}
