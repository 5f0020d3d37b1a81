import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  cutsOf,
  type GroupCut,
  type GroupedCandidate,
  type GroupedMachine,
  groupReasons,
  type KeepReason,
} from '../../../src/recovery-point/index.ts';

const GROUP = 'g'.repeat(26);

/** A row of things that happened: a copy of one machine, or a cut of all of which some points did not arrive. */
type Happening =
  | { readonly kind: 'single'; readonly machine: number; readonly kept: boolean }
  | { readonly kind: 'group'; readonly kept: readonly boolean[]; readonly arrived: readonly boolean[] };

/** The machines as they are after that; cuts are a second apart. */
function machinesAfter(count: number, happenings: readonly Happening[]): GroupedMachine[] {
  const points: GroupedCandidate[][] = Array.from({ length: count }, () => []);
  for (const [at, happening] of happenings.entries()) {
    const add = (machine: number, kept: boolean, group?: GroupCut) => {
      const reasons: KeepReason[] = kept ? ['type-crash'] : [];
      const { length } = points[machine]!;
      points[machine]!.push({
        ...{
          machineId: `m${machine}`,
          pointId: `p${machine}.${at}`,
          sequence: length + 1,
          cutAtMs: at * 1000,
        },
        ...{ reasons, ...(group ? { group } : {}) },
      });
    };
    if (happening.kind === 'single') {
      add(happening.machine % count, happening.kept);
      continue;
    }
    const members = Array.from({ length: count }, (_, machine) => ({
      machineId: `m${machine}`,
      pointId: `p${machine}.${at}`,
    }));
    const group = {
      version: 1 as const,
      groupId: GROUP,
      groupName: 'shop',
      cutId: `c${at}`,
      pauseMs: 1,
      members,
    };
    for (let machine = 0; machine < count; machine++) {
      if (happening.arrived[machine]) add(machine, happening.kept[machine]!, group);
    }
  }
  return points.map((of, machine) => ({ machineId: `m${machine}`, points: of }));
}

const flags = fc.array(fc.boolean(), { minLength: 4, maxLength: 4 });
const mostlyTrue = fc.array(
  fc.integer({ min: 0, max: 7 }).map((n) => n > 0),
  { minLength: 4, maxLength: 4 },
);
const history = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('single' as const), machine: fc.nat(3), kept: fc.boolean() }),
    fc.record({ kind: fc.constant('group' as const), kept: flags, arrived: mostlyTrue }),
  ),
  { maxLength: 40 },
);

function group(kept: readonly boolean[], arrived = kept.map(() => true)): Happening {
  return { kind: 'group', kept, arrived };
}

describe('S0.16 S0.28 retention of groups', () => {
  test('S0.28 never dissolves one half of a cut whose other half is kept', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 4 }), history, (count, happenings) => {
        const machines = machinesAfter(count, happenings);
        const others = groupReasons(machines);
        const all = machines.flatMap(({ points }) => points);
        const stays = ({ pointId, reasons }: GroupedCandidate) =>
          reasons.length > 0 || (others.get(pointId) ?? []).length > 0;
        const whole = [...cutsOf(all).values()].filter(({ isWhole }) => isWhole);
        for (const { points } of whole) assert.equal(new Set(points.map(stays)).size, 1);
        const newest = whole.at(-1);
        if (newest) assert.ok(newest.points.every(stays), 'the newest whole cut stays');
        for (const { points } of machines) {
          const awaited = points.filter(({ pointId }) => others.get(pointId)?.includes('group-awaited'));
          assert.ok(awaited.length <= 8, 'what never becomes whole does not pile up');
        }
        for (const pointId of others.keys()) assert.ok(all.find((point) => point.pointId === pointId)?.group);
      }),
      { numRuns: 500 },
    );
  });

  test('S0.28 what one member keeps is kept of all; what none keeps goes with all', () => {
    const happenings = [group([false, true]), group([false, false]), group([false, false])];
    const others = groupReasons(machinesAfter(2, happenings));
    assert.deepEqual(
      [...others],
      [
        ['p0.0', ['group']],
        ['p1.0', ['group']],
        ['p0.2', ['newest-group']],
        ['p1.2', ['newest-group']],
      ],
    );
  });

  test('S0.28 a cut is waited for until its points cannot come any more', () => {
    const open = group([false, false], [true, false]);
    const waiting = machinesAfter(2, [open, open]);
    assert.deepEqual(groupReasons(waiting).get('p0.1'), ['group-awaited']);
    const passed = machinesAfter(2, [open, { kind: 'single', machine: 1, kept: true }]);
    assert.deepEqual([...groupReasons(passed)], []);
    assert.deepEqual([...groupReasons(waiting.slice(0, 1))], [], 'a machine that nobody replicates here');
  });

  test('S0.28 points that say different things of a cut make none', () => {
    const machines = machinesAfter(2, [group([true, false])]);
    const [one, other] = machines;
    const lied = { ...other!.points[0]!, group: { ...other!.points[0]!.group!, groupId: 'h'.repeat(26) } };
    const reasons = groupReasons([one!, { ...other!, points: [lied] }]);
    assert.deepEqual([...reasons], []);
  });
});
