/** What the sender decides, by tables: the next session, the next merge, which machine is stale. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MachineDisk } from '../../../src/hypervisor/index.ts';
import { decodeRecord, encodeRecord } from '../../../src/lib/records.ts';
import type { ReplicaDescription } from '../../../src/replica/index.ts';
import { chainAt, chainOf, nextToMerge, staleDisks } from '../../../src/replication/chain.ts';
import type { CutRecord, ProtectedDisk, TargetRecord } from '../../../src/replication/index.ts';
import { cutsToMerge, nextToJoin, settledCuts, type TargetPlace } from '../../../src/replication/places.ts';
import { TARGET_RECORD } from '../../../src/replication/records.ts';
import { planSession } from '../../../src/replication/session-plan.ts';

const DISK: ProtectedDisk = {
  ...{ diskId: 'root', deviceName: 'dev', sizeBytes: 512 },
  chain: [{ path: '/origin', format: 'raw' }],
};

/** Cuts 1…n: the first seals the origin, each later one the layer of the cut before. */
function cuts(count: number, change: Record<number, Partial<CutRecord>> = {}): CutRecord[] {
  return Array.from({ length: count }, (_, index) => {
    const ordinal = index + 1;
    const sealed = ordinal === 1 ? DISK.chain[0]! : { path: `/l${ordinal - 1}`, format: 'qcow2' as const };
    return {
      ...{ cutId: `c${ordinal}`, ordinal, state: 'sealed', copyType: 'crash', consistency: 'crash' },
      ...{ cutAtMs: 0, pauseMs: 0, merged: false, missed: [] },
      sealed: { root: sealed },
      tips: { root: { path: `/l${ordinal}`, format: 'qcow2' } },
      ...change[ordinal],
    } as CutRecord;
  });
}

const paths = (files: readonly { path: string }[]) => files.map(({ path }) => path).join(' ');
const nothing: TargetRecord = { siteId: 's', acknowledged: null, session: null };
function acknowledged(ordinal: number, session: TargetRecord['session'] = null): TargetRecord {
  const point = {
    pointId: `c${ordinal}`,
    ordinal,
    sequence: ordinal,
    statementDigest: `d${ordinal}`,
    atMs: 0,
  };
  return { siteId: 's', acknowledged: point, session };
}
function holding(sequence: number | null, change: Partial<ReplicaDescription> = {}): ReplicaDescription {
  const newest =
    sequence === null
      ? null
      : {
          ...{ level: 'verified' as const, pointId: `c${sequence}`, sequence },
          ...{ statementDigest: `d${sequence}`, publishedAtMs: 0 },
        };
  return { machineId: 'm', epoch: 1, newest, incoming: null, ...change };
}

describe('the chain of a disk', () => {
  test('is the owner’s files, sealed layers and the tip', () => {
    assert.equal(paths(chainOf(DISK, [])), '/origin');
    assert.equal(paths(chainOf(DISK, cuts(3))), '/origin /l1 /l2 /l3');
    assert.equal(paths(chainAt(DISK, cuts(3), cuts(3)[1]!)), '/origin /l1');
  });
  test('leaves out what is merged and what only was intended', () => {
    assert.equal(paths(chainOf(DISK, cuts(3, { 2: { merged: true } }))), '/origin /l2 /l3');
    assert.equal(paths(chainOf(DISK, cuts(3, { 3: { state: 'intended' } }))), '/origin /l1 /l2');
  });
});

test('S0.14 a layer that two cuts name, because the one has just taken in the other, is one file of the chain', () => {
  const layer = { path: '/l1', format: 'qcow2' as const };
  const taken = cuts(3, { 2: { state: 'absorbing' }, 3: { sealed: { root: layer } } });
  assert.equal(paths(chainOf(DISK, taken)), '/origin /l1 /l3');
  assert.equal(paths(chainAt(DISK, taken, taken[2]!)), '/origin /l1');
});

