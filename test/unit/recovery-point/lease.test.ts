import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { afterAsking, afterLettingGo, type Vote } from '../../../src/recovery-point/index.ts';
import { explore } from '../../model/explorer.ts';
import { type LeaseBudget, type LeaseBug, leaseModel } from '../../model/lease-model.ts';
import { sized } from '../../support/size.ts';

const FEW: LeaseBudget = {
  writes: 1,
  kills: 1,
  partitions: 2,
  seeks: 1,
  seizures: 0,
  lostAnswers: 1,
  withdrawals: 0,
};

const SOUGHT: LeaseBudget = { ...FEW, seeks: 2, writes: 0 };
/** The machine is asked for in vain, and its home gets a higher claim by offering it and taking it back. */
const WITHDRAWN: LeaseBudget = { ...SOUGHT, kills: 0, partitions: 1, lostAnswers: 0, withdrawals: 1 };

describe('leases', () => {
  it('S0.17 no two of three sites run the machine, whatever befalls them, and nobody has to confirm anything', (t) => {
    const kills = sized({ what: 'S0.17: kills beside leases', normal: 1, full: 2 });
    const { states, steps, found } = explore(leaseModel({ ...FEW, kills }));
    t.diagnostic(`${states} states, ${steps} steps between them`);
    assert.equal(found, undefined, JSON.stringify(found, null, 1));
    assert.ok(states > 50_000, 'an exploration that ends early has shown nothing');
  });

  it('S0.17 there and back by votes, and people who seize what they should not', (t) => {
    const kills = sized({ what: 'S0.17: kills beside votes and seizures', normal: 0, full: 1 });
    for (const budget of [
      { ...FEW, kills: 0, partitions: 1, seeks: 2, lostAnswers: 0 },
      { ...FEW, kills: 0, partitions: 0, seeks: 1, seizures: 1 },
      WITHDRAWN,
      { ...FEW, kills, partitions: kills, seeks: 1 + kills, seizures: 1, writes: 0, lostAnswers: 0 },
    ]) {
      const { states, found } = explore(leaseModel(budget), 20_000_000);
      t.diagnostic(`${states} states`);
      assert.equal(found, undefined, JSON.stringify(found, null, 1));
    }
  });

  const both = /both sites run the machine, and nobody has confirmed anything/;
  const BUGS: Readonly<Record<LeaseBug, RegExp>> = {
    'lease checked after the start': /runs without a lease/,
    'voted while lent': both,
    'lent while it seeks': both,
    'lender forgets with its process': both,
    'guard ends with the process': /runs without a lease/,
    'lets go of what it holds': both,
    'asks again by the same claim': both,
    'spent for its holder': /no way/,
  };
  for (const [bug, said] of Object.entries(BUGS)) {
    it(`a planted mistake is found: ${bug}`, (t) => {
      const { found } = explore(
        leaseModel(bug === 'spent for its holder' ? WITHDRAWN : SOUGHT, bug as LeaseBug),
      );
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
  const held = afterAsking(vote, { claim: R, kind: 'hold' }, false).vote;
  assert.deepEqual(afterLettingGo(held, R), held, 'what is held is not let go');
});

test('S0.17 what others have asked for in vain keeps nobody from renewing a claim of its own', () => {
  // Asked for, and let go; meanwhile an offer was withdrawn, by which P holds a claim between the two.
  const inVain = afterLettingGo(LEASED, { epoch: 4, siteId: 'R' });
  const renewal = { claim: { epoch: 3, siteId: 'P' }, kind: 'renew' } as const;
  const { vote, answer } = afterAsking(inVain, renewal, false);
  assert.equal(answer.granted, true);
  const late = afterAsking(
    vote,
    { claim: { epoch: 4, siteId: 'R' }, kind: 'vote', over: renewal.claim },
    false,
  );
  assert.ok(!late.answer.granted && late.answer.why === 'spent', 'what was let go stays so');
});
