import type { CallHandler } from '../../peer/index.ts';
import { type Claim, compareClaims, heldBy, type Tenure } from '../../recovery-point/index.ts';
import type { Audit } from '../base/audit.ts';
import { Rounds } from '../base/rounds.ts';
import { controlFailure } from '../errors.ts';
import { LeaseLender } from './lease-lender.ts';
import { owedBy, sitesOf, type VoteRecord, withEnd } from './lease-records.ts';
import { LeaseSeeker } from './lease-seeker.ts';
import { LeaseTeller, type LeaseTellerTools } from './lease-teller.ts';
import type { LeaseParties } from './lease-wire.ts';
import { VoteBook, type VoteBookTools } from './vote-book.ts';

/** A witness whose record was lost, or is an older one, knows again after this time who holds a machine. */
const TELL_AGAIN_EVERY_MS = 5 * 60_000;
const NOTE_AGAIN_AFTER_MS = 5_000;

export interface LeaseVotesTools extends VoteBookTools, Omit<LeaseTellerTools, 'book' | 'holdForGood'> {
  readonly audit: Pick<Audit, 'note'>;
}

/**
 * The votes of this site: what it lends to those who run machines, and how it comes by the right to run one itself. docs/failover.md,
 * «Leases and a witness». What it has promised is durable before it says so; what it has lent is not: a site that starts counts
 * everything as lent just before.
 */
export class LeaseVotes {
  readonly #o: LeaseVotesTools;
  readonly #book: VoteBook;
  readonly #lender: LeaseLender;
  readonly #seeker: LeaseSeeker;
  readonly #teller: LeaseTeller;
  #rounds: Rounds | undefined;
  #isClosed = false;
  /** Machines that are looked at again soon. */
  readonly #toNote = new Set<string>();

