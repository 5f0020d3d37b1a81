import { FAILOVER_ERRORS } from '../../failover/index.ts';
import { failuresOf } from '../../lib/errors.ts';

const failure = failuresOf(FAILOVER_ERRORS);

/** What people may say of a failover without the other site's help. */
export interface SaidGrounds {
  readonly confirmOtherSideDown?: true;
  readonly askWitness?: true;
  readonly fence?: true;
}

/** Upon which the right to run a machine is taken without its holder's help: votes, a program's success, or somebody's word. */
export type Ground =
  | { readonly askWitness: true }
  | { readonly fence: true }
  | { readonly confirmOtherSideDown: true };

/**
 * The ground of one machine's failover; pure. Votes count for more than a word that stands beside them, and no program takes their place. Throws
 * FAILOVER_UNCONFIRMED, FAILOVER_GROUND_UNCLEAR, FAILOVER_WITNESS_DECIDES.
 */
export function groundOf(said: SaidGrounds, machine: { name: string; hasWitness: boolean }): Ground {
  const { askWitness, fence, confirmOtherSideDown } = said;
  if (fence && (askWitness || confirmOtherSideDown)) throw unclear();
  if (askWitness) return { askWitness };
  if (fence && machine.hasWitness) {
    throw failure('FAILOVER_WITNESS_DECIDES', `${machine.name} has a witness, whose vote decides`);
  }
  if (fence) return { fence };
  if (confirmOtherSideDown) return { confirmOtherSideDown };
  const both = 'nobody has confirmed that the other side is down: both may run the machine';
  throw failure('FAILOVER_UNCONFIRMED', both);
}

/** What a run of a plan says of one of its machines; pure. Throws FAILOVER_GROUND_UNCLEAR, FAILOVER_UNCONFIRMED. */
export function groundInPlan(said: SaidGrounds, hasWitness: boolean): Ground {
  const { askWitness, fence, confirmOtherSideDown } = said;
  if (fence && confirmOtherSideDown) throw unclear();
  // Of a machine that has none, what was said for the others; if nothing was, it is told that it has none.
  if (askWitness && (hasWitness || !(fence || confirmOtherSideDown))) return { askWitness };
  if (fence) return { fence };
  if (confirmOtherSideDown) return { confirmOtherSideDown };
  throw failure('FAILOVER_UNCONFIRMED', 'nobody has confirmed that the other side is down');
}

function unclear() {
  const said = 'more than one thing is said to make sure that the other side is down';
  return failure('FAILOVER_GROUND_UNCLEAR', said);
}
