import type { ReplicaPoint, Trunk, TrunkState } from '../replica/index.ts';
import { claimVerdictOf } from './assertions.ts';
import { isNamed, type PointChoice } from './candidates.ts';
import { type AttemptReport, type FailoverReport, type PointSummary, Stopwatch } from './report.ts';
import type { FailoverTools } from './tools.ts';

export interface Attempt {
  readonly report: AttemptReport;
  /** From the command to the last probe that passed; null if it failed or nothing was asked. */
  readonly rtoMs: number | null;
  /** Its machine has been left running. */
  readonly runs: boolean;
}

/** Collects the attempts of one command. */
export class RunUnderWay {
  readonly watch: Stopwatch;
  readonly startMs: number;
  readonly #startedAtMs: number;
  readonly #attempts: Attempt[] = [];
  readonly #warnings: string[] = [];

  constructor({ clock }: Pick<FailoverTools, 'clock'>) {
    this.watch = new Stopwatch(clock);
    this.startMs = clock.monotonicMs();
    this.#startedAtMs = clock.wallMs();
  }

  /** What a person must know beside what the attempts tell. */
  warn(warnings: readonly string[]): void {
    this.#warnings.push(...warnings);
  }

  /** Whether this attempt is the last one needed. */
  add(attempt: Attempt): boolean {
    this.#attempts.push(attempt);
    return attempt.report.verdict !== 'failed';
  }

  report(
    about: Pick<FailoverReport, 'kind' | 'machine' | 'epoch' | 'accelerator' | 'chosenBy'> & {
      readonly slow: string | undefined;
      /** How the disks of a point differ from those that the machine has now. */
      readonly otherDisks: (pointId: string) => readonly string[];
    },
    /** A machine that had given way is at work again: it was tried after the last attempt, and is not what was asked for. */
    back?: Attempt,
  ): FailoverReport {
    const { slow, otherDisks, ...head } = about;
    const { report: last, rtoMs, runs } = this.#attempts.at(-1)!;
    const attempts = [...this.#attempts, ...(back ? [back] : [])].map(({ report }) => report);
    const notRecorded = attempts.flatMap((report) => report.notRecorded ?? []);
    const disks = otherDisks(last.point.pointId);
    return {
      ...head,
      ...{ verdict: last.verdict, branchId: runs ? last.branchId : null, point: last.point, rtoMs },
      startedAtMs: this.#startedAtMs,
      steps: [...this.watch.steps, ...this.#attempts.flatMap(({ report }) => report.steps)],
      warnings: [...warningsOf(about.kind, last, slow), ...this.#warnings, ...notRecorded, ...disks],
      attempts,
    };
  }
}

function warningsOf(
  kind: FailoverReport['kind'],
  last: AttemptReport,
  slow: string | undefined,
): readonly string[] {
  const warnings: string[] = [];
  if (kind === 'unplanned') {
    warnings.push(
      'This was not a planned failover: if the machine still runs at the other site, both copies take writes and diverge.',
    );
  }
  if (last.verdict === 'unproven')
    warnings.push('Nothing was asked of the guest: that it works is not known.');
  const claim = claimVerdictOf(last.assertions);
  if (claim === 'failed')
    warnings.push('An assertion failed: the point counts as crash-consistent from now on.');
  if (claim === 'open')
    warnings.push('An assertion could not be run: what the point claims is not known to hold.');
  if (last.network.kind === 'unplugged') warnings.push(`No NIC is connected: ${last.network.reason}.`);
  if (last.network.kind === 'connected' && last.network.unplugged.length > 0) {
    warnings.push(`Not connected, because nothing says to what: ${last.network.unplugged.join(', ')}.`);
  }
  if (slow !== undefined) warnings.push(`The guest runs without hardware acceleration (${slow}).`);
  return warnings;
}

/** What a report says before it comes to the attempts. */
export async function headOf(
  { hypervisor }: Pick<FailoverTools, 'hypervisor'>,
  replica: Trunk,
  kind: FailoverReport['kind'],
  choice: PointChoice,
): Promise<Parameters<RunUnderWay['report']>[0]> {
  const { machineId, machineName, epoch } = replica.record;
  const { accelerator, reason } = await hypervisor.acceleration();
  return {
    ...{ kind, machine: { machineId, name: machineName }, epoch, accelerator },
    chosenBy: isNamed(choice) ? ('person' as const) : ('selection' as const),
    slow: accelerator === 'tcg' ? (reason ?? 'no KVM') : undefined,
    otherDisks: (pointId: string) => otherDisksAt(replica, pointId),
  };
}

/** What a person must know who expects the disks that the machine had last. */
function otherDisksAt({ points, newest }: Pick<Trunk, 'points' | 'newest'>, pointId: string): string[] {
  const point = points.find(({ statement }) => statement.pointId === pointId);
  if (!point || !newest || point === newest) return [];
  const without = (there: ReplicaPoint, than: ReplicaPoint) => {
    const ids = new Set(there.statement.disks.map(({ diskId }) => diskId));
    return than.statement.disks.map(({ diskId }) => diskId).filter((diskId) => !ids.has(diskId));
  };
  const missing = without(point, newest);
  const former = without(newest, point);
  return [
    ...(missing.length > 0
      ? [`The machine got these disks after this point, and has none of them here: ${missing.join(', ')}.`]
      : []),
    ...(former.length > 0
      ? [
          `These disks were taken from the machine after this point, and are here as they were: ${former.join(', ')}.`,
        ]
      : []),
  ];
}

export function summaryOf({ statement, manifest, branchName }: TrunkState): PointSummary {
  const { pointId, sequence, copyType, consistency } = statement;
  const cutAtMs = manifest.cutAtHereMs;
  return {
    ...{ pointId, sequence, copyType, consistency, cutAtMs },
    ...(branchName === undefined ? {} : { branchName }),
  };
}
