/** What the receiver decides, by tables: which delta it takes, which merge comes next. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type DeltaHeader, NOTHING_RECEIVED } from '../../../src/delta/index.ts';
import type { ReplicaDescription } from '../../../src/replica/index.ts';
import { partOf, planMerge } from '../../../src/replica/merge-plan.ts';
import { answerOffer } from '../../../src/replica/offer.ts';

const DISKS = [{ diskId: 'root', sizeBytes: 1024 * 1024 }];
const KNOWN = { now: DISKS, ever: ['root', 'gone'] };
const GONE = { diskId: 'gone', sizeBytes: 512 };
const NEWEST = {
  level: 'verified' as const,
  pointId: 'p4',
  sequence: 4,
  statementDigest: 'd4',
  publishedAtMs: 0,
};
const REPLICA: ReplicaDescription = { machineId: 'm', epoch: 2, newest: NEWEST, incoming: null };
const NEXT: DeltaHeader = {
  ...{ session: 's', machineId: 'm', pointId: 'p5', sequence: 5, epoch: 2, disks: DISKS },
  parent: { pointId: 'p4', statementDigest: 'd4' },
  ...{ blockBytes: 65_536, granularityBytes: 4096, digest: 'sha256', firstFrame: 0 },
};

describe('S0.10 a delta is taken only on top of the point that it names', () => {
  const accepted = { kind: 'accept', session: 's', progress: NOTHING_RECEIVED };
  test('the next one is', () => assert.deepEqual(answerOffer(NEXT, REPLICA, KNOWN), accepted));
  test('the first one is, on nothing', () => {
    const first = { ...NEXT, pointId: 'p1', sequence: 1, parent: null };
    assert.deepEqual(answerOffer(first, { ...REPLICA, newest: null }, undefined), accepted);
  });
  test('a repetition of the newest is acknowledged again', () => {
    const again = { ...NEXT, pointId: 'p4', sequence: 4 };
    assert.deepEqual(answerOffer(again, REPLICA, KNOWN), { kind: 'already', newest: NEWEST });
  });
  test('one that is half here goes on where it was', () => {
    const progress = { ...NOTHING_RECEIVED, frames: 7 };
    const half = { ...REPLICA, incoming: { session: 's', pointId: 'p5', progress } };
    assert.deepEqual(answerOffer(NEXT, half, KNOWN), { kind: 'accept', session: 's', progress });
    const other = { ...NEXT, session: 't' };
    assert.deepEqual(answerOffer(other, half, KNOWN), { ...accepted, session: 't' });
  });
  const refusals: [string, DeltaHeader, string][] = [
    ['of an older epoch', { ...NEXT, epoch: 1 }, 'epoch'],
    ['of a newer epoch', { ...NEXT, epoch: 3 }, 'epoch'],
    ['upon another parent', { ...NEXT, parent: { pointId: 'p3', statementDigest: 'd3' } }, 'parent'],
    [
      'upon a parent that says something else',
      { ...NEXT, parent: { pointId: 'p4', statementDigest: 'x' } },
      'parent',
    ],
    ['that is complete, upon points', { ...NEXT, parent: null }, 'parent'],
    ['that leaves a number out', { ...NEXT, sequence: 6 }, 'sequence'],
    ['with a disk that has been taken away before', { ...NEXT, disks: [...DISKS, GONE] }, 'disks'],
    ['with a smaller disk', { ...NEXT, disks: [{ diskId: 'root', sizeBytes: 512 }] }, 'disks'],
  ];
  test('one with a disk more is accepted, and one with a disk less', () => {
    const more = { ...NEXT, disks: [...DISKS, { diskId: 'data', sizeBytes: 512 }] };
    assert.equal(answerOffer(more, REPLICA, KNOWN).kind, 'accept');
    const both = { now: more.disks, ever: ['root', 'data'] };
    assert.equal(answerOffer(NEXT, REPLICA, both).kind, 'accept');
  });
  test('one with a disk that has grown is accepted', () => {
    const [disk, ...others] = DISKS;
    const header = { ...NEXT, disks: [{ ...disk!, sizeBytes: disk!.sizeBytes + 512 }, ...others] };
    assert.equal(answerOffer(header, REPLICA, KNOWN).kind, 'accept');
  });
  for (const [what, header, why] of refusals) {
    test(`one ${what} is refused`, () => {
      const answer = answerOffer(header, REPLICA, KNOWN);
      assert.equal(answer.kind === 'conflict' && answer.conflict.why, why);
    });
  }
});

describe('S0.29 a forwarded delta', () => {
  const why = (header: DeltaHeader) => {
    const answer = answerOffer(header, REPLICA, KNOWN, { viaSiteId: 'b' });
    return answer.kind === 'conflict' ? answer.conflict.why : answer.kind;
  };
  test('may leave numbers out, because retention did so where it comes from', () => {
    assert.equal(why(NEXT), 'accept');
    assert.equal(why({ ...NEXT, sequence: 40 }), 'accept');
  });
  test('never goes back, lies upon the newest point, and is of the epoch', () => {
    assert.equal(why({ ...NEXT, sequence: 4 }), 'sequence');
    assert.equal(why({ ...NEXT, sequence: 3 }), 'sequence');
    assert.equal(why({ ...NEXT, sequence: 9, parent: { pointId: 'p3', statementDigest: 'd3' } }), 'parent');
    assert.equal(why({ ...NEXT, sequence: 9, parent: null }), 'parent');
    assert.equal(why({ ...NEXT, sequence: 9, epoch: 3 }), 'epoch');
  });
});

/** «k» keeps, «g» goes; the oldest first. */
function verdicts(notation: string) {
  return [...notation].map((letter, index) => ({
    ...{ pointId: `p${index + 1}`, sequence: index + 1 },
    reasons: letter === 'k' ? (['newest'] as const) : [],
  }));
}

