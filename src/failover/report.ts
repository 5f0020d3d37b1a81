import type { Clock } from '../lib/clock.ts';
import type { ProbeResult } from '../probe/index.ts';
import type { AssertionReport } from './assertions.ts';
import type { NetworkReport } from './network.ts';
import type { ReaddressReport } from './readdressing.ts';
import type { RollForward } from './roll-forward.ts';
import type { NonceVerdict } from './verdict.ts';

/** One act of a failover and how long it took. */
export interface StepReport {
  readonly name:
    | 'fence'
    | 'branch'
    | 'network'
    | 'start'
    | 'probes'
    | 'picture'
    | 'assertions'
    | 'shut-down'
    | 'give-up'
    | 'clean-up';
  /** On this site's wall clock. */
  readonly beganAtMs: number;
  readonly durationMs: number;
}

export interface PointSummary {
  /** It is no point, but what a machine wrote here after the one of that number: the branch of this name. */
  readonly branchName?: string;
  readonly pointId: string;
  readonly sequence: number;
  readonly copyType: string;
  readonly consistency: string;
  /** When it was cut, on this site's clock. */
  readonly cutAtMs: number;
}

/** One point that was tried. */
export interface AttemptReport {
  readonly point: PointSummary;
  /** Why this point. */
  readonly reason: string;
  /** The prepared branch of the point that it started from, if there was one. */
  readonly preparedBranchId?: string;
  /** The branch; it is gone unless `kept`. */
  readonly branchId: string;
  readonly kept: boolean;
  readonly verdict: 'passed' | 'failed' | 'unproven';
  /** Why it failed; may hold a guest's words. */
  readonly reasons: readonly string[];
  readonly probes: readonly ProbeResult[];
  readonly nonce: NonceVerdict | 'not-asked';
  /** What became of the claims of the point; only a test asks. */
  readonly assertions: readonly AssertionReport[];
  /** Path of the console picture (PNG), as long as the branch or the proof is kept. */
  readonly picturePath: string | null;
  /** Of the picture of this very boot: a later one may have put its own in the place. Absent in reports of 0.1.0 and before. */
  readonly pictureSha256?: string;
  readonly network: NetworkReport;
  /** Where NICs were to have other addresses in the guest: what its agent read back last. */
  readonly addresses?: ReaddressReport;
  readonly steps: readonly StepReport[];
  /** What of it could not be recorded, and why: its verdict holds all the same. */
  readonly notRecorded?: readonly string[];
}

/** What a failover did; plain JSON for API, command line and archive. */
/** By what the right to run the machine was got: a person's word, a program that fenced, votes, an offer; or it was held before. */
export type HeldBy = 'word' | 'fencing' | 'votes' | 'offer' | 'held-before';

export interface FailoverReport {
  readonly kind: 'test' | 'unplanned' | 'planned' | 'prepare';
  readonly machine: { readonly machineId: string; readonly name: string };
  readonly verdict: AttemptReport['verdict'];
  /** The branch that runs now; null if none does. */
  readonly branchId: string | null;
  /** The point of the last attempt: the one that runs, if one does. */
  readonly point: PointSummary;
  /** `selection`: no person has named it; the attempts say how it was chosen. */
  readonly chosenBy: 'person' | 'selection';
  readonly epoch: number;
  /** Only where it had to be got; reports of earlier programs do not say it. */
  readonly heldBy?: HeldBy;
  /**
   * Of a machine that was taken over: the branches in which it may have been written to before, upon the same point; none, if they have gone.
   * Absent if nothing was brought up upon it before, and in reports of earlier programs.
   */
  readonly earlierBranchIds?: readonly string[];
  readonly startedAtMs: number;
  /** From the command to the last probe that passed, all attempts included; null if none succeeded. */
  readonly rtoMs: number | null;
  readonly accelerator: 'kvm' | 'tcg';
  readonly steps: readonly StepReport[];
  readonly warnings: readonly string[];
  /** Of a branch that went forward: from where and through which points, and what became of its own writes. */
  readonly forward?: RollForward & {
    readonly branchId: string;
    /** `runs-again`: of a failover whose later point did not come up; the attempt to bring it back is the last one. */
    readonly oldBranch: 'kept' | 'discarded' | 'runs-again';
  };
  /** In the order in which they were made. */
  readonly attempts: readonly AttemptReport[];
}

/** Takes the time of acts that follow each other. */
export class Stopwatch {
  readonly steps: StepReport[] = [];
  readonly #clock: Pick<Clock, 'monotonicMs' | 'wallMs'>;

  constructor(clock: Pick<Clock, 'monotonicMs' | 'wallMs'>) {
    this.#clock = clock;
  }

  async time<T>(name: StepReport['name'], work: () => Promise<T>): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    const beganAtMs = this.#clock.wallMs();
    try {
      return await work();
    } finally {
      this.steps.push({ name, beganAtMs, durationMs: this.#clock.monotonicMs() - startMs });
    }
  }
}
