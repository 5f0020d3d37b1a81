import Type from 'typebox';
import { Claim, compareClaims } from './tenure.ts';

/**
 * Leases: how three sites see to it that two never run one machine, without a person's word. Pure; docs/failover.md tells the whole of it.
 *
 * The *voters* of a machine are its home, one recovery site and a witness. Who holds the machine runs it for as long as one of the other
 * two has lent it that right, by that one's clock. Who wants it waits until what it has lent itself has run out, and asks the witness, which
 * says yes when what it has lent has run out as well. So any two of three decide, and no two pairs can decide otherwise at one time.
 */

/** By which sites a machine is lent, and for how long at a time. */
export const LeaseTerms = Type.Object({
  /** Has neither the machine nor its data. */
  witnessSiteId: Type.String(),
  /** The other site that may run it. */
  recoverySiteId: Type.String(),
  leaseMs: Type.Integer({ minimum: 1_000, maximum: 600_000 }),
  /** When they were agreed on, by the wall clock of the home: tells them from those that were ended before, and nothing else. */
  begunAtMs: Type.Optional(Type.Integer()),
});
export type LeaseTerms = Readonly<Type.Static<typeof LeaseTerms>>;

/** What a voter has promised of one machine; durable before an answer leaves it. */
export const Vote = Type.Object({
  /** Whose right counts here. */
  entitled: Claim,
  /** The highest claim that was ever granted or let go: of those up to it, none is voted for anew. */
  seen: Claim,
  /** `leased`: while a lease runs. `for-good`: until its holder says otherwise, or a person's word counts for more. */
  term: Type.Union([Type.Literal('leased'), Type.Literal('for-good')]),
  /** Who was entitled before, by leases, until whoever is now has said that it holds the machine: so long it may be let go. */
  before: Type.Optional(Claim),
});
export type Vote = Readonly<Type.Static<typeof Vote>>;

/** What is asked of a voter. */
export type LeaseAsk =
  /** `renew`: who holds the machine wants to run it for a while more. `hold`: who holds it for good, by votes or by a person's word, says so. */
  | { readonly kind: 'renew' | 'hold'; readonly claim: Claim }
  /** Who does not hold it wants to, in the place of whoever holds it by `over` as far as is known there. */
  | { readonly kind: 'vote'; readonly claim: Claim; readonly over: Claim };

/** Why a voter does not grant what it is asked: another claim counts here; what it has lent to another runs; this claim was let go. */
export type LeaseRefusal = 'superseded' | 'lent' | 'spent';

export type LeaseAnswer =
  | { readonly granted: true }
  | {
      readonly granted: false;
      readonly why: LeaseRefusal;
      readonly entitled: Claim;
      /** Whoever asks anew asks by a higher claim than this. */
      readonly seen: Claim;
      /** Whoever is entitled has said that it holds the machine. */
      readonly isHeld: boolean;
    };

/**
 * A voter's answer, and its vote after that, which must be durable before the answer leaves. `isLent`: a lease that it gave to
 * whoever is entitled may still run.
 */
export function afterAsking(
  vote: Vote | undefined,
  ask: LeaseAsk,
  isLent: boolean,
): { readonly vote: Vote; readonly answer: LeaseAnswer } {
  const { claim, kind } = ask;
  const granted = { granted: true } as const;
  const term = kind === 'renew' ? 'leased' : 'for-good';
  if (!vote) return { vote: { entitled: claim, seen: claim, term }, answer: granted };
  const { entitled, seen, before } = vote;
  const refused = (why: LeaseRefusal) =>
    ({ vote, answer: { granted: false, why, entitled, seen, isHeld: before === undefined } }) as const;
  const order = compareClaims(claim, entitled);
  if (order < 0) return refused('superseded');
  // Asked twice, a vote stays one that may be let go.
  if (order === 0) return { vote: kind === 'vote' ? vote : { entitled, seen, term }, answer: granted };
  const higher = compareClaims(claim, seen) > 0 ? claim : seen;
  // What it holds it holds, whatever is lent here: a person has said so, or an offer was taken.
  if (kind === 'hold') return { vote: { entitled: claim, seen: higher, term }, answer: granted };
  // It knows of a holder who has not told us yet, and whom nobody has asked to stop.
  if (kind === 'vote' && compareClaims(ask.over, entitled) > 0) return refused('superseded');
  // Who holds the machine has let go of no such claim: of what was taken back, one of the other site may be above it. Nor are two sites
  // ever given one epoch.
  if (kind === 'vote' && claim.epoch <= seen.epoch) return refused('spent');
  const isTheirs = entitled.siteId === claim.siteId;
  // What was lent to a site by an older claim of its own is in nobody's way but its own.
  if (isLent && !isTheirs) return refused('lent');
  if (kind === 'renew') return { vote: { entitled: claim, seen: higher, term }, answer: granted };
  // Who asks anew has not made use of its last vote; one that has, and gave the machine up, says so by what it asks over.
  if (kind === 'vote' && isTheirs && before && compareClaims(ask.over, entitled) < 0)
    return { vote: { entitled: claim, seen: claim, term, before }, answer: granted };
  if (vote.term === 'for-good') return refused('superseded');
  return { vote: { entitled: claim, seen: claim, term, before: entitled }, answer: granted };
}

/**
 * Who had asked for the right does not want it any more, and has not made use of it. After this nothing is granted by that claim; who was
 * entitled before may run the machine again.
 */
export function afterLettingGo(vote: Vote, claim: Claim): Vote {
  const { entitled, before } = vote;
  const seen = compareClaims(claim, vote.seen) > 0 ? claim : vote.seen;
  // It may not have heard that it was given an older one: who asks anew wants none of those.
  const isAsked = claim.siteId === entitled.siteId && compareClaims(claim, entitled) >= 0;
  if (before && isAsked) return { entitled: before, seen, term: 'leased' };
  return { ...vote, seen };
}

/** By which claim the machine is held, as far as a voter has heard: nobody has said yet that a vote has been used. */
export function heldBy({ entitled, before }: Vote): Claim {
  return before ?? entitled;
}

/** The leases are at an end, and the machine is held by `claim`, which is no lower one than is known: none below it is granted any more. */
export function afterEnding({ seen }: Vote, claim: Claim): Vote {
  return { entitled: claim, seen: compareClaims(claim, seen) > 0 ? claim : seen, term: 'for-good' };
}

/**
 * The same, told by a site that was none of those two of which is known, of leases that are at an end already: none below is granted any
 * more, but nobody hears by its word alone that the machine is held.
 */
export function afterForeignEnding(vote: Vote, claim: Claim): Vote {
  return { ...afterEnding(vote, claim), before: heldBy(vote) };
}

/** Leases have begun after others that ended by `earlier`: of claims that were granted or let go in those none is voted for anew. */
export function afterEarlier(vote: Vote, earlier: Vote): Vote {
  return compareClaims(earlier.seen, vote.seen) > 0 ? { ...vote, seen: earlier.seen } : vote;
}

/** Two clocks may differ by this part of a lease. */
const DRIFT = 0.01;
/** A guard needs a moment to stop its guest. */
const STOP_MS = 1_500;
/** A lender's answer takes its time. */
const SLACK_MS = 250;

/** How long a holder counts what it was lent, from before it asked: it must be over before `lenderShareMs`. */
export function holderShareMs(leaseMs: number): number {
  return leaseMs * (1 - DRIFT) - STOP_MS;
}

/** How long a lender counts what it has lent, from its answer on. */
export function lenderShareMs(leaseMs: number): number {
  return leaseMs * (1 + DRIFT) + SLACK_MS;
}
