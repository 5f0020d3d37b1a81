import { isFailure } from '../../lib/errors.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Claim, compareClaims, hasGivenUp, type Tenure } from '../../recovery-point/index.ts';
import { controlFailure } from '../errors.ts';
import { askVoter, CALL_LIMIT_MS, checkedLease, EndAnswer, type LeaseParties } from './lease-wire.ts';
import type { HearClaim, VoteBook } from './vote-book.ts';

/** What a witness that is owed word of a holder hears: that the machine is held here, or by which claim it is since. */
interface HoldWord {
  readonly kind: 'hold' | 'end';
  readonly claim: Claim;
}

/**
 * By where this site stands now. What it holds, or offers to another, it holds; what another site holds by a higher claim is at an end here,
 * and whoever comes by a lower one must not have it lent. Of a machine that is here no more the claim by which it was held counts, if it is
 * known. Undefined: it was given up, and whoever had it before may go on with it; what comes of that is waited for.
 */
export function wordOf(
  tenure: Tenure | undefined,
  siteId: string,
  owed: Claim | undefined,
): HoldWord | undefined {
  if (!tenure) return owed && { kind: 'end', claim: owed };
  const { state, claim } = tenure;
  if (state === 'holds' || state === 'cedes') return { kind: 'hold', claim };
  return hasGivenUp(tenure, siteId) ? undefined : { kind: 'end', claim };
}

export interface HoldWordsTools {
  readonly book: VoteBook;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  readonly hear: HearClaim;
}

/** Tells a witness of leases who holds the machine, whatever it has lent. */
export class HoldWords {
  readonly #o: HoldWordsTools;

  constructor(o: HoldWordsTools) {
    this.#o = o;
  }

  /**
   * The claim of which the witness of `parties` has heard on return; undefined: there is nothing to say as yet. `owed`: by which the machine
   * was held here when that was to be told. Throws LEASE_VOTE_STANDS, and what a call to a peer throws: it has not heard then.
   */
  async say(parties: LeaseParties, owed: Claim | undefined, signal: AbortSignal): Promise<Claim | undefined> {
    const { book } = this.#o;
    const { machineId } = parties;
    await book.settle(machineId);
    const word = wordOf(book.standing(machineId), book.siteId, owed);
    if (!word) return undefined;
    const o = { timeoutMs: CALL_LIMIT_MS, signal };
    try {
      await (word.kind === 'hold'
        ? this.#sayHeld(parties, word.claim, o)
        : this.#sayEnded(parties, word.claim, o));
    } catch (error) {
      // It knows of other sites by now, and votes for none of these.
      if (!isFailure(error, 'LEASE_NOT_YOURS', 'LEASE_PARTIES_DIFFER')) throw error;
    }
    return word.claim;
  }

  /** A witness that knows of a holder by a higher claim is believed. */
  async #sayHeld(parties: LeaseParties, claim: Claim, o: CallLimits): Promise<void> {
    const { client, hear } = this.#o;
    const { machineId, witnessSiteId } = parties;
    const answer = await askVoter(client(witnessSiteId), parties, { kind: 'hold', claim }, o);
    if (answer.granted) return;
    if (!answer.isHeld) throw voteStands(parties, witnessSiteId);
    if (compareClaims(answer.entitled, claim) > 0) await hear(machineId, answer.entitled);
  }

  /** It lends by no lower claim from then on; one that knows of a higher one lends by none either. */
  async #sayEnded(parties: LeaseParties, claim: Claim, o: CallLimits): Promise<void> {
    const { machineId, witnessSiteId } = parties;
    const body = { machineId, claim: { ...claim } };
    const answer = checkedLease(EndAnswer, await this.#o.client(witnessSiteId).call('lease.end', body, o));
    if (!answer.ended && answer.isHeld === false) throw voteStands(parties, witnessSiteId);
  }
}

interface CallLimits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/**
 * Somebody may hold the machine by a vote that this site has not heard of again, or is just asking for one: when that is let go, it knows
 * what it knew before, and nothing of what it was told.
 */
export function voteStands(
  { machineId, machineName }: Pick<LeaseParties, 'machineId' | 'machineName'>,
  siteId: string,
) {
  const said = `site ${siteId} does not count yet who holds ${machineName}: somebody has asked for it`;
  return controlFailure('LEASE_VOTE_STANDS', said, { context: { machineId, siteId } });
}
