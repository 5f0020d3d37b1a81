import type { Clock } from '../lib/clock.ts';
import { type Failure, isFailure } from '../lib/errors.ts';
import type { KeptRecord } from '../lib/kept-record.ts';
import {
  afterCeding,
  afterSeizing,
  afterSettingApart,
  type Claim,
  compareClaims,
  type LeaseTerms,
  type Tenure,
  withdrawalOf,
} from '../recovery-point/index.ts';
import { happened } from './chain.ts';
import type { Deliveries } from './deliveries.ts';
import { diverging } from './diverged.ts';
import { replicationFailure } from './errors.ts';
import { checkHealthy, type MachinePresence } from './machine-presence.ts';
import type { MachineProcess } from './machine-process.ts';
import { checkHeld, havingHeard, standingAs, superseding, tenureOf, untoldOf } from './machine-tenure.ts';
import type { ProtectedChain } from './protected-chain.ts';
import type { MachineRecord } from './records.ts';
import type { Cession, ReplicationTarget, RightsTarget } from './target.ts';

interface Ground {
  readonly chain: Pick<ProtectedChain, 'cuts'>;
  readonly process: Pick<MachineProcess, 'tell'>;
  readonly deliveries: Pick<Deliveries, 'need' | 'progress'>;
  readonly kept: KeptRecord<MachineRecord>;
}

export interface RightGround {
  /** This site. */
  readonly siteId: string;
  readonly ground: () => Ground;
  /** Work beside no other change of the machine. */
  readonly alone: <T>(work: () => Promise<T>) => Promise<T>;
  /** No other work is done to it any more. */
  readonly close: (reason: Failure) => void;
  readonly attach: () => Promise<MachinePresence>;
  readonly hasUncutChanges: () => Promise<boolean>;
  readonly clock: Pick<Clock, 'wallMs'>;
}

const OFFER_HINT =
  'It has run since it was offered, and is not offered so any more. Take it back (`warmsite failover withdraw`), and hand it over again.';

/**
 * The right of this site to run one machine, and the acts that change it: docs/failover.md. Each is durable on return, and whoever
 * listens to the machine hears WARMSITE_TENURE.
 */
export class MachineRight {
  readonly #o: RightGround;
  /** The epoch of the offer that the other site has answered. */
  #toldEpoch: number | undefined;
  /** The epoch of the offer of which this process knows that the machine stands still for it. */
  #stillEpoch: number | undefined;

  constructor(o: RightGround) {
    this.#o = o;
  }

