import type { Json } from '../../lib/canonical-json.ts';
import type { CallHandler } from '../../peer/index.ts';
import {
  afterAsking,
  afterEarlier,
  afterEnding,
  afterForeignEnding,
  afterLettingGo,
  type Claim,
  compareClaims,
  heldBy,
  type LeaseAsk,
  lenderShareMs,
  type Vote,
} from '../../recovery-point/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import { EndedLeases } from './ended-leases.ts';
import {
  isSameParties,
  type Owed,
  owedBy,
  type Parties,
  sitesOf,
  type VoteRecord,
  withEnd,
} from './lease-records.ts';
import { AskBody, ClaimBody, checkedLease, EndBody } from './lease-wire.ts';
import { type HearClaim, leaseUnknown, type VoteBook } from './vote-book.ts';

export interface LeaseLenderTools {
  readonly book: VoteBook;
  readonly audit: Pick<Audit, 'note'>;
  readonly hear: HearClaim;
  /** A witness is to hear something. */
  readonly onToTell: () => void;
  /** Of a machine this is still to be told, and nothing else; called before that is stored. */
  readonly left: (machineId: string, owed: Owed) => void;
}

/** A site that somebody trusts as a witness may not fill its disk. */
const VOTES_OF_A_PEER_MAX = 10_000;

/**
 * What this site lends to those who run machines, and gives away by its vote. What it has promised is durable before it says so; what it
 * has lent is not: a site that starts counts everything as lent just before.
 */
export class LeaseLender {
  readonly #book: VoteBook;
  readonly #o: LeaseLenderTools;
  readonly #openedAtMs: number;
  readonly #lentUntilMs = new Map<string, number>();
  readonly #over = new EndedLeases();

