/** Which point is drilled next: by tables, and by a site that lives for a while with everything that can come between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type DrillAttempt,
  type DrillMachine,
  type DrillOutcome,
  type DrillPlan,
  type DrillPoint,
  debtOf,
  leavingNext,
  nextDrill,
  type RunningDrill,
  retentionOf,
  Zones,
} from '../../../src/recovery-point/index.ts';

const MIB = 2 ** 20;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const BUDGET = { memoryBytes: 1024 * MIB, atOnce: 1 };
const START_MS = 1_000 * HOUR_MS;

/**
 * Points, the oldest first: «a» application-consistent, «c» crash-consistent. Then what its last boot has shown: «+» passed, «-»
 * failed, «?» refuted, nothing: not tried. «>» leaves with the next point. They have arrived a minute apart from START_MS on.
 */
function points(notation: string): DrillPoint[] {
  return (notation.match(/[ac][-+?>]*/g) ?? []).map((text, index) => ({
    ...{ pointId: `p${index + 1}`, sequence: index + 1, copyType: text[0] === 'a' ? 'app' : 'crash' },
    consistency: text[0] === 'a' ? 'application' : 'crash',
    arrivedAtMs: START_MS + index * MINUTE_MS,
    proof: text.includes('+')
      ? 'passed'
      : text.includes('-')
        ? 'failed'
        : text.includes('?')
          ? 'refuted'
          : 'none',
    isLeaving: text.includes('>'),
  }));
}

function machine(notation: string, o: Partial<DrillMachine> = {}): DrillMachine {
  return {
    ...{ machineId: 'box', policy: { proveWithinMs: HOUR_MS }, isPaused: false, attempts: [] },
    ...{ points: points(notation), memoryBytes: 256 * MIB, canBeAsked: true, ...o },
  };
}

function attempt(sequence: number, outcome: DrillOutcome, endedAtMs: number): DrillAttempt {
  const startedAtMs = endedAtMs - 5000;
  return { pointId: `p${sequence}`, sequence, ofOthers: false, startedAtMs, endedAtMs, outcome };
}

function plan(
  machines: readonly DrillMachine[],
  nowMs = START_MS + HOUR_MS / 2,
  o: Partial<Parameters<typeof nextDrill>[0]> = {},
): DrillPlan {
  return nextDrill({ machines, budget: BUDGET, running: [], nowMs, ...o });
}

const startOf = ({ start }: DrillPlan) => start && `${start.machineId} ${start.pointId}`;
const only = ({ standings }: DrillPlan) => standings[0]!;

test('F6 the newest application-consistent point comes first, then the older ones; others only if the policy says so', () => {
  assert.equal(startOf(plan([machine('acac')])), 'box p3');
  assert.equal(startOf(plan([machine('aca+c')])), 'box p1');
  assert.equal(startOf(plan([machine('a>ca+c')])), undefined, 'its proof would be retired with it');
  assert.equal(startOf(plan([machine('a>c')])), 'box p1', 'the newest is worth it in any case');
  assert.equal(startOf(plan([machine('a+ca+c')])), undefined);
  const others = { policy: { others: {}, proveWithinMs: HOUR_MS } };
  assert.equal(startOf(plan([machine('a+ca+c', others)])), 'box p4');
  const typed = { policy: { copyTypes: ['crash'], proveWithinMs: HOUR_MS } };
  assert.equal(startOf(plan([machine('acac', typed)])), 'box p4');
});

test('F6 of the others the newest is drilled, no more often than the policy says', () => {
  const others = { everyPoints: 3, everyMs: HOUR_MS };
  const policy = { others, proveWithinMs: 10 * HOUR_MS };
  const nowMs = START_MS + 10 * MINUTE_MS;
  const before = (sequence: number, endedAtMs: number) => ({
    policy,
    attempts: [{ ...attempt(sequence, 'passed', endedAtMs), ofOthers: true }],
  });
  assert.equal(startOf(plan([machine('ccc', { policy })], nowMs)), 'box p3');
  assert.equal(startOf(plan([machine('c+ccc', before(1, nowMs - HOUR_MS))], nowMs)), 'box p4');
  assert.equal(startOf(plan([machine('cc+cc', before(2, nowMs - HOUR_MS))], nowMs)), undefined, 'too few');
  const soon = plan([machine('c+ccc', before(1, nowMs))], nowMs);
  assert.equal(startOf(soon), undefined, 'too soon');
  assert.equal(soon.lookAgainAtMs, nowMs - 5000 + HOUR_MS);
});

