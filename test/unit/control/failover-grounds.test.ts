/** Upon what an unplanned failover takes the right: votes, a program's success, or somebody's word, and nothing where more than one is said. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { groundInPlan, groundOf, type SaidGrounds } from '../../../src/control/acts/failover-grounds.ts';
import { isFailure } from '../../../src/lib/errors.ts';

const WORD = { confirmOtherSideDown: true } as const;
const VOTES = { askWitness: true } as const;
const FENCE = { fence: true } as const;

function outcome(work: () => object): string {
  try {
    return Object.keys(work()).join();
  } catch (error) {
    assert.ok(isFailure(error));
    return error.code;
  }
}

describe('the ground of an unplanned failover', () => {
  it('S0.17 of one machine: a word, votes that count for more than it, or a program where there is no witness', () => {
    const of = (said: SaidGrounds, hasWitness: boolean) =>
      outcome(() => groundOf(said, { name: 'db', hasWitness }));
    const table: [SaidGrounds, string, string][] = [
      [{}, 'FAILOVER_UNCONFIRMED', 'FAILOVER_UNCONFIRMED'],
      [WORD, 'confirmOtherSideDown', 'confirmOtherSideDown'],
      [VOTES, 'askWitness', 'askWitness'],
      [{ ...WORD, ...VOTES }, 'askWitness', 'askWitness'],
      [FENCE, 'fence', 'FAILOVER_WITNESS_DECIDES'],
      [{ ...FENCE, ...WORD }, 'FAILOVER_GROUND_UNCLEAR', 'FAILOVER_GROUND_UNCLEAR'],
      [{ ...FENCE, ...VOTES }, 'FAILOVER_GROUND_UNCLEAR', 'FAILOVER_GROUND_UNCLEAR'],
    ];
    for (const [said, without, having] of table) {
      assert.deepEqual([of(said, false), of(said, true)], [without, having], JSON.stringify(said));
    }
  });

  it('S0.17 of a machine of a plan: votes where there is a witness, and what else is said for the others', () => {
    const of = (said: SaidGrounds, hasWitness: boolean) => outcome(() => groundInPlan(said, hasWitness));
    const table: [SaidGrounds, string, string][] = [
      [WORD, 'confirmOtherSideDown', 'confirmOtherSideDown'],
      [VOTES, 'askWitness', 'askWitness'],
      [{ ...WORD, ...VOTES }, 'confirmOtherSideDown', 'askWitness'],
      [{ ...FENCE, ...VOTES }, 'fence', 'askWitness'],
      // What the machine is refused then, and no other: `groundOf`.
      [FENCE, 'fence', 'fence'],
      [{ ...FENCE, ...WORD }, 'FAILOVER_GROUND_UNCLEAR', 'FAILOVER_GROUND_UNCLEAR'],
      [{}, 'FAILOVER_UNCONFIRMED', 'FAILOVER_UNCONFIRMED'],
    ];
    for (const [said, without, having] of table) {
      assert.deepEqual([of(said, false), of(said, true)], [without, having], JSON.stringify(said));
    }
  });
});