  constructor(o: LeaseLenderTools) {
    this.#o = o;
    this.#book = o.book;
    this.#openedAtMs = o.book.nowMs();
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return {
      'lease.ask': (peer, body) => this.#asked(peer.siteId, checkedLease(AskBody, body), 'do'),
      'lease.would': (peer, body) => this.#asked(peer.siteId, checkedLease(AskBody, body), 'say'),
      'lease.let-go': (peer, body) =>
        this.#told(checkedLease(ClaimBody, body), async (record, claim) => {
          const isParty = record.siteIds.includes(peer.siteId);
          // Nothing of what it speaks of is left.
          if (record.ended && !isParty) return { ended: true };
          if (!isParty || claim.siteId !== peer.siteId) throw notYours(record.machineId);
          await this.#book.records.store({ ...record, vote: afterLettingGo(record.vote, claim) });
          return {};
        }),
      'lease.end': (peer, body) => {
        const end = checkedLease(EndBody, body);
        // Also where nothing is known of them: what was asked first may still be on its way.
        if (end.begunAtMs !== undefined) this.#over.note(peer.siteId, end.machineId, end.begunAtMs);
        return this.#told(end, (record, claim) => {
          if (!record.siteIds.includes(peer.siteId)) return this.#endedForeign(peer.siteId, record, claim);
          return this.#ended(peer.siteId, record, end);
        });
      },
    };
  }

  /**
   * No leases are known of the machine any more, and it is asked for by no votes. `claim`: by which it is held, no lower one than was known.
   * `begun`: leases with these parties have begun, and what was to be told of earlier ones of the same parties is told no more.
   */
  async forget(
    machineId: string,
    { claim, begun }: { readonly claim?: Claim; readonly begun?: Parties } = {},
  ): Promise<void> {
    const { book, onToTell, left } = this.#o;
    const record = book.records.get(machineId);
    if (!record) {
      left(machineId, {});
      // What could not be stored may be there all the same, and would be found by the next process.
      return book.records.remove(machineId);
    }
    const { toTell: _held, told: _told, ...known } = record;
    const { toEnd: _ends, toHold: _holds, ...bare } = known;
    const rest = begun
      ? { ...bare, ...owedBy(record, begun, sitesOf(begun)) }
      : { ...known, ...endOwed(record, claim) };
    left(machineId, rest);
    const vote = claim ? afterEnding(record.vote, claim) : record.vote;
    // The witness is still to hear that it was let go: else it would refuse whoever holds the machine for good.
    await book.keep({ ...rest, vote, ended: true });
    // Not before: where that could not be stored, what was lent counts.
    this.#lentUntilMs.delete(machineId);
    onToTell();
  }

  /** How long something that was lent of a machine may still run. */
  lentForMs(machineId: string, record: VoteRecord | undefined): number {
    if (record?.vote.term !== 'leased') return 0;
    const untilMs = this.#lentUntilMs.get(machineId) ?? this.#openedAtMs + lenderShareMs(record.leaseMs);
    return Math.max(0, untilMs - this.#book.nowMs());
  }

  /** `say`: how it would be answered. Nothing is promised or lent by that. Who comes too early with new leases would come again. */
  async #asked(peerId: string, body: AskBody, how: 'do' | 'say'): Promise<Json> {
    const { machineId, kind, claim, over, witnessSiteId, begunAtMs } = body;
    const { siteId, records } = this.#book;
    const siteIds = body.siteIds.toSorted();
    const isWitness = siteId === witnessSiteId;
    const isMeant =
      siteIds.includes(peerId) && !siteIds.includes(witnessSiteId) && (isWitness || siteIds.includes(siteId));
    const ask: LeaseAsk | undefined = kind === 'vote' ? over && { kind, claim, over } : { kind, claim };
    if (!isMeant || claim.siteId !== peerId || !ask || (!isWitness && kind !== 'renew')) throw invalid();
    await this.#book.settle(machineId);
    if (!isWitness) await this.#hear(machineId, claim);
    return this.#book.alone(machineId, async () => {
      const known = records.get(machineId);
      const record = known?.ended ? undefined : known;
      // Who held the machine before leases that have ended may never have heard of them.
      if (isWitness && known?.ended && compareClaims(claim, known.vote.entitled) < 0)
        return refused('superseded', known.vote, known.vote.before === undefined);
      const isChanged = record && !isSameParties(record, body);
      if (record) checkParties(record, { peerId, ask, isWitness, isChanged: isChanged === true });
      // Nobody knows who runs it: nobody can say that it does not run.
      else if (
        kind === 'vote' ||
        (how === 'do' && kind === 'renew' && this.#over.has(peerId, machineId, begunAtMs))
      )
        throw leaseUnknown(machineId);
      else if (isWitness && !known) this.#checkRoom(peerId);
      const refusal = this.#ownRefusal(machineId, ask, record);
      if (refusal) return refusal;
      const waitMs = this.lentForMs(machineId, record);
      const { vote: begun, answer } = afterAsking(record?.vote, ask, waitMs > 0);
      if (!answer.granted) return { ...wired(answer), waitMs: Math.ceil(waitMs) };
      if (how === 'say') return { granted: true };
      const { machineName, leaseMs } = body;
      // Of claims that were let go before earlier leases ended, none is granted either.
      const vote = known?.ended ? afterEarlier(begun, known.vote) : begun;
      const { ended: _over, begunAtMs: _earlier, ...before } = known ?? ({} as Partial<VoteRecord>);
      // The witness hears it from a site that it knows: of whoever holds the machine now it may never have heard.
      const owed =
        isChanged && !isWitness
          ? { toEnd: withEnd(record.toEnd, { siteId: record.witnessSiteId, claim }) }
          : {};
      const which = kind === 'renew' ? begunAtMs : record?.begunAtMs;
      const after = {
        ...before,
        ...{ machineId, machineName, leaseMs, siteIds, witnessSiteId, vote, ...owed },
        ...(which === undefined ? {} : { begunAtMs: which }),
      };
      const isStored = JSON.stringify(after) === JSON.stringify(known) && !records.isUnsure(machineId);
      if (!isStored) await records.store(after);
      if (kind === 'renew') this.#lentUntilMs.set(machineId, this.#book.nowMs() + lenderShareMs(leaseMs));
      else if (!isStored) this.#note(peerId, kind === 'vote' ? 'lease.vote' : 'lease.hold', machineId, claim);
      if (after.toEnd) this.#o.onToTell();
      return { granted: true };
    });
  }

  /**
   * Whoever has its machine lent by this site, which may run it itself, is one who may speak of it; and what this site runs by a lower
   * claim is fenced before it lends what it runs. Throws REPLICATION_NOT_YOURS.
   */
  async #hear(machineId: string, claim: Claim): Promise<void> {
    const own = this.#book.standing(machineId)?.claim;
    const isKnown =
      this.#book.isParty(machineId) && this.#book.need(machineId).siteIds.includes(claim.siteId);
    if (own && isKnown && compareClaims(own, claim) >= 0) return;
    await this.#o.hear(machineId, claim);
  }

  #checkRoom(peerId: string): void {
    const count = this.#book.records.list().filter(({ siteIds }) => siteIds.includes(peerId)).length;
    if (count < VOTES_OF_A_PEER_MAX) return;
    throw controlFailure(
      'LEASE_REQUEST_INVALID',
      `this site is the witness of ${count} machines of one peer`,
    );
  }

  /** A site that may run the machine itself lends nothing of it while it wants it, or knows of more than whoever asks. */
  #ownRefusal(
    machineId: string,
    { kind, claim }: LeaseAsk,
    record: VoteRecord | undefined,
  ): Json | undefined {
    const known = (entitled: Claim) => ({ entitled, seen: record?.vote.seen ?? entitled });
    if (this.#book.isSought(machineId)) return refused('sought', known(claim), false);
    const tenure = this.#book.standing(machineId);
    if (!tenure) return undefined;
    // A witness that came to have the machine itself votes for nobody.
    const isOwn = kind === 'vote' && tenure.state === 'holds';
    if (!isOwn && compareClaims(tenure.claim, claim) <= 0) return undefined;
    return refused('superseded', known(tenure.claim), tenure.state !== 'cedes');
  }

  /**
   * Only who is entitled may say that there are no leases any more, and not while somebody wants the right, or has it by a higher claim. Or
   * the other site of the two: when whoever it is that holds the machine now has told it by which claim.
   */
  async #ended(peerId: string, record: VoteRecord, { claim, begunAtMs }: EndBody): Promise<Json> {
    const { machineId, vote } = record;
    const isVouched = claim.siteId !== peerId;
    const order = compareClaims(claim, vote.entitled);
    if (record.ended) {
      // What it knew of is at an end, and the machine may have been held elsewhere since.
      if (order > 0) await this.#book.records.store({ ...record, vote: afterEnding(vote, claim) });
      return { ended: true };
    }
    if (isVouched && order === 0) return { ended: true };
    // It comes late: whoever told it runs by others since, of which it has not spoken.
    if (compareClaims(claim, heldBy(vote)) === 0 && isBefore(begunAtMs, record.begunAtMs))
      return { ended: true };
    const own = this.#book.standing(machineId)?.claim;
    const isHigher = (known: Claim) => compareClaims(known, claim) > 0;
    // The other site is asked first, and refuses while it wants the machine or holds it: it lets go of what it has a vote for here.
    if (!isVouched && vote.before && isHigher(vote.entitled) && !isHigher(vote.before)) {
      await this.forget(machineId, { claim });
      return { ended: true };
    }
    if (own && isHigher(own)) return { ended: false, entitled: { ...own }, isHeld: true };
    // What is wanted here, or was voted for, and what this site was told before may come back when that is let go.
    const isSought = this.#book.isSought(machineId);
    if (isSought || isHigher(vote.entitled))
      return { ended: false, entitled: { ...vote.entitled }, isHeld: !isSought && !vote.before };
    await this.forget(machineId, { claim });
    return { ended: true };
  }

  #told(
    { machineId, claim }: ClaimBody,
    work: (record: VoteRecord, claim: Claim) => Promise<Json>,
  ): Promise<Json> {
    return this.#book.alone(machineId, async () => {
      const record = this.#book.records.get(machineId);
      if (!record) {
        // What could not be stored may be there all the same, and would be found by the next process.
        if (this.#book.records.isUnsure(machineId)) await this.#book.records.remove(machineId);
        return { ended: true };
      }
      return work(record, claim);
    });
  }

  /**
   * By one who is none of the two sites that are known. Of leases that are older than these there is nothing to end; by older ones than it
   * speaks of the two could still run the machine. Throws LEASE_NOT_YOURS, LEASE_PARTIES_DIFFER.
   */
  async #endedForeign(peerId: string, record: VoteRecord, claim: Claim): Promise<Json> {
    const { vote, ended } = record;
    if (!ended) throw compareClaims(claim, heldBy(vote)) > 0 ? notYours(record.machineId) : others(record);
    const isNews = ended && claim.siteId === peerId && compareClaims(claim, vote.entitled) > 0;
    if (isNews) await this.#book.records.store({ ...record, vote: afterForeignEnding(vote, claim) });
    return { ended: true };
  }

  #note(peerId: string, act: string, machineId: string, { epoch }: Claim): void {
    this.#o.audit.note({ actor: `peer:${peerId}`, act, subject: machineId, details: { epoch } });
  }
}

