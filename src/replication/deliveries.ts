import { throwIfAborted } from '../lib/clock.ts';
import { happened } from './chain.ts';
import { type Delivered, Delivery, type DeliveryGround } from './delivery.ts';
import { replicationFailure } from './errors.ts';
import { cutsToMerge, type TargetPlace } from './places.ts';
import type { CutRecord, Protection, TargetRecord } from './records.ts';
import type { SendProgress } from './send-session.ts';
import { targetsOf } from './targets.ts';

/** How far one target of a machine is. */
export interface TargetProgress {
  readonly siteId: string;
  readonly record: TargetRecord;
  /** Cuts that it has not acknowledged. */
  readonly unsent: readonly CutRecord[];
  /** The delta that is being sent to it right now. */
  readonly sending: SendProgress | undefined;
}

/** The deliveries of one machine, by target; none while it is not protected. */
export class Deliveries {
  readonly #ground: DeliveryGround;
  readonly #bySite = new Map<string, Delivery>();

  private constructor(ground: DeliveryGround) {
    this.#ground = ground;
  }

  static async open(ground: DeliveryGround, protection: Protection | null): Promise<Deliveries> {
    const deliveries = new Deliveries(ground);
    for (const { siteId } of protection ? targetsOf(protection) : []) {
      deliveries.#bySite.set(siteId, await Delivery.open(ground, siteId));
    }
    return deliveries;
  }

  /** The first target keeps its digests where the only one always did. */
  async beginAll(protection: Protection, o: { readonly seed: boolean }): Promise<void> {
    for (const [index, { siteId }] of targetsOf(protection).entries()) {
      await this.begin(siteId, { ...o, ownLeaves: index > 0 });
    }
  }

  async begin(siteId: string, o: { readonly seed: boolean; readonly ownLeaves: boolean }): Promise<void> {
    this.#bySite.set(siteId, await Delivery.begin(this.#ground, siteId, o));
  }

  get all(): readonly Delivery[] {
    return [...this.#bySite.values()];
  }

  get places(): readonly TargetPlace[] {
    return this.all.map(({ place }) => place);
  }

  /** Ordinal of the cut up to which every target has acknowledged; 0: none. */
  get acknowledgedByAll(): number {
    const { places } = this;
    return places.length === 0 ? 0 : Math.min(...places.map(({ acknowledged }) => acknowledged));
  }

  get progress(): readonly TargetProgress[] {
    const cuts = happened(this.#ground.delivered().cuts);
    return this.all.map(({ record, progress }) => ({
      ...{ siteId: record.siteId, record, sending: progress },
      unsent: cuts.filter(({ ordinal }) => ordinal > (record.acknowledged?.ordinal ?? 0)),
    }));
  }

  /** Throws PROTECTION_TARGET_UNKNOWN. */
  need(siteId: string): Delivery {
    const delivery = this.#bySite.get(siteId);
    if (delivery) return delivery;
    const { name } = this.#ground.delivered().record;
    throw replicationFailure('PROTECTION_TARGET_UNKNOWN', `${name} is not replicated to site ${siteId}`, {
      context: { machine: name, siteId },
    });
  }

  /** Work that nothing is sent beside. */
  async stillFor<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const rest = (left: readonly Delivery[]): Promise<T> => {
      const [next, ...others] = left;
      if (next) return next.sending.run(() => rest(others));
      throwIfAborted(signal);
      return work();
    };
    return rest(this.all);
  }

  /** What the layers that go down next hold is recorded for the targets that lack them. Durable on return. */
  async recordOutrun(): Promise<void> {
    const { record, cuts } = this.#ground.delivered();
    const due = cutsToMerge(record.disks, cuts, this.places);
    if (due.length === 0) return;
    for (const delivery of this.all) await delivery.outrunBy(due);
  }

  /**
   * Why the files here may not be what was acknowledged last; undefined if they read as it was. Of the targets the one that is
   * furthest knows most. `only` names disks by id; `at` is the machine with its files, where it is not what the record says.
   */
  async doubtOfAcknowledged(only?: readonly string[], at?: Delivered): Promise<string | undefined> {
    const ordinalOf = ({ record }: Delivery) => record.acknowledged?.ordinal ?? 0;
    const [furthest] = [...this.all].sort((a, b) => ordinalOf(b) - ordinalOf(a));
    return furthest?.doubtOfAcknowledged(only, at);
  }

  /** Removes every record of one delivery, or of all. The targets keep their points. */
  async remove(siteId?: string): Promise<void> {
    for (const delivery of this.all) {
      if (siteId !== undefined && delivery.record.siteId !== siteId) continue;
      await delivery.remove();
      this.#bySite.delete(delivery.record.siteId);
    }
  }
}
