import {
  type DrillAttempt,
  type DrillBudget,
  type DrillDebt,
  type DrillMachine,
  type DrillPoint,
  debtOf,
  isMeant,
} from './drill-policy.ts';

/** A point that failed is booted once more before that is the last word: a busy host may have been to blame. */
const FAILED_TRIES_MAX = 2;
const FAILED_AGAIN_MS = 60_000;
/** So often a point is tried that the site cannot boot. */
const HINDERED_TRIES_MAX = 6;
const HINDERED_AGAIN_MS = 15_000;
const HINDERED_AGAIN_FACTOR = 4;
const HINDERED_AGAIN_MS_MAX = 3_600_000;

/** A drill under way, or something else that boots machines within the budget. */
export interface RunningDrill {
  readonly machineId: string;
  readonly memoryBytes: number;
}

export interface DrillSituation {
  readonly machines: readonly DrillMachine[];
  readonly budget: DrillBudget;
  readonly running: readonly RunningDrill[];
  /** No drill begins before: infinity while drills are paused, or give way to a failover. */
  readonly heldUntilMs?: number | undefined;
  readonly nowMs: number;
}

export interface DrillPlan {
  /** What is to be drilled now. */
  readonly start?: { readonly machineId: string; readonly pointId: string };
  /** If nothing happens before, the next look is due then; undefined: nothing comes by time alone. */
  readonly lookAgainAtMs?: number;
  readonly standings: readonly DrillStanding[];
}

/** Where a machine stands with its proofs. */
export interface DrillStanding {
  readonly machineId: string;
  /** Points whose turn comes, those included that wait before they are tried again. */
  readonly waiting: number;
  readonly debt?: DrillDebt | undefined;
  /** The proof is missing for longer than the policy allows. */
  readonly isOverdue: boolean;
  /** The newest point that was looked at does not come up, or is not what it claims. */
  readonly failing?: { readonly sequence: number; readonly reason: string } | undefined;
  /** Its points cannot be drilled as things are. */
  readonly impossible?: 'too-large' | 'nothing-to-ask' | undefined;
  /** No point of it is one that is drilled. */
  readonly hasNoneMeant: boolean;
  /** Why the last drill could not be carried out. */
  readonly hindrance?: string | undefined;
}

/** One point whose turn comes. */
interface Turn {
  readonly machine: DrillMachine;
  readonly point: DrillPoint;
  /** 0: the newest that is meant; 1: an older one that is meant; 2: the newest of the others. */
  readonly rank: number;
  readonly notBeforeMs: number;
}

/**
 * Which point is drilled next. Pure. The newest meant point of each machine comes first, then the older ones that are meant, then
 * others; within each, the machine whose last drill is longest ago. Of a machine one point at a time is drilled. What comes first
 * and does not fit beside what runs is waited for, so that a large machine gets its turn among small ones.
 */
export function nextDrill(situation: DrillSituation): DrillPlan {
  const { machines, budget, running, heldUntilMs = 0, nowMs } = situation;
  const standings = machines.map((machine) => standingOf(machine, budget, nowMs));
  const turns = machines.flatMap((machine) => turnsOf(machine, budget, nowMs));
  const busy = new Set(running.map(({ machineId }) => machineId));
  const open = turns.filter(({ machine }) => !machine.isPaused && !busy.has(machine.machineId));
  const later = [
    ...(heldUntilMs > nowMs && Number.isFinite(heldUntilMs) && open.length > 0 ? [heldUntilMs] : []),
    ...open.map(({ notBeforeMs }) => notBeforeMs),
    ...machines.flatMap(({ policy }, index) => {
      const { debt } = standings[index]!;
      return debt ? [debt.sinceMs + policy.proveWithinMs] : [];
    }),
  ].filter((atMs) => atMs > nowMs);
  const [first] = open.filter(({ notBeforeMs }) => notBeforeMs <= nowMs).sort(byPrecedence);
  const usedBytes = running.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  const fits =
    first &&
    heldUntilMs <= nowMs &&
    running.length < budget.atOnce &&
    usedBytes + first.machine.memoryBytes <= budget.memoryBytes;
  return {
    standings,
    ...(fits ? { start: { machineId: first.machine.machineId, pointId: first.point.pointId } } : {}),
    ...(later.length > 0 ? { lookAgainAtMs: Math.min(...later) } : {}),
  };
}

function byPrecedence(a: Turn, b: Turn): number {
  return (
    a.rank - b.rank ||
    servedAtMs(a.machine) - servedAtMs(b.machine) ||
    (a.machine === b.machine
      ? b.point.sequence - a.point.sequence
      : a.point.arrivedAtMs - b.point.arrivedAtMs || (a.machine.machineId < b.machine.machineId ? -1 : 1))
  );
}

/** When its last drill began; one that gave way was none. */
function servedAtMs({ attempts }: DrillMachine): number {
  return attempts.find(({ outcome }) => outcome !== 'gave-way')?.startedAtMs ?? 0;
}

