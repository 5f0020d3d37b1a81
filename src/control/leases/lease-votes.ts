import type { Json } from '../../lib/canonical-json.ts';
import { type Clock, sleep, throwIfAborted } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import { KeyedMutex } from '../../lib/keyed-mutex.ts';
import type { Log } from '../../lib/log.ts';
import type { CallHandler, PeerClient } from '../../peer/index.ts';
import {
  afterAsking,
  afterLettingGo,
  type Claim,
  compareClaims,
  type LeaseAsk,
  lenderShareMs,
  type Tenure,
} from '../../recovery-point/index.ts';
import type { Replica } from '../../replica/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { VoteRecord, VoteRecords } from './lease-records.ts';
import {
  AskBody,
  askVoter,
  ClaimBody,
  checkedLease,
  type LeaseParties,
  type WireAnswer,
} from './lease-wire.ts';

export interface LeaseVotesTools {
  readonly siteId: string;
  readonly records: VoteRecords;
  /** Counts also while the host sleeps. */
  readonly bootClock: Clock;
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Pick<Audit, 'note'>;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  /** Where this site stands with the right to run a machine; undefined if it has nothing to do with it but its vote. */
  readonly standing: (machineId: string) => Tenure | undefined;
}

/** Two answers about one lease may differ by this much. */
const ROUNDING_MS = 250;
const CALL_LIMIT_MS = 5_000;
const TELL_AGAIN_AFTER_MS = 5_000;
const ASK_AGAIN_AFTER_MS = 500;

/**
 * The votes of this site: what it lends to those who run machines, and how it comes by the right to run one itself. docs/failover.md,
 * «Leases and a witness». What it has promised is durable before it says so; what it has lent is not: a site that starts counts
 * everything as lent just before.
 */
export class LeaseVotes {
  readonly #o: LeaseVotesTools;
  readonly #openedAtMs: number;
  readonly #lentUntilMs = new Map<string, number>();
  readonly #changing = new KeyedMutex();
  /** Machines that this site asks for at this moment, or has a vote for that it has not made use of: it lends nothing of them. */
  readonly #seeking = new Set<string>();
  readonly #stop = new AbortController();
  #telling: Promise<void> | undefined;

  constructor(o: LeaseVotesTools) {
    this.#o = o;
    this.#openedAtMs = o.bootClock.monotonicMs();
  }