test('F6 a failed point is booted once more after a while, and then never again by itself', () => {
  const nowMs = START_MS + 20 * MINUTE_MS;
  const once = { attempts: [attempt(1, 'failed', nowMs - 10_000)] };
  const waiting = plan([machine('a-', once)], nowMs);
  assert.equal(startOf(waiting), undefined);
  assert.equal(waiting.lookAgainAtMs, nowMs + 50_000);
  assert.equal(startOf(plan([machine('a-', once)], nowMs + 50_000)), 'box p1');
  const twice = { attempts: [attempt(1, 'failed', nowMs), ...once.attempts] };
  assert.equal(startOf(plan([machine('a-', twice)], nowMs + 10 * HOUR_MS)), undefined);
  assert.equal(startOf(plan([machine('a-')], nowMs)), 'box p1', 'somebody else has tried it: once is left');
  assert.deepEqual(only(plan([machine('a-a', twice)], nowMs)).failing, { sequence: 1, reason: '' });
  assert.equal(
    startOf(plan([machine('a-a', twice)], nowMs)),
    'box p2',
    'the next point is no worse for that',
  );
});

test('F6 what hinders drills is tried again ever later, and a drill that ended with its site at once', () => {
  const nowMs = START_MS + 20 * MINUTE_MS;
  const streak = (...outcomes: DrillOutcome[]) =>
    plan([machine('a', { attempts: outcomes.map((one) => attempt(1, one, nowMs)) })], nowMs);
  assert.equal(startOf(streak('interrupted')), 'box p1');
  assert.equal(startOf(streak('gave-way', 'gave-way')), 'box p1');
  assert.equal(streak('hindered').lookAgainAtMs, nowMs + 15_000);
  assert.equal(streak('interrupted', 'hindered').lookAgainAtMs, nowMs + MINUTE_MS);
  assert.equal(streak('hindered', 'gave-way', 'hindered', 'hindered').lookAgainAtMs, nowMs + 4 * MINUTE_MS);
  const six = streak(...Array.from({ length: 6 }, () => 'hindered' as const));
  assert.equal(startOf(six), undefined);
  assert.equal(only(six).waiting, 0, 'this point is given up');
  assert.equal(only(streak('cancelled')).waiting, 0, 'a person did not want it');
  // Another point of the machine waits as well: what hinders is seldom the point.
  const other = machine('aa', { attempts: [attempt(1, 'hindered', nowMs)] });
  assert.equal(startOf(plan([other], nowMs)), undefined);
});

test('F6 the budget is kept to, a large machine gets its turn, and one that is too large is told', () => {
  const small = machine('a', { machineId: 'small' });
  const large = machine('a', { machineId: 'large', memoryBytes: 1000 * MIB });
  const huge = machine('a', { machineId: 'huge', memoryBytes: 1025 * MIB });
  const budget = { memoryBytes: 1024 * MIB, atOnce: 3 };
  const nowMs = START_MS + HOUR_MS / 2;
  const served = { ...small, attempts: [attempt(9, 'passed', nowMs)] };
  const running: RunningDrill[] = [{ machineId: 'else', memoryBytes: 256 * MIB }];
  assert.equal(startOf(plan([served, large], nowMs, { budget })), 'large p1', 'served longest ago');
  assert.equal(startOf(plan([served, large], nowMs, { budget, running })), undefined, 'nobody overtakes it');
  assert.equal(startOf(plan([small], nowMs, { budget, running })), 'small p1');
  assert.equal(startOf(plan([small], nowMs, { budget: { ...budget, atOnce: 1 }, running })), undefined);
  const told = plan([huge, small], nowMs, { budget });
  assert.equal(startOf(told), 'small p1');
  assert.equal(only(told).impossible, 'too-large');
  assert.equal(only(plan([machine('a', { canBeAsked: false })])).impossible, 'nothing-to-ask');
});

test('F6 nothing begins in quiet hours, while it is paused, or beside a failover; a proof that is missing is told all the same', () => {
  const nowMs = START_MS + HOUR_MS;
  const quiet = plan([machine('a')], nowMs, { heldUntilMs: nowMs + HOUR_MS });
  assert.equal(startOf(quiet), undefined);
  assert.equal(quiet.lookAgainAtMs, nowMs + HOUR_MS);
  assert.ok(only(quiet).isOverdue);
  const held = plan([machine('a')], nowMs - 1, { heldUntilMs: Number.POSITIVE_INFINITY });
  assert.deepEqual([startOf(held), held.lookAgainAtMs, only(held).isOverdue], [undefined, nowMs, false]);
  assert.equal(startOf(plan([machine('a', { isPaused: true })], nowMs)), undefined);
  assert.equal(startOf(plan([machine('a')], nowMs)), 'box p1');
});

