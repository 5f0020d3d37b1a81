import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { afterAsking, afterLettingGo, type Vote } from '../../../src/recovery-point/index.ts';
import { SOUGHT, WITHDRAWN } from '../../model/explorations.ts';
import { explore } from '../../model/explorer.ts';
import { leaseModel } from '../../model/lease-model.ts';
import type { LeaseBudget, LeaseBug } from '../../model/lease-states.ts';
import { explores } from '../../support/explores.ts';

describe('leases', () => {
  it('S0.17 no two of three sites run the machine, whatever befalls them, and nobody has to confirm anything', (t) => {
    explores(t, 'leases');
  });

  it('S0.17 there and back by votes, and people who seize what they should not', (t) => {
    explores(t, 'votes there and back');
    explores(t, 'votes and a seizure');
    explores(t, 'votes and seizures by both', ['both sites hold one epoch']);
    explores(t, 'votes beside an offer');
  });

  it('S0.17 failovers that are undone, after questions that were in vain as well: there is a way back to leases of both others', (t) => {
    explores(t, 'votes, undone');
    explores(t, 'votes, undone and seized');
  });

  const both = /both sites run the machine, and nobody has confirmed anything/;
  const SEIZED: LeaseBudget = { ...SOUGHT, seizures: 1 };
  const BUGS: Readonly<Record<LeaseBug, { readonly said: RegExp; readonly budget?: LeaseBudget }>> = {
    'lease checked after the start': { said: /runs without a lease/ },
    'voted while lent': { said: both },
    'lent while it seeks': { said: both },
    'lender forgets with its process': { said: both },
    'guard ends with the process': { said: /runs without a lease/ },
    'lets go of what it holds': { said: both },
    'asks again by the same claim': { said: both },
    'spent for its holder': { said: /no way/, budget: WITHDRAWN },
    'given up while its guest runs': { said: both },
    'epoch not raised when seizing': {
      said: /both sites hold epoch 1, and not each of them by somebody’s word/,
      budget: SEIZED,
    },
    'a claim raised without asking': { said: both },
    'a vote used over another holder': {
      said: /both sites hold epoch 3, and not each of them by somebody’s word/,
      budget: WITHDRAWN,
    },
  };
  for (const [bug, { said, budget = SOUGHT }] of Object.entries(BUGS)) {
    it(`a planted mistake is found: ${bug}`, (t) => {
      const { found } = explore(leaseModel(budget, bug as LeaseBug));
      assert.match(found?.what ?? 'nothing was found', said);
      t.diagnostic(found!.way.join('; '));
    });
  }
});

const P = { epoch: 1, siteId: 'P' };
const R = { epoch: 2, siteId: 'R' };
const LEASED: Vote = { entitled: P, seen: P, term: 'leased' };

test('S0.17 a vote is given when nothing is lent, once, and lent again when it was let go', () => {
  const ask = { claim: R, kind: 'vote', over: P } as const;
  assert.deepEqual(afterAsking(LEASED, ask, true).answer, {
    granted: false,
    why: 'lent',
    entitled: P,
    seen: P,
    isHeld: true,
  });
  const { vote, answer } = afterAsking(LEASED, ask, false);
  assert.equal(answer.granted, true);
  assert.deepEqual(afterAsking(vote, ask, false), { vote, answer }, 'asked once more, it is the same vote');
  const renewal = { claim: P, kind: 'renew' } as const;
  assert.deepEqual(afterAsking(vote, renewal, false).answer, {
    granted: false,
    why: 'superseded',
    entitled: R,
    seen: R,
    isHeld: false,
  });
  const back = afterLettingGo(vote, R);
  assert.equal(afterAsking(back, renewal, false).answer.granted, true);
  const late = afterAsking(back, ask, false).answer;
  assert.ok(!late.granted && late.why === 'spent', 'a question that comes late gets what was let go no more');
  assert.deepEqual(
    afterLettingGo(vote, { epoch: 4, siteId: 'R' }).entitled,
    P,
    'nor is one wanted that was given before',
  );
  const held = afterAsking(vote, { claim: R, kind: 'hold' }, false).vote;
  assert.deepEqual(afterLettingGo(held, R), held, 'what is held is not let go');
});

test('S0.17 who has taken the machine back is lent it, however often it was asked for in vain', () => {
  // R asked three times and let go, failed over by a person's word, and was undone: P holds it by a claim below what was let go.
  const asked = afterLettingGo(LEASED, { epoch: 4, siteId: 'R' });
  const held = afterAsking(asked, { claim: R, kind: 'hold' }, true).vote;
  const back = { epoch: 3, siteId: 'P' };
  const lent = afterAsking(held, { claim: back, kind: 'renew' }, false);
  assert.equal(lent.answer.granted, true);
  assert.deepEqual(lent.vote, { entitled: back, seen: asked.seen, term: 'leased' });
  // An offer that was withdrawn; nothing of that makes a late question one that is granted.
  const offered = afterAsking(asked, { claim: back, kind: 'renew' }, true);
  assert.equal(offered.answer.granted, true);
  for (const epoch of [2, 3, 4]) {
    const late = { claim: { epoch, siteId: 'R' }, kind: 'vote', over: back } as const;
    assert.equal(afterAsking(lent.vote, late, false).answer.granted, false);
  }
  // What is lent to the other site is in nobody's power to lend twice.
  const other = afterAsking(lent.vote, { claim: { epoch: 4, siteId: 'R' }, kind: 'renew' }, true).answer;
  assert.ok(!other.granted && other.why === 'lent');
});

test('S0.17 who is voted for holds the machine in an epoch of its own', () => {
  const held: Vote = { entitled: { epoch: 3, siteId: 'P' }, seen: { epoch: 3, siteId: 'P' }, term: 'leased' };
  for (const [epoch, granted] of [
    [3, false],
    [4, true],
  ] as const) {
    const ask = { claim: { epoch, siteId: 'R' }, kind: 'vote', over: R } as const;
    assert.equal(afterAsking(held, ask, false).answer.granted, granted, `epoch ${epoch}`);
  }
});

test('S0.17 who has made use of a vote, and given the machine up, gets no other by asking', () => {
  const { vote } = afterAsking(LEASED, { claim: R, kind: 'vote', over: P }, false);
  // The witness has not heard that it was held.
  const ask = { claim: { epoch: 3, siteId: 'R' }, kind: 'vote' } as const;
  const again = afterAsking(vote, { ...ask, over: R }, false).answer;
  assert.ok(!again.granted && again.why === 'superseded');
  assert.equal(afterAsking(vote, { ...ask, over: P }, false).answer.granted, true, 'it never held it');
});

test('S0.17 a vote gives nobody an epoch that the other site has come by', () => {
  const lent: Vote = { ...LEASED, entitled: { epoch: 3, siteId: 'P' }, seen: { epoch: 3, siteId: 'P' } };
  // R asked by its third before it heard that P had taken the machine back by its own.
  const ask = { kind: 'vote', over: { epoch: 3, siteId: 'P' } } as const;
  const same = afterAsking(lent, { ...ask, claim: { epoch: 3, siteId: 'R' } }, false).answer;
  assert.ok(!same.granted && same.why === 'spent');
  assert.ok(afterAsking(lent, { ...ask, claim: { epoch: 4, siteId: 'R' } }, false).answer.granted);
});
