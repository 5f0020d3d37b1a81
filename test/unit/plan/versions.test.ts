/** Plans of two sites that tell each other: what one has put comes to the other, and what both have changed is overwritten by neither. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { PlanDocument } from '../../../src/api/index.ts';
import { afterHearing, afterPut, type HeldPlan } from '../../../src/plan/index.ts';

const shop = (description: string): PlanDocument => ({ plan: 'shop', description, machines: { db: {} } });
const put = (own: HeldPlan | undefined, description?: string): HeldPlan =>
  afterPut('shop', own, description === undefined ? undefined : shop(description), 1);

/** Each hears what the other one has, as often as it takes. */
function told(
  a: HeldPlan | undefined,
  b: HeldPlan | undefined,
): readonly [HeldPlan | undefined, HeldPlan | undefined] {
  const [beforeA, beforeB] = [a, b];
  const nextB = beforeA ? afterHearing(beforeB, beforeA, 'a').held : beforeB;
  const nextA = nextB ? afterHearing(beforeA, { ...nextB, plan: 'shop' }, 'b').held : beforeA;
  return [nextA, nextB];
}

describe('versions of a plan', () => {
  it('F5 what is put, changed or removed at one site is so at the other', () => {
    let [a, b] = told(put(undefined, 'one'), undefined);
    assert.deepEqual(b, a);
    b = put(put(b, 'two'), 'three');
    [a, b] = told(a, b);
    assert.equal(a!.document!.description, 'three');
    assert.equal(a!.counter, 3);
    a = put(a);
    [a, b] = told(a, b);
    assert.deepEqual([b!.document, b!.counter], [undefined, 4]);
    assert.equal(
      afterHearing(b, put(undefined, 'one'), 'a').outcome,
      'older',
      'what was removed is not brought back',
    );
    b = put(b, 'one');
    [a, b] = told(a, b);
    assert.equal(a!.document!.description, 'one');
  });

  it('F5 what both have changed stays as it is at each, beside the other one, until somebody settles it', () => {
    const both = put(undefined, 'one');
    let [a, b] = told(put(both, 'here'), put(both, 'there'));
    assert.deepEqual([a!.document!.description, b!.document!.description], ['here', 'there']);
    assert.deepEqual([a!.conflict!.siteId, b!.conflict!.siteId], ['b', 'a']);
    assert.equal(a!.conflict!.document!.description, 'there');
    a = put(a, 'settled');
    [a, b] = told(a, b);
    assert.deepEqual([a!.conflict, b!.conflict, b!.document!.description], [undefined, undefined, 'settled']);
    // Both were given the same by hand.
    const [x, y] = told(put(put(undefined, 'other'), 'same'), put(undefined, 'same'));
    assert.deepEqual([x!.conflict, y!.conflict, x!.counter, y!.counter], [undefined, undefined, 2, 2]);
  });

  it('F5 whatever two sites do, when they have heard each other both have the same, or both say that they have not', () => {
    const acts = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'tell'), fc.constantFrom('x', 'y', undefined)), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(acts, (list) => {
        let a: HeldPlan | undefined;
        let b: HeldPlan | undefined;
        for (const [who, what] of list) {
          if (who === 'tell') [a, b] = told(a, b);
          else if (who === 'a') a = put(a, what);
          else b = put(b, what);
        }
        for (let times = 0; times < 2; times++) [a, b] = told(a, b);
        assert.equal(a?.digest === b?.digest, a?.conflict === undefined && b?.conflict === undefined);
        assert.equal(a?.conflict === undefined, b?.conflict === undefined);
      }),
    );
  });
});