/**
 * Of a machine that was held here for good, whether its witness has heard that or not, it hears that its leases have ended: whoever said that
 * here may never come to say it there. Which leases those are is said with it, as others may have begun when it comes.
 */
function endOwed(
  { toTell, told, toEnd, witnessSiteId, begunAtMs }: VoteRecord,
  ended: Claim | undefined,
): Owed {
  const held = toTell ?? told;
  if (!held) return {};
  const claim = ended && compareClaims(ended, held) > 0 ? ended : held;
  return { toEnd: withEnd(toEnd, { siteId: witnessSiteId, claim, begunAtMs }) };
}

/** Whether leases of one home have begun before others of it, where both are known. */
function isBefore(begunAtMs: number | undefined, otherMs: number | undefined): boolean {
  return begunAtMs !== undefined && otherMs !== undefined && begunAtMs < otherMs;
}

function refused(
  why: 'sought' | 'superseded',
  { entitled, seen }: Pick<Vote, 'entitled' | 'seen'>,
  isHeld: boolean,
): Json {
  return { granted: false, why, entitled: { ...entitled }, seen: { ...seen }, isHeld, waitMs: 0 };
}

function wired(answer: { readonly granted: false; readonly entitled: Claim; readonly seen: Claim }) {
  return { ...answer, entitled: { ...answer.entitled }, seen: { ...answer.seen } };
}

