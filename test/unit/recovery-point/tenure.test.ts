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
import { AGAIN, FEW } from '../../model/explorations.ts';
import { explore } from '../../model/explorer.ts';
import { type Budget, type PlantedBug, tenureModel } from '../../model/tenure-model.ts';
import { explores } from '../../support/explores.ts';

describe('the right to run a machine', () => {
  it('S0.17 every interleaving of what two sites may do and what may befall them keeps it, and has a way out', (t) => {
    explores(t, 'two sites');
  });

  it('S0.17 seizures by both sites at once, again and again: of two in one epoch the higher claim stays', (t) => {
    explores(t, 'seized by both', ['both sites hold one epoch']);
  });

  it('F4 S0.17 what was brought up is given up and asked back, beside everything else', (t) => {
    explores(t, 'undone');
  });

  it('F4 S0.17 given up and asked back, by both sites, again and again', (t) => {
    explores(t, 'undone again');
  });

  it('F4 S0.17 what was brought up is adopted, beside everything else', (t) => {
    explores(t, 'adopted', ['R is at home', 'what had been adopted gives way']);
  });

  it('F4 S0.17 what was brought up is adopted or given up, and seized again', (t) => {
    explores(t, 'adopted, undone and seized', ['R is at home', 'what had been adopted gives way']);
  });

  const none = /both sites run the machine, and nobody has confirmed anything/;
  const gone = /the (acknowledged )?write a is gone/;
  const follows = /runs the machine though it follows/;
  const oneEpoch = (epoch: number) =>
    RegExp(`both sites hold epoch ${epoch}, and not each of them by somebody’s word`);
  const BUGS: Readonly<Record<PlantedBug, { readonly said: RegExp; readonly budget?: Budget }>> = {
    'checked after the start': { said: follows },
    'ceded before it was verified': { said: gone },
    'branch deleted': { said: gone },
    'withdrawn unasked': { said: oneEpoch(3) },
    'given up while its guest runs': { said: follows, budget: { ...AGAIN, undoings: 1 } },
    'given up, and its branch deleted': { said: gone, budget: { ...AGAIN, undoings: 1 } },
    'asked back without an answer': { said: none, budget: { ...FEW, undoings: 1 } },
    'promised while it holds': { said: follows, budget: { ...FEW, undoings: 1 } },
    'a follower says nothing': { said: /no way out/ },
    'epoch not raised when seizing': {
      said: /both sites hold epoch 1, and not each of them by somebody’s word/,
    },
    'of one epoch whoever hears gives way': {
      said: /claim 3R gave way to 3P, which is not higher/,
      budget: { ...AGAIN, seizures: 3 },
    },
    'of one epoch nobody gives way': { said: /no way out/, budget: { ...AGAIN, seizures: 3 } },
    'undone though it is at home': {
      said: /has given up what is at home there/,
      budget: { ...AGAIN, adoptions: 1, undoings: 1 },
    },
    'ceded while it is adopted': { said: none, budget: { ...AGAIN, adoptions: 1, cessions: 1 } },
  };
  for (const [bug, { said, budget = FEW }] of Object.entries(BUGS)) {
    it(`a planted mistake is found: ${bug}`, (t) => {
      const { found } = explore(tenureModel(budget, bug as PlantedBug));
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