describe('S0.14 merging at the protected side', () => {
  test('only what is acknowledged goes down, the oldest first', () => {
    assert.equal(nextToMerge([DISK], cuts(3), 1), undefined);
    assert.equal(nextToMerge([DISK], cuts(3), 3)?.cutId, 'c2');
    assert.equal(nextToMerge([DISK], cuts(3, { 2: { merged: true } }), 3)?.cutId, 'c3');
    assert.equal(nextToMerge([DISK], cuts(3, { 2: { merged: true } }), 2), undefined);
  });
  test('beyond the bound the two youngest waiting layers are joined, never the one that is being sent', () => {
    assert.equal(joined(cuts(9), [at(1)]), undefined);
    assert.equal(joined(cuts(10), [at(1)]), 'c9+c10');
    assert.equal(joined(cuts(10), [at(1, { reading: 'c9' })]), undefined);
  });
  test('S0.29 a state below a merge that may have begun is sent to nobody', () => {
    const sent = (change: Parameters<typeof cuts>[1]) => {
      const plan = planSession(1, cuts(5, change), { siteId: 's', acknowledged: null, session: null }, null);
      return plan.kind === 'full' ? plan.cut.cutId : plan.kind;
    };
    assert.equal(sent({ 2: { merged: true } }), 'c2');
    assert.equal(sent({ 2: { merged: true }, 4: { merging: true } }), 'c4');
    assert.equal(sent({ 3: { merging: true } }), 'c3');
  });
  test('a joining that was interrupted comes first', () => {
    assert.equal(joined(cuts(4, { 2: { state: 'absorbing' } }), [at(1)]), 'c2+c3');
  });
});

/** Where a target is that has acknowledged a cut. */
function at(ordinal: number, change: Partial<TargetPlace> = {}): TargetPlace {
  return {
    ...{ siteId: 's', acknowledged: ordinal, outrunThrough: 0, needsLayers: false },
    ...{ begun: undefined, reading: undefined, ...change },
  };
}

function joined(all: readonly CutRecord[], places: readonly TargetPlace[]): string | undefined {
  const pair = nextToJoin([DISK], all, places);
  return pair && `${pair.older.cutId}+${pair.younger.cutId}`;
}

describe('S0.29 what the chain may do while one target is behind', () => {
  const merged = (count: number, places: readonly TargetPlace[], change = {}) =>
    cutsToMerge([DISK], cuts(count, change), places).map(({ cutId }) => cutId);
  test('a layer goes down only when every target has it', () => {
    assert.deepEqual(merged(6, [at(6), at(3)]), ['c2', 'c3']);
    assert.deepEqual(merged(6, [at(6), at(1)]), []);
  });
  test('a target that is eight layers behind while another goes on holds nothing up any more', () => {
    assert.deepEqual(merged(8, [at(8), at(1)]), []);
    assert.deepEqual(merged(9, [at(9), at(1)]).length, 8);
    assert.deepEqual(merged(9, [at(9), at(2)]), ['c2'], 'it is only seven layers behind');
  });
  test('where none goes on, nothing goes down, however much waits', () => {
    assert.deepEqual(merged(30, [at(1), at(1)]), []);
    assert.deepEqual(merged(30, [at(0), at(0)]), []);
  });
  test('a target that has nothing yet takes whatever comes; once it has begun, its copy stays what it is', () => {
    assert.deepEqual(merged(4, [at(4), at(0)]), ['c2', 'c3', 'c4']);
    assert.deepEqual(merged(4, [at(4), at(0, { begun: 'c1' })]), []);
    assert.deepEqual(merged(9, [at(9), at(0, { begun: 'c1' })]).length, 8);
    assert.deepEqual(merged(9, [at(9), at(0, { begun: 'c2' })]), []);
  });
  test('what is being read is not written, and a base that awaits its seed keeps its layers', () => {
    assert.deepEqual(merged(30, [at(30), at(1, { reading: 'c2' })]), []);
    assert.deepEqual(merged(30, [at(30), at(3, { needsLayers: true })]), ['c2', 'c3']);
  });
  test('what was outrun once goes down by eights', () => {
    const before = Object.fromEntries([2, 3, 4, 5, 6, 7, 8, 9].map((ordinal) => [ordinal, { merged: true }]));
    const behind = at(1, { outrunThrough: 9 });
    assert.deepEqual(merged(16, [at(16), behind], before), []);
    assert.deepEqual(merged(17, [at(17), behind], before).length, 8);
  });
  test('while one is read for, what lies above is joined, and no acknowledged state becomes another', () => {
    const slow = at(1, { reading: 'c3' });
    assert.equal(joined(cuts(9), [at(9), slow]), undefined);
    assert.equal(joined(cuts(10), [at(10), slow]), 'c9+c10');
    assert.equal(joined(cuts(10), [at(10), slow, at(9)]), 'c8+c9', 'the third has c9');
    assert.equal(
      joined(cuts(11), [at(10), slow]),
      'c9+c10',
      'c11 is at no target: that is counted by itself',
    );
    assert.equal(joined(cuts(10), [at(10, { begun: 'c10', acknowledged: 9 }), slow]), undefined);
  });
  test('the record of a cut goes when no target needs it, and the youngest stays', () => {
    const all = cuts(4, { 2: { merged: true }, 3: { merged: true } });
    const settled = (places: readonly TargetPlace[]) =>
      settledCuts([DISK], all, places).map(({ cutId }) => cutId);
    assert.deepEqual(settled([at(3)]), ['c1', 'c2', 'c3']);
    assert.deepEqual(settled([at(3), at(1, { outrunThrough: 3 })]), ['c1', 'c2', 'c3']);
    assert.deepEqual(settled([at(3), at(1, { outrunThrough: 3, begun: 'c3' })]), ['c1', 'c2']);
    assert.deepEqual(settled([at(4), at(2)]), ['c1', 'c2']);
  });
});