/**
 * Who runs the machine may have chosen others: those who were before are refused from then on. A witness takes that from one of the sites
 * that it knows; one that may run the machine itself has looked before who may speak of it. Throws LEASE_NOT_YOURS, LEASE_PARTIES_DIFFER.
 */
function checkParties(
  record: VoteRecord,
  o: {
    readonly peerId: string;
    readonly ask: LeaseAsk;
    readonly isWitness: boolean;
    readonly isChanged: boolean;
  },
): void {
  const mayChange = o.ask.kind === 'renew' && compareClaims(o.ask.claim, record.vote.entitled) >= 0;
  const isKnown = record.siteIds.includes(o.peerId);
  if (!isKnown && (o.isWitness || !mayChange)) throw notYours(record.machineId);
  if (o.isChanged && !mayChange) throw others(record);
}

function others({ machineId, machineName }: VoteRecord) {
  const said = `other sites lend ${machineName}, as far as is known here`;
  return controlFailure('LEASE_PARTIES_DIFFER', said, { context: { machineId } });
}

function notYours(machineId: string) {
  const said = 'the leases of this machine are not this peer’s to speak of';
  return controlFailure('LEASE_NOT_YOURS', said, { context: { machineId } });
}

function invalid() {
  return controlFailure('LEASE_REQUEST_INVALID', 'what a peer asks of a lease does not fit together');
}
