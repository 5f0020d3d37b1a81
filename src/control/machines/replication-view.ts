import type { ReplicationView, TargetReplicationView } from '../../api/index.ts';

/** The targets of a machine as one, and each by itself; pure. */

/** The worst first: what a person must look at. */
const PHASES: readonly TargetReplicationView['phase'][] = ['blocked', 'retrying', 'sending', 'idle'];

/** `targets` in the order of the policy. */
export function replicationOf(
  targets: readonly TargetReplicationView[],
  isCutting: boolean,
): Omit<ReplicationView, 'nextDue' | 'lastSkip'> {
  const worstFirst = [...targets].sort(
    (a, b) => PHASES.indexOf(a.phase) - PHASES.indexOf(b.phase) || lateness(b) - lateness(a),
  );
  const [worst] = worstFirst;
  const best = [...targets].sort((a, b) => lateness(a) - lateness(b))[0];
  const phase = worst?.phase ?? 'idle';
  const { transfer } = targets.find((target) => target.transfer) ?? {};
  return {
    phase: phase === 'idle' && isCutting ? 'cutting' : phase,
    unsentCuts: Math.min(...(targets.length > 0 ? targets.map(({ unsentCuts }) => unsentCuts) : [0])),
    ...(best?.acknowledged ? { acknowledged: best.acknowledged } : {}),
    ...(best?.seed ? { seed: best.seed } : {}),
    ...(transfer ? { transfer } : {}),
    ...(worst?.failure ? { failure: worst.failure } : {}),
    ...(worst?.retryInMs === undefined ? {} : { retryInMs: worst.retryInMs }),
    rpo: best?.rpo ?? {},
    targets: worstFirst,
  };
}

/** How much would be lost with this target alone. */
function lateness({ rpo }: TargetReplicationView): number {
  return rpo.actualMs ?? Number.POSITIVE_INFINITY;
}
