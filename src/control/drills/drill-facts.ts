import type { DrillPolicyShape } from '../../api/index.ts';
import { loadApplicationProof, loadBootProof, readOrTell } from '../../failover/index.ts';
import { checkMachineConfiguration } from '../../hypervisor/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { type DrillMachine, type DrillPoint, leavingNext } from '../../recovery-point/index.ts';
import type { Replica, ReplicaPoint } from '../../replica/index.ts';
import type { JobArgs, Jobs } from '../base/jobs.ts';
import type { ReplicaKeeper } from '../replicas/replica-keeper.ts';
import { attemptOf, notAsClaimed } from './drill-outcome.ts';

/** So far back it is looked at how drills of a machine went. */
const ATTEMPTS_MAX = 200;

export interface DrillFactsTools {
  readonly files: FileSystem;
  readonly keeper: Pick<ReplicaKeeper, 'verdicts'>;
  readonly jobs: () => Pick<Jobs, 'ofMachine'>;
}

/** What there is to know of a machine for its drills, but what people say of it and what it owes. */
export interface DrillFacts extends Pick<DrillMachine, 'points' | 'attempts'> {
  /** Of the newest point. */
  readonly memoryBytes: number;
  readonly guestAgent: boolean;
  readonly newestProven: NewestProven | undefined;
}

interface NewestProven {
  readonly pointId: string;
  readonly sequence: number;
  readonly provenAtMs: number;
  readonly rtoMs: number | null;
}

/** Reads the proofs of a replica; undefined if it has no point yet. */
export async function drillFactsOf(
  { files, keeper, jobs }: DrillFactsTools,
  replica: Replica,
): Promise<DrillFacts | undefined> {
  const { newest, points: all, record } = replica;
  if (!newest) return undefined;
  const leaving = leavingNext(await keeper.verdicts(replica), record.retention);
  const points: DrillPoint[] = [];
  let newestProven: NewestProven | undefined;
  for (const point of all) {
    const { pointId, sequence, copyType, consistency } = point.statement;
    const shown = await shownOf(files, replica, point);
    if (shown.proof === 'passed') {
      newestProven = { pointId, sequence, provenAtMs: shown.startedAtMs, rtoMs: shown.rtoMs };
    }
    points.push({
      ...{ pointId, sequence, copyType, consistency, arrivedAtMs: point.manifest.publishedAtMs },
      ...{ proof: shown.proof, reason: shown.reason, isLeaving: leaving.has(pointId) },
    });
  }
  const { memoryBytes, guestAgent } = checkMachineConfiguration(newest.statement.configuration);
  const ended = jobs().ofMachine('drill.run', record.machineId, ATTEMPTS_MAX);
  const attempts = ended.flatMap((job) => attemptOf(job) ?? []);
  return { points, attempts, memoryBytes, guestAgent, newestProven };
}

/** Told elsewhere: retention stands still by it, with an alert. */
const TOLD = () => undefined;

/** What the last isolated boot of a point has shown. A proof that cannot be read is none, so that a drill writes it anew. */
async function shownOf(
  files: FileSystem,
  replica: Replica,
  point: ReplicaPoint,
): Promise<
  Pick<DrillPoint, 'proof' | 'reason'> & { readonly startedAtMs: number; readonly rtoMs: number | null }
> {
  const { pointId } = point.statement;
  const boot = (await readOrTell(pointId, TOLD, () => loadBootProof(files, replica, pointId)))?.proof;
  const seen = { startedAtMs: boot?.startedAtMs ?? 0, rtoMs: boot?.rtoMs ?? null };
  if (boot?.statementDigest !== point.statementDigest) return { ...seen, proof: 'none' };
  if (boot.verdict === 'failed') {
    return { ...seen, proof: 'failed', reason: boot.reasons.join('; ') || 'it did not come up' };
  }
  const claim = await readOrTell(pointId, TOLD, () => loadApplicationProof(files, replica, point));
  const application = claim?.proof;
  if (application?.verdict !== 'failed') return { ...seen, proof: 'passed' };
  const broken = application.assertions.filter(({ outcome }) => outcome === 'failed');
  return { ...seen, proof: 'refuted', reason: notAsClaimed(broken.map(({ name }) => name)) };
}

/** The same as planning looks at it. */
export function drillMachineOf(
  machineId: string,
  policy: DrillPolicyShape,
  { points, attempts, memoryBytes, guestAgent }: DrillFacts,
  o: Pick<DrillMachine, 'isPaused' | 'debt'>,
): DrillMachine {
  return {
    ...{ machineId, policy, points, attempts, ...o },
    memoryBytes: policy.memoryBytes ?? memoryBytes,
    canBeAsked: policy.probes ? policy.probes.length > 0 : guestAgent,
  };
}

/** What a drill is told of the policy by which it is carried out. */
export function howOf(policy: DrillPolicyShape | null): JobArgs {
  return {
    ...(policy?.probes ? { probes: policy.probes } : {}),
    ...(policy?.memoryBytes === undefined ? {} : { limitBytes: policy.memoryBytes }),
  };
}
