import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { afterAsking, afterLettingGo, type Vote } from '../../../src/recovery-point/index.ts';
import { explore } from '../../model/explorer.ts';
import { type LeaseBudget, type LeaseBug, leaseModel } from '../../model/lease-model.ts';
import { sized } from '../../support/size.ts';

const FEW: LeaseBudget = {
  ...{
    writes: 1,
    kills: 1,
    partitions: 2,
    seeks: 1,
    seizures: 0,
    lostAnswers: 1,
    withdrawals: 0,
    undoings: 0,
  },
};

/** The machine is asked for twice, and what was brought up is given up once. */
const SOUGHT: LeaseBudget = { ...FEW, seeks: 2, writes: 0, undoings: 1 };
/** It is asked for in vain, and its home gets a higher claim by offering it and taking it back. */
const WITHDRAWN: LeaseBudget = {
  ...{ ...SOUGHT, kills: 0, partitions: 1, lostAnswers: 0 },
  ...{ undoings: 0, withdrawals: 1 },
};

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

  it('S0.17 failovers that are undone, after questions that were in vain as well: there is a way back to leases of both others', (t) => {
    const kills = sized({ what: 'S0.17: kills beside undoings, and questions besides', normal: 0, full: 1 });
    for (const budget of [
      { ...FEW, kills, partitions: 1, seeks: 1, lostAnswers: 1, undoings: 1 },
      {
        ...FEW,
        kills: 0,
        partitions: 0,
        seeks: 2 + kills,
        seizures: 1,
        undoings: 1,
        lostAnswers: 0,
        writes: 0,
      },
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
    'given up while its guest runs': both,
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