  /** What an earlier process has left unsaid is said. */
  begin(): void {
    this.#tell();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#telling;
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return {
      'lease.ask': (peer, body) => this.#asked(peer.siteId, checkedLease(AskBody, body)),
      'lease.let-go': (peer, body) =>
        this.#told(peer.siteId, checkedLease(ClaimBody, body), async (record, claim) => {
          await this.#o.records.store({ ...record, vote: afterLettingGo(record.vote, claim) });
          return {};
        }),
      'lease.end': (peer, body) =>
        this.#told(peer.siteId, checkedLease(ClaimBody, body), (record, claim) => this.#ended(record, claim)),
    };
  }

  /** Only who is entitled may say that there are no leases any more, and not while somebody wants the right, or has it by a higher claim. */
  async #ended({ machineId, vote }: VoteRecord, claim: Claim): Promise<Json> {
    const own = this.#o.standing(machineId)?.claim;
    const higher = [vote.entitled, ...(own ? [own] : [])].find((known) => compareClaims(known, claim) > 0);
    const entitled = higher ?? (this.#seeking.has(machineId) ? vote.entitled : undefined);
    if (entitled) return { ended: false, entitled: { ...entitled } };
    await this.forget(machineId);
    return { ended: true };
  }

  /** No leases are known of the machine any more, and it is asked for by no votes. */
  async forget(machineId: string): Promise<void> {
    this.#lentUntilMs.delete(machineId);
    await this.#o.records.remove(machineId);
  }

  async #asked(peerId: string, body: AskBody): Promise<Json> {
    const { machineId, kind, claim, over, witnessSiteId } = body;
    const { siteId, records } = this.#o;
    const siteIds = body.siteIds.toSorted();
    const isWitness = siteId === witnessSiteId;
    const isMeant =
      siteIds.includes(peerId) && (isWitness ? !siteIds.includes(siteId) : siteIds.includes(siteId));
    const ask: LeaseAsk | undefined = kind === 'vote' ? over && { kind, claim, over } : { kind, claim };
    if (!isMeant || claim.siteId !== peerId || !ask || (!isWitness && kind !== 'renew')) throw invalid();
    return this.#alone(machineId, async () => {
      const record = records.get(machineId);
      if (record) checkParties(record, { siteIds, witnessSiteId, peerId, ask });
      // Nobody knows who runs it: nobody can say that it does not run.
      else if (kind === 'vote') throw unknown(machineId);
      const refusal = this.#ownRefusal(machineId, claim, record);
      if (refusal) return refusal;
      const waitMs = this.#lentForMs(machineId, record);
      const { vote, answer } = afterAsking(record?.vote, ask, waitMs > 0);
      if (!answer.granted) return { ...wired(answer), waitMs: Math.ceil(waitMs) };
      const { machineName, leaseMs } = body;
      const after = { ...record, machineId, machineName, leaseMs, siteIds, witnessSiteId, vote };
      if (JSON.stringify(after) !== JSON.stringify(record)) await records.store(after);
      if (kind === 'renew') this.#lentUntilMs.set(machineId, this.#nowMs() + lenderShareMs(leaseMs));
      else this.#note(peerId, kind === 'vote' ? 'lease.vote' : 'lease.hold', machineId, claim);
      return { granted: true };
    });
  }

  /** A site that may run the machine itself lends nothing of it while it wants it, or knows of more than whoever asks. */
  #ownRefusal(machineId: string, claim: Claim, record: VoteRecord | undefined): Json | undefined {
    const refused = (why: 'sought' | 'superseded', entitled: Claim, isHeld: boolean): Json => {
      const seen = record?.vote.seen ?? entitled;
      return { granted: false, why, entitled: { ...entitled }, seen: { ...seen }, isHeld, waitMs: 0 };
    };
    if (this.#seeking.has(machineId)) return refused('sought', claim, false);
    const tenure = this.#o.standing(machineId);
    if (!tenure || compareClaims(tenure.claim, claim) <= 0) return undefined;
    return refused('superseded', tenure.claim, tenure.state !== 'cedes');
  }

  /** How long something that was lent of a machine may still run. */
  #lentForMs(machineId: string, record: VoteRecord | undefined): number {
    if (record?.vote.term !== 'leased') return 0;
    const untilMs = this.#lentUntilMs.get(machineId) ?? this.#openedAtMs + lenderShareMs(record.leaseMs);
    return Math.max(0, untilMs - this.#nowMs());
  }

  #told(
    peerId: string,
    { machineId, claim }: ClaimBody,
    work: (record: VoteRecord, claim: Claim) => Promise<Json>,
  ): Promise<Json> {
    return this.#alone(machineId, async () => {
      const record = this.#o.records.get(machineId);
      if (!record) return { ended: true };
      if (!record.siteIds.includes(peerId) || claim.siteId !== peerId) throw notYours(machineId);
      return work(record, claim);
    });
  }

  /** Whether this site may ask for the right to run a machine by votes. */
  isParty(machineId: string): boolean {
    return this.#o.records.get(machineId)?.siteIds.includes(this.#o.siteId) ?? false;
  }

  /** The parties of a machine's leases, as this site knows them as one of them. Throws LEASE_UNKNOWN. */
  need(machineId: string): VoteRecord {
    const record = this.#o.records.get(machineId);
    if (record?.siteIds.includes(this.#o.siteId)) return record;
    throw unknown(machineId);
  }

  /**
   * The right to run a machine, without a person's word: when what this site has lent of it has run out, and the witness has found the
   * same. The caller makes durable that it holds the machine and says so by `held`, or else by `letGo`; until then nothing is lent of it.
   * Throws LEASE_UNKNOWN, LEASE_SOUGHT, LEASE_HELD, LEASE_WITNESS_SILENT; nothing is asked for any more then.
   */
  async seek(machineId: string, signal: AbortSignal): Promise<Claim> {
    const { machineName, leaseMs } = this.need(machineId);
    // Beside no answer of this site that lends the machine once more.
    await this.#alone(machineId, async () => {
      if (this.#seeking.has(machineId)) {
        throw controlFailure('LEASE_SOUGHT', `${machineName} is asked for already`, {
          context: { machineId },
        });
      }
      this.#seeking.add(machineId);
    });
    try {
      const own = this.#lentForMs(machineId, this.need(machineId));
      if (own > 0) await sleep(this.#o.bootClock, own, signal);
      const deadlineMs = this.#nowMs() + lenderShareMs(leaseMs) + CALL_LIMIT_MS;
      await this.#claimAnew(machineId);
      return await this.#voted(machineId, deadlineMs, signal);
    } catch (error) {
      this.#o.log.warn('lease.not-voted', { machine: machineName, error });
      this.letGo(machineId);
      throw error;
    }
  }

  /** What was asked for is not wanted any more: who held the machine may go on with it. */
  letGo(machineId: string): void {
    this.#seeking.delete(machineId);
    this.#tell();
  }

  /** A claim above all that is known, durable before anybody is asked: what was let go before may still be on its way. */
  #claimAnew(machineId: string): Promise<VoteRecord> {
    return this.#alone(machineId, async () => {
      const record = this.need(machineId);
      const known = [this.#overOf(machineId), record.vote.seen, ...(record.seeking ? [record.seeking] : [])];
      const epoch = Math.max(...known.map((claim) => claim.epoch)) + 1;
      return this.#o.records.store({ ...record, seeking: { epoch, siteId: this.#o.siteId } });
    });
  }

  #overOf(machineId: string): Claim {
    const over = this.#o.standing(machineId)?.claim;
    if (over) return over;
    throw controlFailure('LEASE_UNKNOWN', 'this site has no replica of the machine', {
      context: { machineId },
    });
  }

  async #voted(machineId: string, deadlineMs: number, signal: AbortSignal): Promise<Claim> {
    const { bootClock } = this.#o;
    let lentUntilMs = Number.POSITIVE_INFINITY;
    for (;;) {
      const { claim, answer } = await this.#askForVote(machineId, signal);
      throwIfAborted(signal);
      if (answer?.granted) return claim;
      const isOver = this.#nowMs() >= deadlineMs;
      const untilMs = answer?.why === 'lent' ? this.#nowMs() + answer.waitMs : Number.POSITIVE_INFINITY;
      // Lent anew since it was asked before: whoever runs the machine is alive.
      const isRenewed = untilMs < Number.POSITIVE_INFINITY && untilMs > lentUntilMs + ROUNDING_MS;
      lentUntilMs = untilMs;
      if (answer && (answer.why === 'superseded' || isRenewed || (answer.why === 'lent' && isOver))) {
        const said =
          answer.why === 'lent'
            ? 'the witness lends the machine to the site that runs it: it is not down'
            : `the machine is held by site ${answer.entitled.siteId}, in epoch ${answer.entitled.epoch}`;
        throw controlFailure('LEASE_HELD', said, { context: { machineId, siteId: answer.entitled.siteId } });
      }
      if (!answer && isOver) {
        throw controlFailure('LEASE_WITNESS_SILENT', 'the witness does not answer', {
          context: { machineId },
        });
      }
      await sleep(bootClock, ASK_AGAIN_AFTER_MS, signal);
    }
  }

  /** Asks the witness once. Of a claim that it has seen before, a higher one is asked for next. */
  async #askForVote(
    machineId: string,
    signal: AbortSignal,
  ): Promise<{ readonly claim: Claim; readonly answer: WireAnswer | undefined }> {
    const { records, siteId, client } = this.#o;
    const record = this.need(machineId);
    const claim = record.seeking!;
    const ask = { kind: 'vote', claim, over: this.#overOf(machineId) } as const;
    let answer: WireAnswer;
    try {
      const o = { timeoutMs: CALL_LIMIT_MS, signal };
      answer = await askVoter(client(record.witnessSiteId), record, ask, o);
    } catch (error) {
      throwIfAborted(signal);
      if (!isFailure(error) || error.code.startsWith('LEASE_')) throw error;
      return { claim, answer: undefined };
    }
    if (!answer.granted && answer.why === 'spent') {
      const higher = { epoch: Math.max(answer.seen.epoch, claim.epoch) + 1, siteId };
      await this.#alone(machineId, () => records.store({ ...this.need(machineId), seeking: higher }));
    }
    return { claim, answer };
  }

  /**
   * This site holds a machine for good, by votes or by a person's word, if it does: the witness hears of it, now or as soon as it
   * answers. May be called after every act that could have brought it here.
   */
  async held({ record: { machineId, adopted } }: Pick<Replica, 'record'>): Promise<void> {
    // A machine that is at home here says so by asking for its leases.
    if (adopted !== undefined) return;
    await this.#alone(machineId, async () => {
      const { records, siteId } = this.#o;
      const record = records.list().find((one) => one.machineId === machineId);
      const tenure = this.#o.standing(machineId);
      if (!record?.siteIds.includes(siteId) || tenure?.state !== 'holds') return;
      const isKnown = [record.told, record.toTell].some(
        (claim) => claim && compareClaims(claim, tenure.claim) === 0,
      );
      if (isKnown) return;
      await this.holdForGood(record, tenure.claim);
    });
    this.#tell();
  }

  /** Durable on return, and told from then on: by `claim` the machine is held here, whatever was lent. */
  async holdForGood(parties: LeaseParties, claim: Claim): Promise<void> {
    const { machineId, machineName, leaseMs, siteIds, witnessSiteId } = parties;
    const vote = this.#o.records.get(machineId)?.vote ?? {
      entitled: claim,
      seen: claim,
      term: 'for-good' as const,
    };
    const after = { machineId, machineName, leaseMs, siteIds, witnessSiteId, vote, toTell: claim };
    await this.#o.records.store(after);
    this.#seeking.delete(machineId);
    this.#tell();
  }

  /** Tells witnesses what they have to know, again and again until they have heard it. */
  #tell(): void {
    this.#telling ??= this.#keepTelling().finally(() => {
      this.#telling = undefined;
    });
  }

  async #keepTelling(): Promise<void> {
    const { clock, log } = this.#o;
    const { signal } = this.#stop;
    for (;;) {
      const open = this.#untold();
      if (open.length === 0 || signal.aborted) return;
      const heard = await Promise.all(
        open.map(async (record) => {
          try {
            await this.#tellOne(record, signal);
            return true;
          } catch (error) {
            if (!signal.aborted) log.warn('lease.not-told', { machine: record.machineName, error });
            return false;
          }
        }),
      );
      if (heard.every(Boolean)) continue;
      try {
        await sleep(clock, TELL_AGAIN_AFTER_MS, signal);
      } catch {
        return; // The site closes; the next process tells.
      }
    }
  }

  #untold(): VoteRecord[] {
    return this.#o.records
      .list()
      .filter(({ machineId, seeking, toTell }) => toTell || (seeking && !this.#seeking.has(machineId)));
  }

  /** What an earlier process has asked for, and got, is not let go. */
  #isHeldBy(machineId: string, claim: Claim): boolean {
    const tenure = this.#o.standing(machineId);
    return tenure?.state === 'holds' && compareClaims(tenure.claim, claim) >= 0;
  }

  async #tellOne(
    { machineId, machineName, toTell, seeking }: VoteRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const { records, client } = this.#o;
    const parties = this.need(machineId);
    const o = { timeoutMs: CALL_LIMIT_MS, signal };
    const witness = client(parties.witnessSiteId);
    if (!toTell && this.#isHeldBy(machineId, seeking!)) {
      await this.#alone(machineId, () => this.holdForGood(this.need(machineId), this.#overOf(machineId)));
      return;
    }
    const claim = toTell ?? seeking!;
    if (toTell) await askVoter(witness, { ...parties, machineName }, { kind: 'hold', claim }, o);
    else await witness.call('lease.let-go', { machineId, claim: { ...claim } }, o);
    await this.#alone(machineId, async () => {
      const { toTell: told, seeking: sought, ...others } = this.need(machineId);
      const isTold = told && compareClaims(told, claim) === 0;
      const isLetGo = sought && compareClaims(sought, claim) === 0 && !this.#seeking.has(machineId);
      await records.store({
        ...others,
        ...(told && !isTold ? { toTell: told } : {}),
        ...(isTold ? { told } : {}),
        ...(sought && !isLetGo ? { seeking: sought } : {}),
      });
    });
  }

  #note(peerId: string, act: string, machineId: string, { epoch }: Claim): void {
    this.#o.audit.note({ actor: `peer:${peerId}`, act, subject: machineId, details: { epoch } });
  }

  #alone<T>(machineId: string, work: () => Promise<T>): Promise<T> {
    return this.#changing.run(machineId, work);
  }

  #nowMs(): number {
    return this.#o.bootClock.monotonicMs();
  }
}