test('S0.15 runs in the middle are merged at once into the next that stays; the oldest is folded alone', () => {
  const plan = (notation: string, mayFold: boolean) => planMerge(verdicts(notation), () => ['root'], mayFold);
  assert.deepEqual(plan('kggk', true), {
    kind: 'middle',
    remove: ['p2', 'p3'],
    into: 'p4',
    below: 'p1',
    diskIds: ['root'],
  });
  assert.deepEqual(plan('ggk', true), { kind: 'fold', remove: ['p1'], into: 'p2', diskIds: ['root'] });
  assert.deepEqual(plan('ggk', false), {
    kind: 'middle',
    remove: ['p2'],
    into: 'p3',
    below: 'p1',
    diskIds: ['root'],
  });
  assert.equal(plan('gk', false), undefined);
  assert.equal(plan('kkk', true), undefined);
});

test('S0.15 merging ends, and leaves exactly what retention keeps', () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 60 }), (keeps) => {
      keeps[keeps.length - 1] = true;
      let list = verdicts(keeps.map((keep) => (keep ? 'k' : 'g')).join(''));
      const expected = list.filter(({ reasons }) => reasons.length > 0);
      for (let merges = 0; ; merges++) {
        assert.ok(merges <= keeps.length);
        const intent = planMerge(list, () => ['root'], true);
        if (!intent) break;
        assert.ok(intent.remove.every((pointId) => !expected.some((kept) => kept.pointId === pointId)));
        list = list.filter(({ pointId }) => !intent.remove.includes(pointId));
      }
      assert.deepEqual(list, expected);
    }),
  );
});

test('S0.15 a disk that comes or goes among merged points is merged from its first layer to its last', () => {
  // «data» begins with the second point, «old» ends with it, «late» begins with the last.
  const disks: Record<string, string[]> = {
    ...{ p1: ['root', 'old'], p2: ['root', 'old', 'data'] },
    ...{ p3: ['root', 'data'], p4: ['root', 'data', 'late'] },
  };
  const plan = (notation: string) => planMerge(verdicts(notation), (pointId) => disks[pointId]!, true);
  const middle = plan('kggk')!;
  assert.deepEqual(middle.diskIds, ['root', 'old', 'data', 'late']);
  assert.deepEqual(partOf(middle, 'root'), { remove: ['p2', 'p3'], hasInto: true, below: 'p1' });
  assert.deepEqual(partOf(middle, 'old'), { remove: ['p2'], hasInto: false, below: 'p1' });
  assert.deepEqual(partOf(middle, 'data'), { remove: ['p2', 'p3'], hasInto: true, below: undefined });
  assert.deepEqual(partOf(middle, 'late'), { remove: [], hasInto: true, below: undefined });
  const fold = plan('gkkk')!;
  assert.deepEqual(partOf(fold, 'old'), { remove: ['p1'], hasInto: true, below: undefined });
  assert.deepEqual(partOf(fold, 'data'), { remove: [], hasInto: true, below: undefined });
});
