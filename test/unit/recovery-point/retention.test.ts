import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type RetentionCandidate, retentionOf } from '../../../src/recovery-point/index.ts';

/** «a» application-consistent, «c» crash-consistent; a capital one is proven, «!» held, «*» in use. The oldest first. */
function points(notation: string): RetentionCandidate[] {
  return (notation.match(/[acAC][!*]*/g) ?? []).map((text, index) => ({
    pointId: `p${index + 1}`,
    sequence: index + 1,
    consistency: text[0]!.toLowerCase() === 'a' ? 'application' : 'crash',
    proven: text[0] === text[0]!.toUpperCase(),
    held: text.includes('!'),
    inUse: text.includes('*'),
  }));
}

function kept(notation: string, crash: number, application: number): string {
  return retentionOf(points(notation), { crash, application })
    .filter(({ reasons }) => reasons.length > 0)
    .map(({ pointId }) => pointId)
    .join(' ');
}

test('S0.16 a policy of four and two holds exactly those', () => {
  assert.equal(kept('cccacccaccac', 4, 2), 'p7 p8 p9 p10 p11 p12');
});

test('S0.16 an application-consistent point takes no place of a crash-consistent one', () => {
  assert.equal(kept('ccaaa', 2, 1), 'p1 p2 p5');
});

test('S0.16 newest, newest proven, held and used points stay whatever the policy says, each with its reason', () => {
  assert.equal(kept('C!cCc*ccc', 0, 0), 'p1 p3 p4 p7');
  const verdicts = retentionOf(points('C!cCc*ccc'), { crash: 0, application: 0 });
  assert.deepEqual(
    verdicts.map(({ reasons }) => reasons.join('+')),
    ['held', '', 'newest-proven', 'in-use', '', '', 'newest'],
  );
});

const anyPoints = fc.array(
  fc.record({
    consistency: fc.constantFrom('crash' as const, 'file-system' as const, 'application' as const),
    ...{ proven: fc.boolean(), held: fc.boolean(), inUse: fc.boolean() },
  }),
  { maxLength: 40 },
);

test('S0.16 no policy ever lets go of the newest, the newest proven, a held or a used point', () => {
  fc.assert(
    fc.property(anyPoints, fc.nat(6), fc.nat(6), (list, crash, application) => {
      const candidates = list.map((point, index) => ({
        ...point,
        pointId: `p${index}`,
        sequence: index + 1,
      }));
      const verdicts = retentionOf(candidates, { crash, application });
      assert.deepEqual(
        verdicts.map(({ sequence }) => sequence),
        candidates.map(({ sequence }) => sequence),
      );
      const goes = new Set(
        verdicts.filter(({ reasons }) => reasons.length === 0).map(({ pointId }) => pointId),
      );
      assert.ok(!goes.has(candidates.at(-1)?.pointId ?? ''));
      assert.ok(!goes.has(candidates.findLast(({ proven }) => proven)?.pointId ?? ''));
      for (const { pointId, held, inUse } of candidates) assert.ok(!((held || inUse) && goes.has(pointId)));
      const byPolicy = verdicts.filter(({ reasons }) =>
        reasons.some((reason) => reason.startsWith('policy')),
      );
      assert.ok(byPolicy.length <= crash + application);
    }),
  );
});