describe('S0.10 the next session', () => {
  const plan = (count: number, target: TargetRecord, replica: ReplicaDescription | null, epoch = 1) =>
    planSession(epoch, cuts(count), target, replica);
  test('begins with a complete delta of the oldest cut', () => {
    const first = plan(2, nothing, null);
    assert.ok(
      first.kind === 'full' && first.cut.cutId === 'c1' && first.sequence === 1 && first.parent === null,
    );
  });
  test('goes on with the cut behind the acknowledged one', () => {
    const next = plan(3, acknowledged(2), holding(2));
    assert.ok(next.kind === 'incremental' && next.cut.cutId === 'c3' && next.sequence === 3);
    assert.deepEqual(next.parent, { pointId: 'c2', statementDigest: 'd2' });
  });
  test('has nothing to do when all is acknowledged, or while a layer takes in another', () => {
    assert.equal(plan(2, acknowledged(2), holding(2)).kind, 'nothing');
    const absorbing = cuts(3, { 3: { state: 'absorbing' } });
    assert.equal(planSession(1, absorbing, acknowledged(2), holding(2)).kind, 'nothing');
  });
  test('goes on with its own session only', () => {
    const progress = { frames: 3, dataBytes: 0, zeroBytes: 0, disk: 0, endOffset: 0 };
    const half = holding(2, { incoming: { session: 'x', pointId: 'c3', progress } });
    const own = plan(3, acknowledged(2, { session: 'x', cutId: 'c3' }), half);
    assert.ok(own.kind === 'incremental' && own.resume === 'x');
    const foreign = plan(3, acknowledged(2, { session: 'y', cutId: 'c3' }), half);
    assert.ok(foreign.kind === 'incremental' && foreign.resume === undefined);
  });
  test('takes up an acknowledgement that was lost', () => {
    const lost = plan(3, acknowledged(2), holding(3));
    assert.ok(lost.kind === 'acknowledged' && lost.cut.cutId === 'c3');
    assert.ok(plan(1, nothing, holding(1)).kind === 'acknowledged');
  });
  test('S0.29 takes it up unread where its target was outrun since, also while a chain still reads as that point', () => {
    const unsure = { pointId: 'c3', ordinal: 3, cutAtMs: 0 };
    const outrun = { throughOrdinal: 3, ranges: {}, missed: [], unlisted: 0, unsure };
    const merged = cuts(3, { 3: { merged: true } });
    const lost = planSession(1, merged, { ...acknowledged(2), outrun }, holding(3));
    assert.ok(lost.kind === 'caught' && lost.cut === unsure);
    assert.equal(planSession(1, merged, { ...acknowledged(2), outrun }, holding(2)).kind, 'incremental');
    const twice = { ...outrun, unsure: { pointId: 'c9', ordinal: 9, cutAtMs: 0 }, unsureBefore: [unsure] };
    const late = planSession(1, cuts(10).slice(8), { ...acknowledged(2), outrun: twice }, holding(3));
    assert.ok(late.kind === 'caught' && late.cut === unsure);
  });
  test('S0.29 of points that have numbers already each keeps its own, whatever is missing between', () => {
    const points = [cuts(9)[3]!, cuts(9)[8]!];
    const next = (target: TargetRecord, replica: ReplicaDescription | null) =>
      planSession(1, points, target, replica, { areNumbered: true });
    const first = next(nothing, null);
    assert.ok(first.kind === 'full' && first.sequence === 4);
    // The acknowledged point has been merged away here since.
    const second = next(acknowledged(7), holding(7));
    assert.ok(second.kind === 'incremental' && second.cut.cutId === 'c9' && second.sequence === 9);
    assert.deepEqual(second.parent, { pointId: 'c7', statementDigest: 'd7' });
    assert.equal(next(acknowledged(4), holding(9)).kind, 'acknowledged');
    assert.equal(next(acknowledged(9), holding(9)).kind, 'nothing');
    assert.equal(next(acknowledged(4), holding(8)).kind, 'conflict');
  });
  const conflicts: [string, TargetRecord, ReplicaDescription | null, string][] = [
    ['another epoch', acknowledged(2), holding(2, { epoch: 2 }), 'fenced'],
    ['a target that has lost what it acknowledged', acknowledged(2), holding(1), 'target-behind'],
    ['a target that has never heard of it', acknowledged(2), null, 'target-behind'],
    ['a point that was never made here', acknowledged(2), holding(7), 'unknown-point'],
    ['points where nothing was acknowledged', nothing, holding(7), 'unknown-point'],
  ];
  for (const [what, target, replica, why] of conflicts) {
    test(`stops at ${what}`, () => {
      const stopped = plan(3, target, replica);
      assert.equal(stopped.kind === 'conflict' && stopped.conflict.why, why);
    });
  }
});