  constructor(o: LeaseVotesTools) {
    const book = new VoteBook(o);
    const lender = new LeaseLender({
      ...{ ...o, book },
      onToTell: () => this.#teller.tell(),
      left: (...about) => this.#teller.left(...about),
    });
    this.#o = o;
    this.#book = book;
    this.#lender = lender;
    this.#seeker = new LeaseSeeker({
      ...{ ...o, book },
      lentForMs: (...about) => lender.lentForMs(...about),
      letGo: (machineId) => this.letGo(machineId),
    });
    this.#teller = new LeaseTeller({ ...o, book, holdForGood: (...about) => this.#holdForGood(...about) });
  }

  /** What earlier processes have left unsaid is said, and what is held for good is said again and again. */
  begin(): void {
    this.#teller.tell();
    this.#rounds = new Rounds({
      ...{ clock: this.#o.clock, everyMs: TELL_AGAIN_EVERY_MS },
      round: async () => {
        const machineIds = this.#book.records.list().map(({ machineId }) => machineId);
        for (const machineId of machineIds) await this.held(machineId);
        this.#teller.tellAgain(machineIds.filter((machineId) => !this.#o.leaseOf(machineId)));
      },
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#rounds?.close();
    await this.#teller.close();
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return this.#lender.calls;
  }

  /**
   * The leases of a machine that is at home here are to end. Durable on return; their witness is told as soon as the machine runs by none,
   * again and again until it has heard, and nothing else is known of them here.
   */
  async endsSoon(parties: LeaseParties, claim: Claim): Promise<void> {
    const { machineId, machineName, leaseMs, siteIds, witnessSiteId, begunAtMs } = parties;
    await this.#book.alone(machineId, async () => {
      const known = this.#book.records.get(machineId);
      const vote = known?.vote ?? { entitled: claim, seen: claim, term: 'for-good' as const };
      // The other site has heard it.
      const owed = owedBy(known, parties, sitesOf(parties));
      await this.#book.records.store({
        ...{ machineId, machineName, leaseMs, siteIds, witnessSiteId, vote, ended: true },
        ...(known?.seeking ? { seeking: known.seeking } : {}),
        ...owed,
        toEnd: withEnd(owed.toEnd, { siteId: witnessSiteId, claim, begunAtMs }),
      });
    });
  }

  /** The machine runs by these leases from now on: of others this site knows nothing but what their witnesses must still hear. */
  begun(parties: LeaseParties): Promise<void> {
    const { machineId } = parties;
    return this.#book.alone(machineId, () => this.#lender.forget(machineId, { begun: parties }));
  }

  /** What this site knows as the witness of a machine, by whose name or id it is meant. Throws LEASE_UNKNOWN, LEASE_AMBIGUOUS. */
  witnessed(reference: string): VoteRecord {
    const { records, siteId } = this.#book;
    const [record, ...others] = records
      .list()
      .filter(({ witnessSiteId, ended, vote }) => witnessSiteId === siteId && (!ended || vote.before))
      .filter(({ machineId, machineName }) => [machineId, machineName].includes(reference));
    if (!record)
      throw controlFailure('LEASE_UNKNOWN', `this site is the witness of no machine «${reference}»`);
    if (others.length === 0) return record;
    const all = [record, ...others].map(standingText).join('; ');
    throw controlFailure('LEASE_AMBIGUOUS', `${others.length + 1} machines are called ${reference}: ${all}`);
  }

  /**
   * Durable on return; from then on nobody gets its vote, until somebody has had the machine lent by it, and that is nobody by a claim below
   * the one that was known to be held: of a vote that was not used that is the one before it. Throws LEASE_LENT.
   */
  forgetWitnessed(machineId: string): Promise<void> {
    return this.#book.alone(machineId, async () => {
      const record = this.#book.records.get(machineId);
      const waitMs = this.#lender.lentForMs(machineId, record);
      if (!record || waitMs === 0)
        return this.#lender.forget(machineId, record && { claim: heldBy(record.vote) });
      const said = `${record.machineName} is lent by this site for ${Math.ceil(waitMs / 1000)} s more`;
      throw controlFailure('LEASE_LENT', said, { context: { machineId } });
    });
  }

  /** Something is to be told, or may be. */
  tell(): void {
    this.#teller.tell();
  }

  /** Whether this site may ask for the right to run a machine by votes. */
  isParty(machineId: string): boolean {
    return this.#book.isParty(machineId);
  }

  /** The parties of a machine's leases, as this site knows them as one of them. Throws LEASE_UNKNOWN. */
  need(machineId: string): VoteRecord {
    return this.#book.need(machineId);
  }

  /**
   * The right to run a machine, without a person's word: when what this site has lent of it has run out, and the witness has found the
   * same. The caller makes durable that it holds the machine and says so by `held`, or else by `letGo`; until then nothing is lent of it.
   * Throws LEASE_UNKNOWN, LEASE_SOUGHT, LEASE_HELD, LEASE_WITNESS_SILENT; nothing is asked for any more then.
   */
  seek(machineId: string, signal: AbortSignal): Promise<Claim> {
    return this.#seeker.seek(machineId, signal);
  }

  /**
   * The witness hears that this site holds the machine by `claim`, and knows of no higher one; one that it knows is heard here. The claim
   * is durable. Throws LEASE_UNKNOWN, LEASE_HELD, LEASE_WITNESS_SILENT.
   */
  confirm(machineId: string, claim: Claim, signal: AbortSignal): Promise<void> {
    return this.#seeker.confirm(machineId, claim, signal);
  }

  /** What was asked for is not wanted any more: who held the machine may go on with it, as soon as `makeSure` has worked. */
  letGo(machineId: string, makeSure?: () => Promise<void>): void {
    if (makeSure) {
      this.#teller.letGo(machineId, makeSure);
      return;
    }
    this.#book.endSeeking(machineId);
    this.#teller.tell();
  }

  /**
   * This site holds a machine for good, by votes or by a person's word, if it does: the witness hears of it, now or as soon as it
   * answers. May be called after every act that could have brought it here. What cannot be noted is noted by the next call, of which there
   * are some by themselves; the first comes soon. Never rejects.
   */
  async held(machineId: string): Promise<void> {
    try {
      await this.#book.alone(machineId, () => this.#noteHeld(machineId));
    } catch (error) {
      this.#o.log.error('lease.hold-not-noted', { machineId, error });
      this.#noteAgain(machineId);
    }
    this.#teller.tell();
  }

  /** Once, however many have failed. */
  #noteAgain(machineId: string): void {
    if (this.#toNote.has(machineId)) return;
    this.#toNote.add(machineId);
    this.#o.clock.after(NOTE_AGAIN_AFTER_MS, () => {
      this.#toNote.delete(machineId);
      if (!this.#isClosed) void this.held(machineId);
    });
  }

  async #noteHeld(machineId: string): Promise<void> {
    const { standing, settle } = this.#book;
    if (!this.#book.isParty(machineId) || this.#o.leaseOf(machineId)) return;
    await settle(machineId);
    const record = this.#book.need(machineId);
    const held = heldHere(standing(machineId), record);
    const isKnown = [record.told, record.toTell].some(
      (claim) => claim && held && !compareClaims(claim, held),
    );
    if (held && !isKnown) await this.#holdForGood(record, held);
  }

  /**
   * Durable on return, and told from then on: by `claim` the machine is held here, whatever was lent, and leases of it, if there were any,
   * are no more. The other of the two sites hears that as well: it asks the witness for nothing from then on, and that hears that they have ended.
   */
  holdForGood(parties: LeaseParties, claim: Claim, otherSiteId: string): Promise<void> {
    return this.#book.alone(parties.machineId, () => this.#holdForGood(parties, claim, otherSiteId));
  }

  async #holdForGood(parties: LeaseParties, claim: Claim, otherSiteId?: string): Promise<void> {
    const { machineId, machineName, leaseMs, siteIds, witnessSiteId } = parties;
    const known = this.#book.records.get(machineId);
    const vote = known?.vote ?? { entitled: claim, seen: claim, term: 'for-good' as const };
    // What was asked for by a higher claim, and is not wanted any more, is still to be let go of.
    const isAbove = known?.seeking && compareClaims(known.seeking, claim) > 0;
    const owed = owedBy(known, parties);
    const end = otherSiteId && { siteId: otherSiteId, claim, begunAtMs: parties.begunAtMs, witnessSiteId };
    // A home says itself which leases are its own; of those that were lent here it must stay known for what their witness is to hear.
    const lent = otherSiteId === undefined && known?.begunAtMs !== undefined;
    const after = {
      ...{ machineId, machineName, leaseMs, siteIds, witnessSiteId, vote, toTell: claim },
      ...(lent ? { begunAtMs: known.begunAtMs } : {}),
      ...owed,
      ...(end ? { toEnd: withEnd(owed.toEnd, end) } : {}),
      ...(isAbove ? { seeking: known.seeking } : {}),
    };
    this.#teller.left(machineId, after);
    await this.#book.records.store(after);
    this.#book.endSeeking(machineId);
    this.#teller.tell();
  }
}

/**
 * By which claim its witness must hear that a site holds, or held, a machine, whoever does by now: of one that this site lost before it had
 * lent it to anybody else, nothing may have been noted yet.
 */
function heldHere(tenure: Tenure | undefined, { vote }: VoteRecord): Claim | undefined {
  if (tenure?.state === 'holds' || tenure?.state === 'cedes') return tenure.claim;
  const isNews = tenure?.state === 'fenced' && compareClaims(tenure.lost, vote.entitled) > 0;
  return isNews ? tenure.lost : undefined;
}

function standingText({ machineId, siteIds, ended, vote: { entitled, term, before } }: VoteRecord): string {
  const how = term === 'leased' ? 'by leases' : before ? 'by a vote' : 'for good';
  const { epoch, siteId } = entitled;
  // Which of those that have ended is told at all is by the word of that site alone.
  if (ended)
    return `${machineId}, whose leases have ended, held by ${siteId} in epoch ${epoch}, as that says`;
  return `${machineId} of the sites ${siteIds.join(' and ')}, held by ${siteId} ${how} in epoch ${epoch}`;
}