test('F6 a debt begins with the first point after the newest proven one, and outlives the points that began it', () => {
  const of = (notation: string, before?: Parameters<typeof debtOf>[1], o?: Partial<DrillMachine>) =>
    debtOf(machine(notation, o), before);
  assert.equal(of('a+'), undefined);
  assert.equal(of('a+c'), undefined, 'of what is not drilled no proof is missing');
  assert.deepEqual(of('a+caa'), { sinceMs: START_MS + 2 * MINUTE_MS, afterSequence: 1 });
  const [, , , fourth] = points('a+caa');
  const left = { points: [points('a+')[0]!, fourth!] };
  assert.deepEqual(of('', of('a+caa'), left), { sinceMs: START_MS + 2 * MINUTE_MS, afterSequence: 1 });
  assert.deepEqual(of('a+ca+a', of('a+caa')), { sinceMs: START_MS + 3 * MINUTE_MS, afterSequence: 3 });
  assert.equal(of('a+caa+', of('a+caa')), undefined);
  assert.deepEqual(of('ccc'), { sinceMs: START_MS, afterSequence: 0 }, 'nothing of it is ever drilled');
  assert.ok(only(plan([machine('ccc')])).hasNoneMeant);
  const policy = { others: {}, proveWithinMs: HOUR_MS };
  assert.deepEqual(of('a+c', undefined, { policy })?.sinceMs, START_MS + MINUTE_MS);
  assert.equal(of('a+c+', undefined, { policy }), undefined);
});

test('F6 a point that does not pass is told until a later one does, also when it has been retired', () => {
  const failing = (notation: string, attempts: DrillAttempt[] = []) =>
    only(plan([machine(notation, { attempts })])).failing?.sequence;
  assert.equal(failing('a+a-'), 2);
  assert.equal(failing('a+a?'), 2, 'it came up and is not what it claims');
  assert.equal(failing('a-a+'), undefined);
  assert.equal(failing('a+', [attempt(7, 'failed', START_MS)]), 7);
  assert.equal(failing('a+', [attempt(7, 'passed', START_MS), attempt(7, 'failed', START_MS)]), undefined);
  assert.equal(failing('a+', [attempt(7, 'hindered', START_MS)]), undefined);
});

test('F6 the next point takes the place of the oldest of a type whose places are all taken', () => {
  const leavingOf = (count: number, proven?: number) => {
    const candidates = Array.from({ length: count }, (_, index) => ({
      ...{ pointId: `p${index + 1}`, sequence: index + 1, copyType: 'app', degraded: false, inUse: false },
      ...{ cutAtMs: index, cutAtHereMs: index, proven: index + 1 === proven },
    }));
    const policy = { types: { app: 3 } };
    return [...leavingNext(retentionOf(candidates, policy, new Zones()), policy)];
  };
  assert.deepEqual(leavingOf(2), []);
  assert.deepEqual(leavingOf(3), ['p1']);
  assert.deepEqual(leavingOf(4), ['p1', 'p2']);
  assert.deepEqual(leavingOf(3, 1), [], 'the newest proven one stays');
});

function lastCounted({ attempts }: DrillMachine): string {
  return attempts.find(({ outcome }) => outcome !== 'gave-way')?.outcome ?? 'none';
}

/** A site that lives: points arrive, drills take a while and end in some way. */
class Life {
  nowMs = START_MS;
  readonly machines: DrillMachine[];
  readonly running: (RunningDrill & {
    readonly point: DrillPoint;
    readonly startedAtMs: number;
    readonly endsAtMs: number;
    readonly outcome: DrillOutcome;
  })[] = [];
  readonly budget: { memoryBytes: number; atOnce: number };
  readonly drawOutcome: () => DrillOutcome;
  /** Machines whose newest point has waited for its first drill, with how many others began meanwhile. */
  readonly overtaken = new Map<string, number>();

  constructor(memories: readonly number[], budget: Life['budget'], drawOutcome: () => DrillOutcome) {
    this.budget = budget;
    this.drawOutcome = drawOutcome;
    this.machines = memories.map((memoryMiB, index) =>
      machine('', { machineId: `m${index}`, memoryBytes: memoryMiB * MIB }),
    );
  }

  arrive(index: number): void {
    const at = index % this.machines.length;
    const before = this.machines[at]!;
    const sequence = (before.points.at(-1)?.sequence ?? 0) + 1;
    const point = { ...points('a')[0]!, pointId: `p${sequence}`, sequence, arrivedAtMs: this.nowMs };
    this.machines[at] = { ...before, points: [...before.points, point] };
    this.#work();
  }

