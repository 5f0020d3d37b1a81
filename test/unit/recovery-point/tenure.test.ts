import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import {
  afterGivingUp,
  afterHearing,
  afterSeizing,
  afterTaking,
  afterWithdrawal,
  compareClaims,
  mayRun,
  type Tenure,
  withdrawalOf,
} from '../../../src/recovery-point/index.ts';
import { explore } from '../../model/explorer.ts';
import { type Budget, type PlantedBug, tenureModel } from '../../model/tenure-model.ts';
import { sized } from '../../support/size.ts';

const FEW: Budget = {
  writes: 1,
  kills: 1,
  partitions: 1,
  seizures: 1,
  cessions: 1,
  withdrawals: 1,
  undoings: 0,
  doubled: 0,
};

const AGAIN: Budget = { ...FEW, kills: 0, cessions: 0, withdrawals: 0 };

describe('the right to run a machine', () => {
  it('S0.17 every interleaving of what two sites may do and what may befall them keeps it, and has a way out', (t) => {
    const writes = sized({
      what: 'S0.17: writes of the guest, beside which everything else happens',
      normal: 1,
      full: 2,
    });
    const doubled = writes - 1;
    const { states, steps, found } = explore(tenureModel({ ...FEW, writes, doubled }));
    t.diagnostic(`${states} states, ${steps} steps between them`);
    assert.equal(found, undefined, JSON.stringify(found, null, 1));
    assert.ok(states > 50_000, 'an exploration that ends early has shown nothing');
  });

  it('S0.17 seizures by both sites at once, again and again', (t) => {
    const seizures = sized({ what: 'S0.17: seizures', normal: 2, full: 3 });
    const budget = { ...AGAIN, seizures, writes: 2 };
    const { states, found } = explore(tenureModel(budget));
    t.diagnostic(`${states} states`);
    assert.equal(found, undefined, JSON.stringify(found, null, 1));
  });

  it('F4 S0.17 what was brought up is given up and asked back, beside everything else', (t) => {
    const cessions = sized({ what: 'F4: cessions beside an undoing', normal: 0, full: 1 });
    const { states, found } = explore(tenureModel({ ...FEW, undoings: 1, cessions }));
    t.diagnostic(`${states} states`);
    assert.equal(found, undefined, JSON.stringify(found, null, 1));
    assert.ok(states > 100_000, 'an exploration that ends early has shown nothing');
  });

  it('F4 S0.17 given up and asked back, by both sites, again and again', (t) => {
    const undoings = sized({ what: 'F4: undoings', normal: 1, full: 2 });
    const { states, found } = explore(tenureModel({ ...AGAIN, undoings, seizures: 2 }));
    t.diagnostic(`${states} states`);
    assert.equal(found, undefined, JSON.stringify(found, null, 1));
  });

  const BUGS: Readonly<Record<PlantedBug, RegExp>> = {
    'checked after the start': /runs the machine though it follows/,
    'ceded before it was verified': /the (acknowledged )?write a is gone/,
    'branch deleted': /the (acknowledged )?write a is gone/,
    'withdrawn unasked': /both sites run the machine, and nobody has confirmed anything/,
    'given up while its guest runs': /runs the machine though it follows/,
    'given up, and its branch deleted': /the (acknowledged )?write a is gone/,
    'asked back without an answer': /both sites run the machine, and nobody has confirmed anything/,
    'promised while it holds': /runs the machine though it follows/,
    'a follower says nothing': /no way out/,
  };
  for (const [bug, said] of Object.entries(BUGS)) {
    it(`a planted mistake is found: ${bug}`, (t) => {
      const undoings = /given up|asked back/.test(bug) ? 1 : 0;
      const { found } = explore(tenureModel({ ...FEW, undoings }, bug as PlantedBug));
      assert.match(found?.what ?? 'nothing was found', said);
      t.diagnostic(found!.way.join('; '));
    });
  }
});

const P = { epoch: 1, siteId: 'P' };
const HOLDS: Tenure = { state: 'holds', claim: P };

test('S0.17 who hears of a higher claim gives way, and of no other', () => {
  for (const lower of [P, { epoch: 1, siteId: 'A' }])
    assert.equal(afterHearing(HOLDS, 'P', lower), HOLDS, JSON.stringify(lower));
  const fenced = afterHearing(HOLDS, 'P', { epoch: 2, siteId: 'R' });
  assert.deepEqual(fenced, { state: 'fenced', claim: { epoch: 2, siteId: 'R' }, lost: P });
  assert.equal(mayRun(fenced), false);
  // Two recovery sites that were told the same at once: the order of their names decides, at every site alike.
  const [r, s] = [
    { epoch: 2, siteId: 'R' },
    { epoch: 2, siteId: 'S' },
  ];
  assert.ok(compareClaims(r, s) < 0);
  assert.equal(afterHearing({ state: 'holds', claim: r }, 'R', s).state, 'fenced');
  assert.equal(afterHearing({ state: 'holds', claim: s }, 'S', r).state, 'holds');
});

test('S0.17 an offer is taken by the site that it was made to, once, and not after it was withdrawn', () => {
  const follows: Tenure = { state: 'follows', claim: P };
  const offer = { epoch: 2, siteId: 'R' };
  assert.equal(afterTaking(follows, 'S', offer), undefined);
  const holds = afterTaking(follows, 'R', offer);
  assert.deepEqual(holds, { state: 'holds', claim: offer });
  assert.equal(afterTaking(holds!, 'R', offer), holds);
  assert.equal(afterTaking({ state: 'follows', claim: { epoch: 3, siteId: 'P' } }, 'R', offer), undefined);
  assert.equal(afterSeizing(HOLDS, 'P'), undefined, 'nobody seizes what is his');
});

test('F4 S0.17 what was given up is for the site that asks for it, and for nobody who is not asked', () => {
  const taken = { epoch: 2, siteId: 'R' };
  const asked = withdrawalOf({ state: 'fenced', claim: taken, lost: P }, 'P')!;
  assert.deepEqual(asked, { epoch: 3, siteId: 'P' });
  const holds: Tenure = { state: 'holds', claim: taken };
  assert.equal(afterWithdrawal(holds, 'R', asked), holds, 'who holds it promises nothing');
  const givenUp = afterGivingUp(holds)!;
  assert.equal(mayRun(givenUp), false);
  assert.equal(afterGivingUp(givenUp), undefined);
  const promised = afterWithdrawal(givenUp, 'R', asked);
  assert.deepEqual(promised, { state: 'follows', claim: asked });
  assert.equal(afterWithdrawal(promised, 'R', asked), promised, 'again nothing changes');
  for (const state of ['fenced', 'follows'] as const) {
    const left: Tenure = state === 'fenced' ? { state, claim: taken, lost: P } : { state, claim: taken };
    assert.deepEqual(afterHearing(left, 'P', asked), { state: 'holds', claim: asked }, state);
  }
  // A third site may hold what this one follows: it cannot speak for that.
  const third: Tenure = { state: 'follows', claim: { epoch: 2, siteId: 'S' } };
  assert.equal(afterWithdrawal(third, 'R', asked), third);
  assert.equal(
    withdrawalOf(givenUp, 'R'),
    undefined,
    'what it has given up itself it takes by a seizure alone',
  );
});