  get #record(): MachineRecord {
    return this.#o.ground().kept.now;
  }

  /** What counts although it could not be stored is durable on return: nothing is done upon it, and nobody told of it, before. */
  async settle(): Promise<void> {
    if (this.#o.ground().kept.isUnsettled) await this.#alone(async () => undefined);
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#o.alone(async () => {
      await this.#o.ground().kept.settle();
      return work();
    });
  }

  /**
   * Does what makes the machine none of this site's, beside no other change of it and of this right. Once that is done, whoever waits to
   * change it, or has still to come, hears `gone`; if it throws, the machine is what it was.
   */
  letGo(gone: Failure, work: () => Promise<void>): Promise<void> {
    return this.#alone(async () => {
      await work();
      this.#o.close(gone);
    });
  }

  get tenure(): Tenure {
    return tenureOf(this.#record, this.#o.siteId);
  }

  /**
   * Offers the right to another site. The machine is off, and that site has acknowledged its last state; from here on it does not run
   * here. Doing it again changes nothing. Throws PROTECTION_NOT_STILL, PROTECTION_CEDED, PROTECTION_FENCED, PROTECTION_LEASED,
   * PROTECTION_TARGET_UNKNOWN.
   */
  cede(siteId: string): Promise<Cession> {
    return this.#alone(async () => {
      const before = this.tenure;
      if (before.state !== 'cedes' || before.offer.siteId !== siteId) {
        checkHeld(this.#record);
        this.checkParty(siteId);
        await this.#checkStill(siteId);
        const after = afterCeding(this.tenure, siteId)!;
        await this.#store(standingAs(this.#record, after));
        this.#stillEpoch = after.claim.epoch + 1;
      }
      return this.#cession(siteId);
    });
  }

  /**
   * The other site that its leases name may still get it by the witness's vote; a third one would run it beside that. Throws
   * PROTECTION_LEASED.
   */
  checkParty(siteId: string): void {
    const { name, lease } = this.#record;
    if (!lease || lease.recoverySiteId === siteId) return;
    const said = `${name} runs by leases, and site ${siteId} has no part in them`;
    throw replicationFailure('PROTECTION_LEASED', said, { context: { siteId: lease.recoverySiteId } });
  }

  #cession(siteId: string): Cession {
    const { deliveries } = this.#o.ground();
    const { tenure } = this;
    if (tenure.state !== 'cedes' || tenure.offer.siteId !== siteId) {
      throw replicationFailure(
        'PROTECTION_NOT_CEDED',
        `${this.#record.name} is not offered to site ${siteId}`,
      );
    }
    const { pointId, sequence } = deliveries.need(siteId).record.acknowledged!;
    return { claim: tenure.claim, offer: tenure.offer, pointId, sequence };
  }

  /** Tells a target of the offer that was made to it, if there is one, and hears what it says to that. To be called again and again. */
  async offerTo(target: ReplicationTarget, signal?: AbortSignal): Promise<void> {
    const { tenure } = this;
    if (tenure.state !== 'cedes' || tenure.offer.siteId !== target.siteId || !target.rights) return;
    await this.#checkStillOffered(target.siteId, tenure.offer.epoch);
    const { machineId } = this.#record;
    const { claim } = await target.rights.offer(machineId, this.#cession(target.siteId), signal);
    const isNews = this.#toldEpoch !== tenure.offer.epoch;
    this.#toldEpoch = tenure.offer.epoch;
    await this.hear(claim);
    if (isNews) this.#tell();
  }

  /**
   * Looks once at a machine whose offer another process has made, or one that could not store it at first: it may have run since. Throws
   * PROTECTION_NOT_STILL.
   */
  async #checkStillOffered(siteId: string, epoch: number): Promise<void> {
    await this.settle();
    if (this.#stillEpoch === epoch) return;
    await this.#alone(() => this.#checkStill(siteId, OFFER_HINT));
    this.#stillEpoch = epoch;
  }

  /** Whether the site that the machine is offered to has answered. */
  get isTold(): boolean {
    const { tenure } = this;
    return tenure.state === 'cedes' && tenure.offer.epoch === this.#toldEpoch;
  }

  /** Until the returned function is called the target gets its copies as they come, however far apart it wants them. */
  hurry(siteId: string): () => void {
    const delivery = this.#o.ground().deliveries.need(siteId);
    delivery.isHurried = true;
    return () => {
      delivery.isHurried = false;
    };
  }

  async #checkStill(siteId: string, hint?: string): Promise<void> {
    const { deliveries, chain } = this.#o.ground();
    const presence = await this.#o.attach();
    const { name } = this.#record;
    checkHealthy(this.#record, presence);
    if (presence.state !== 'stopped') throw notStill(`${name} runs`, hint);
    if (await this.#o.hasUncutChanges()) throw notStill(`not all that ${name} has written is copied`, hint);
    const { acknowledged, seed } = deliveries.need(siteId).record;
    const last = happened(chain.cuts).at(-1)?.ordinal ?? 0;
    if (!acknowledged || acknowledged.ordinal < last || seed)
      throw notStill(`site ${siteId} does not have the last state of ${name}`, hint);
  }

  /**
   * What takes back the present offer, or what another site has brought up and given up, and the site to ask for that. Throws
   * PROTECTION_NOT_CEDED.
   */
  withdrawal(): { readonly withdrawal: Claim; readonly siteId: string } {
    const { tenure } = this;
    const withdrawal = withdrawalOf(tenure, this.#o.siteId);
    if (!withdrawal) throw notCeded(this.#record.name);
    return { withdrawal, siteId: (tenure.state === 'cedes' ? tenure.offer : tenure.claim).siteId };
  }

  /** Another site has told of a claim. Returns where this one stands now. */
  hear(claim: Claim): Promise<Tenure> {
    return this.#alone(async () => {
      const before = this.#record;
      const after = havingHeard(before, this.#o.siteId, claim);
      const { progress } = this.#o.ground().deliveries;
      if (after !== before) await this.#store(diverging(before, after, progress, this.#o.clock));
      return this.tenure;
    });
  }

  /**
   * Takes the right back without asking the site that it was offered to, or that has taken it: on the word of a person that it is down.
   * Throws PROTECTION_NOT_CEDED.
   */
  seizeBack(): Promise<Tenure> {
    return this.#alone(async () => {
      const before = this.tenure;
      const seized = afterSeizing(before, this.#o.siteId);
      if (!seized) throw notCeded(this.#record.name);
      const { siteId } = before.state === 'cedes' ? before.offer : before.claim;
      await this.#store(superseding(standingAs(this.#record, seized), siteId));
      return this.tenure;
    });
  }

  /** Sites that have not answered yet to the claim, above theirs, by which the machine is held here. */
  get untold(): readonly string[] {
    return this.tenure.state === 'holds' ? untoldOf(this.#record) : [];
  }

  /**
   * Tells a site by which claim the machine is held here, and hears what it says to that. Whether it knows of that claim now, or of a
   * higher one; to be called again until then.
   */
  async tellSuperseded(target: ReplicationTarget, signal?: AbortSignal): Promise<boolean> {
    const { siteId } = target;
    await this.settle();
    const held = this.tenure.claim;
    if (!target.rights || !this.untold.includes(siteId)) return true;
    const answered = await this.#askedOf(target.rights, held, signal);
    if (answered) await this.hear(answered);
    const isTold = !answered || compareClaims(answered, held) >= 0;
    if (isTold) {
      await this.#alone(async () => {
        // Of what it has heard a later claim is none.
        if (compareClaims(this.tenure.claim, answered ?? held) <= 0)
          await this.#o.ground().kept.store(superseding(this.#record, siteId, { told: true }));
      });
    }
    return isTold;
  }

  /** Undefined: that site has nothing of the machine, and runs nothing of it. */
  async #askedOf(rights: RightsTarget, held: Claim, signal?: AbortSignal): Promise<Claim | undefined> {
    try {
      return (await rights.claim(this.#record.machineId, held, signal)).claim;
    } catch (error) {
      if (isFailure(error, 'REPLICA_UNKNOWN')) return undefined;
      throw error;
    }
  }

  /** The machine has ended here, and what it wrote under the lost claim stays as it is: this site follows. */
  setApart(): Promise<void> {
    return this.#alone(async () => {
      const before = this.tenure;
      const after = afterSettingApart(before);
      if (after !== before) await this.#store(standingAs(this.#record, after));
    });
  }

  /** From the next start of the machine on it runs by leases, or by none; what becomes of a guest that runs is the caller's to see to. */
  runBy(lease: LeaseTerms | undefined): Promise<void> {
    return this.#alone(async () => {
      const { lease: _before, ...record } = this.#record;
      await this.#store(lease ? { ...record, lease } : record);
    });
  }

  async #store(record: MachineRecord): Promise<void> {
    try {
      await this.#o.ground().kept.decide(record);
    } finally {
      // Also of what counts although it could not be stored.
      this.#tell();
    }
  }

  #tell(): void {
    this.#o.ground().process.tell({ name: 'WARMSITE_TENURE', data: {} });
  }
}

function notCeded(name: string) {
  return replicationFailure('PROTECTION_NOT_CEDED', `${name} is offered to nobody`);
}

function notStill(message: string, hint?: string) {
  return replicationFailure('PROTECTION_NOT_STILL', message, hint === undefined ? {} : { hint });
}