function wired(answer: { readonly granted: false; readonly entitled: Claim; readonly seen: Claim }) {
  return { ...answer, entitled: { ...answer.entitled }, seen: { ...answer.seen } };
}

function checkParties(
  record: VoteRecord,
  o: {
    readonly siteIds: readonly string[];
    readonly witnessSiteId: string;
    readonly peerId: string;
    readonly ask: LeaseAsk;
  },
): void {
  const isSame =
    record.witnessSiteId === o.witnessSiteId &&
    record.siteIds.every((siteId, index) => siteId === o.siteIds[index]);
  if (!record.siteIds.includes(o.peerId)) throw notYours(record.machineId);
  // Who runs the machine may have chosen others: those who were before are refused from then on.
  const mayChange = o.ask.kind === 'renew' && compareClaims(o.ask.claim, record.vote.entitled) >= 0;
  if (isSame || mayChange) return;
  const said = `other sites lend ${record.machineName}, as far as is known here`;
  throw controlFailure('LEASE_PARTIES_DIFFER', said, { context: { machineId: record.machineId } });
}

function notYours(machineId: string) {
  const said = 'the leases of this machine are not this peer’s to speak of';
  return controlFailure('LEASE_NOT_YOURS', said, { context: { machineId } });
}

function unknown(machineId: string) {
  const said = 'this site knows of no leases of the machine';
  return controlFailure('LEASE_UNKNOWN', said, { context: { machineId } });
}

function invalid() {
  return controlFailure('LEASE_REQUEST_INVALID', 'what a peer asks of a lease does not fit together');
}