  /** Lives until a time, from one thing that happens to the next. */
  until(endMs: number): void {
    for (;;) {
      const { lookAgainAtMs = Number.POSITIVE_INFINITY } = this.#work();
      const nextMs = Math.min(lookAgainAtMs, ...this.running.map(({ endsAtMs }) => endsAtMs));
      if (nextMs > endMs) break;
      assert.ok(nextMs > this.nowMs, 'it looks again in the past');
      this.nowMs = nextMs;
      for (const drill of this.running.filter(({ endsAtMs }) => endsAtMs <= nextMs)) this.#end(drill);
    }
    this.nowMs = endMs;
  }

  #work(): DrillPlan {
    for (;;) {
      const { machines, budget, running, nowMs } = this;
      const made = nextDrill({ machines, budget, running, nowMs });
      if (!made.start) return made;
      this.#begin(made.start);
    }
  }

  #begin({ machineId, pointId }: NonNullable<DrillPlan['start']>): void {
    const of = this.machines.find((one) => one.machineId === machineId)!;
    const point = of.points.find((one) => one.pointId === pointId)!;
    assert.ok(!this.running.some((one) => one.machineId === machineId), 'one at a time of a machine');
    assert.notEqual(point.proof, 'passed', 'what is proven is not drilled again');
    const outcome = this.drawOutcome();
    // One that gives way was not served.
    for (const other of outcome === 'gave-way' ? [] : this.machines) {
      const waits =
        other.machineId !== machineId &&
        other.memoryBytes <= this.budget.memoryBytes &&
        other.points.at(-1)?.proof === 'none' &&
        !other.attempts.some((one) => one.pointId === other.points.at(-1)!.pointId) &&
        !['hindered', 'interrupted'].includes(lastCounted(other)) &&
        !this.running.some((one) => one.machineId === other.machineId);
      const overtaken = waits ? (this.overtaken.get(other.machineId) ?? 0) + 1 : 0;
      assert.ok(overtaken < this.machines.length, `${other.machineId} is passed over`);
      this.overtaken.set(other.machineId, overtaken);
    }
    const endsAtMs = this.nowMs + 5000 + point.sequence * 100;
    this.running.push({ ...of, point, startedAtMs: this.nowMs, endsAtMs, outcome });
    const usedBytes = this.running.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
    assert.ok(usedBytes <= this.budget.memoryBytes && this.running.length <= this.budget.atOnce);
  }

  #end(drill: Life['running'][number]): void {
    this.running.splice(this.running.indexOf(drill), 1);
    const at = this.machines.findIndex(({ machineId }) => machineId === drill.machineId);
    const before = this.machines[at]!;
    const { point, startedAtMs, outcome } = drill;
    const { pointId, sequence } = point;
    const proof =
      outcome === 'passed' || outcome === 'failed' || outcome === 'refuted' ? outcome : point.proof;
    this.machines[at] = {
      ...before,
      points: before.points.map((one) => (one.pointId === pointId ? { ...one, proof } : one)),
      attempts: [
        { pointId, sequence, ofOthers: false, startedAtMs, endedAtMs: this.nowMs, outcome },
        ...before.attempts,
      ],
    };
  }
}

const OUTCOMES: readonly DrillOutcome[] = [
  ...(['passed', 'passed', 'passed', 'passed', 'failed', 'refuted', 'hindered'] as const),
  ...(['interrupted', 'gave-way', 'cancelled', 'unproven'] as const),
];

test('F6 whatever comes between, the budget holds, no machine is passed over, every point is decided, and nothing goes on for ever', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 100, max: 1200 }), { minLength: 1, maxLength: 6 }),
      fc.record({ memoryMiB: fc.integer({ min: 600, max: 2400 }), atOnce: fc.integer({ min: 1, max: 4 }) }),
      fc.array(fc.record({ machine: fc.nat(5), afterMs: fc.nat(4_000) }), { maxLength: 60 }),
      fc.infiniteStream(fc.constantFrom(...OUTCOMES)),
      (memories, { memoryMiB, atOnce }, arrivals, outcomes) => {
        const draw = () => outcomes.next().value as DrillOutcome;
        const life = new Life(memories, { memoryBytes: memoryMiB * MIB, atOnce }, draw);
        for (const { machine: index, afterMs } of arrivals) {
          life.until(life.nowMs + afterMs);
          life.arrive(index);
        }
        life.until(life.nowMs + 400 * HOUR_MS);
        assert.equal(life.running.length, 0);
        for (const one of life.machines) {
          const possible = one.memoryBytes <= memoryMiB * MIB;
          for (const point of one.points) {
            const own = one.attempts.filter(({ pointId }) => pointId === point.pointId);
            assert.equal(own.length > 0, possible, 'each is drilled, if any of its machine can be');
            const tries = own.filter(({ outcome }) => outcome !== 'gave-way').length;
            assert.ok(tries <= 8, `${tries} drills of one point`);
          }
        }
      },
    ),
    { numRuns: 300 },
  );
});