test('how far a target is can be read as an earlier version wrote it, without the time of the cut', () => {
  const older = acknowledged(2);
  assert.equal(older.acknowledged!.cutAtMs, undefined);
  const read = decodeRecord(TARGET_RECORD, encodeRecord(TARGET_RECORD, older), 'a target');
  assert.deepEqual(read.acknowledged, older.acknowledged);
  const cutAtMs = 'yesterday' as unknown as number;
  const wrong = { ...older, acknowledged: { ...older.acknowledged!, cutAtMs } };
  assert.throws(() => decodeRecord(TARGET_RECORD, encodeRecord(TARGET_RECORD, wrong), 'a target'), {
    code: 'RECORD_CORRUPT',
  });
});

test('S0.11 a machine is stale when a tip is another than the recorded one, or a disk is gone', () => {
  const running = (tip: string): MachineDisk[] => [
    { deviceName: 'dev', tipNode: 'n', sizeBytes: 512, chain: [{ path: tip, format: 'qcow2' }] },
  ];
  assert.deepEqual(staleDisks([DISK], cuts(2), running('/l2')), []);
  assert.match(staleDisks([DISK], cuts(2), running('/origin'))[0]!.said, /runs on \/origin, not on \/l2/);
  assert.match(staleDisks([DISK], cuts(2), [])[0]!.said, /is not there/);
});