function turnsOf(machine: DrillMachine, budget: DrillBudget, nowMs: number): readonly Turn[] {
  if (impossibilityOf(machine, budget)) return [];
  const { policy, points } = machine;
  const calmAtMs = calmFrom(machine);
  const meant = points.filter((point) => isMeant(policy, point));
  const newest = meant.at(-1);
  const turns = meant.flatMap((point): Turn[] => {
    // Retired before anybody could make use of its proof.
    if (point !== newest && point.isLeaving) return [];
    const fromMs = dueFrom(machine, point);
    if (fromMs === undefined) return [];
    return [{ machine, point, rank: point === newest ? 0 : 1, notBeforeMs: Math.max(fromMs, calmAtMs) }];
  });
  const last = points.at(-1);
  if (last && last !== newest && policy.others) {
    const ownMs = dueFrom(machine, last);
    const spacedMs = spacedFrom(machine, last, nowMs);
    if (ownMs !== undefined && spacedMs !== undefined) {
      turns.push({ machine, point: last, rank: 2, notBeforeMs: Math.max(ownMs, spacedMs, calmAtMs) });
    }
  }
  return turns;
}

/** From when on a point is to be drilled; undefined: not any more. */
function dueFrom({ attempts }: DrillMachine, point: DrillPoint): number | undefined {
  const { proof, pointId } = point;
  if (proof === 'passed') return undefined;
  const own = attempts.filter((attempt) => attempt.pointId === pointId);
  if (own.some(({ outcome }) => outcome === 'cancelled' || outcome === 'unproven')) return undefined;
  if (own.filter(wasHindered).length >= HINDERED_TRIES_MAX) return undefined;
  const failures = own.filter(({ outcome }) => outcome === 'failed' || outcome === 'refuted');
  // A boot that somebody else asked for counts as well.
  const failed = Math.max(failures.length, proof === 'none' ? 0 : 1);
  if (failed >= FAILED_TRIES_MAX) return undefined;
  return failures[0] ? failures[0].endedAtMs + FAILED_AGAIN_MS : 0;
}

/** While one drill of a machine after the other is hindered, whatever the point, there is ever more time between them. */
function calmFrom({ attempts }: DrillMachine): number {
  const counted = attempts.filter(({ outcome }) => outcome !== 'gave-way');
  const well = counted.findIndex((attempt) => !wasHindered(attempt));
  const streak = well < 0 ? counted.length : well;
  const [last] = counted;
  // The site ended in the middle of it: nothing speaks against doing it at once.
  if (!last || streak === 0 || (streak === 1 && last.outcome === 'interrupted')) return 0;
  const pauseMs = HINDERED_AGAIN_MS * HINDERED_AGAIN_FACTOR ** (streak - 1);
  return last.endedAtMs + Math.min(pauseMs, HINDERED_AGAIN_MS_MAX);
}

function wasHindered({ outcome }: DrillAttempt): boolean {
  return outcome === 'hindered' || outcome === 'interrupted';
}

/** From when on the newest of the others may be drilled; undefined: not before more points have come. */
function spacedFrom(
  { policy: { others = {} }, attempts }: DrillMachine,
  point: DrillPoint,
  nowMs: number,
): number | undefined {
  const last = attempts.find(
    ({ ofOthers, outcome, pointId }) => ofOthers && outcome !== 'gave-way' && pointId !== point.pointId,
  );
  if (!last) return nowMs;
  if (point.sequence - last.sequence < (others.everyPoints ?? 1)) return undefined;
  return last.startedAtMs + (others.everyMs ?? 0);
}

function impossibilityOf(
  { memoryBytes, canBeAsked }: DrillMachine,
  budget: DrillBudget,
): DrillStanding['impossible'] {
  if (!canBeAsked) return 'nothing-to-ask';
  return memoryBytes > budget.memoryBytes ? 'too-large' : undefined;
}

function standingOf(machine: DrillMachine, budget: DrillBudget, nowMs: number): DrillStanding {
  const { machineId, policy, points, attempts } = machine;
  const debt = debtOf(machine, machine.debt);
  const counted = attempts.find(({ outcome }) => outcome !== 'gave-way');
  return {
    ...{ machineId, debt, failing: failingOf(machine), impossible: impossibilityOf(machine, budget) },
    waiting: turnsOf(machine, budget, nowMs).length,
    isOverdue: debt !== undefined && nowMs >= debt.sinceMs + policy.proveWithinMs,
    hasNoneMeant: !policy.others && !points.some((point) => isMeant(policy, point)),
    ...(counted && wasHindered(counted) ? { hindrance: counted.reason ?? counted.outcome } : {}),
  };
}

/**
 * What the newest point that was looked at has shown, if it speaks against it. Points that are gone count by how their drill ended:
 * that one is retired heals nothing.
 */
function failingOf({ points, attempts }: DrillMachine): DrillStanding['failing'] {
  const shown = new Map<number, { readonly isBad: boolean; readonly reason: string }>();
  // The newest first: what was seen last of a point counts.
  for (const { sequence, outcome, reason = '' } of attempts) {
    const isBad = outcome === 'failed' || outcome === 'refuted';
    if ((isBad || outcome === 'passed') && !shown.has(sequence)) shown.set(sequence, { isBad, reason });
  }
  for (const { sequence, proof, reason = '' } of points) {
    if (proof !== 'none') shown.set(sequence, { isBad: proof !== 'passed', reason });
  }
  const newest = Math.max(...shown.keys());
  const last = shown.get(newest);
  return last?.isBad ? { sequence: newest, reason: last.reason } : undefined;
}
