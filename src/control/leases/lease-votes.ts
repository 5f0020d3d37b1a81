import type { CallHandler } from '../../peer/index.ts';
import { type Claim, compareClaims } from '../../recovery-point/index.ts';
import type { Replica } from '../../replica/index.ts';
import type { Audit } from '../base/audit.ts';
import { LeaseLender } from './lease-lender.ts';
import type { VoteRecord } from './lease-records.ts';
import { LeaseSeeker } from './lease-seeker.ts';
import { LeaseTeller, type LeaseTellerTools } from './lease-teller.ts';
import type { LeaseParties } from './lease-wire.ts';
import { VoteBook, type VoteBookTools } from './vote-book.ts';

export interface LeaseVotesTools extends VoteBookTools, Omit<LeaseTellerTools, 'book' | 'holdForGood'> {
  readonly audit: Pick<Audit, 'note'>;
}

/**
 * The votes of this site: what it lends to those who run machines, and how it comes by the right to run one itself. docs/failover.md,
 * «Leases and a witness». What it has promised is durable before it says so; what it has lent is not: a site that starts counts
 * everything as lent just before.
 */
export class LeaseVotes {
  readonly #book: VoteBook;
  readonly #lender: LeaseLender;
  readonly #seeker: LeaseSeeker;
  readonly #teller: LeaseTeller;

  constructor(o: LeaseVotesTools) {
    const book = new VoteBook(o);
    const lender = new LeaseLender(book, o.audit);
    this.#book = book;
    this.#lender = lender;
    this.#seeker = new LeaseSeeker({
      ...{ ...o, book },
      lentForMs: (...about) => lender.lentForMs(...about),
      letGo: (machineId) => this.letGo(machineId),
    });
    this.#teller = new LeaseTeller({ ...o, book, holdForGood: (...about) => this.holdForGood(...about) });
  }

  /** What an earlier process has left unsaid is said. */
  begin(): void {
    this.#teller.tell();
  }

  close(): Promise<void> {
    return this.#teller.close();
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return this.#lender.calls;
  }

  /** No leases are known of the machine any more, and it is asked for by no votes. */
  forget(machineId: string): Promise<void> {
    return this.#lender.forget(machineId);
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

  /** What was asked for is not wanted any more: who held the machine may go on with it. */
  letGo(machineId: string): void {
    this.#book.endSeeking(machineId);
    this.#teller.tell();
  }

  /**
   * This site holds a machine for good, by votes or by a person's word, if it does: the witness hears of it, now or as soon as it
   * answers. May be called after every act that could have brought it here.
   */
  async held({ record: { machineId, adopted } }: Pick<Replica, 'record'>): Promise<void> {
    // A machine that is at home here says so by asking for its leases.
    if (adopted !== undefined) return;
    await this.#book.alone(machineId, async () => {
      const { records, siteId, standing } = this.#book;
      const record = records.list().find((one) => one.machineId === machineId);
      const tenure = standing(machineId);
      if (!record?.siteIds.includes(siteId) || tenure?.state !== 'holds') return;
      const isKnown = [record.told, record.toTell].some(
        (claim) => claim && compareClaims(claim, tenure.claim) === 0,
      );
      if (isKnown) return;
      await this.holdForGood(record, tenure.claim);
    });
    this.#teller.tell();
  }

  /** Durable on return, and told from then on: by `claim` the machine is held here, whatever was lent. */
  async holdForGood(parties: LeaseParties, claim: Claim): Promise<void> {
    const { machineId, machineName, leaseMs, siteIds, witnessSiteId } = parties;
    const vote = this.#book.records.get(machineId)?.vote ?? {
      entitled: claim,
      seen: claim,
      term: 'for-good' as const,
    };
    const after = { machineId, machineName, leaseMs, siteIds, witnessSiteId, vote, toTell: claim };
    await this.#book.records.store(after);
    this.#book.endSeeking(machineId);
    this.#teller.tell();
  }
}
