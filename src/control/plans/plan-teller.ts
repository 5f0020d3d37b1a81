import type { Json } from '../../lib/canonical-json.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { CallHandler } from '../../peer/index.ts';
import type { HeldPlan } from '../../plan/index.ts';
import type { Audit } from '../base/audit.ts';
import { Wakeup } from '../base/wakeup.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { PlanStore } from './plan-store.ts';
import { checkedAnswer, checkedPlan, type ToldAnswer, toldOf } from './plan-wire.ts';

interface TellerTools {
  readonly store: PlanStore;
  readonly links: Pick<PeerLinks, 'client' | 'views'>;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly log: Log;
}

/** What could not be told is told again after this time, and when the other site answers again. */
const AGAIN_AFTER_MS = 30_000;

/** Tells paired sites the plans of this one, and hears of theirs, so that every site that is left has every plan. */
export class PlanTeller {
  readonly #o: TellerTools;
  readonly #bell: Wakeup;
  readonly #stop = new AbortController();
  /** By site and plan the version that it has, as far as this process knows since the process there answers. */
  readonly #told = new Map<string, string>();
  readonly #unwatch: () => void;
  readonly #work: Promise<void>;

  constructor(o: TellerTools) {
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
    this.#unwatch = o.store.watch(() => this.kick());
    this.#work = this.#go();
  }

  /** A site answers again, or was started again: what was told to it before may be gone there with a file that was moved away. */
  reached(siteId: string): void {
    for (const key of [...this.#told.keys()]) if (key.startsWith(keyOf(siteId, ''))) this.#told.delete(key);
    this.kick();
  }

  /** Something may have to be told. */
  kick(): void {
    this.#bell.ring();
  }

  async close(): Promise<void> {
    this.#unwatch();
    this.#stop.abort();
    await this.#work;
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return {
      'plan.tell': async (peer, body): Promise<Json> => {
        const told = checkedPlan(body);
        const answer = await this.#hear(peer.siteId, told);
        return answer as Json;
      },
    };
  }

  /** Durable on return. Throws PLAN_INVALID. */
  async #hear(siteId: string, told: ReturnType<typeof checkedPlan>): Promise<ToldAnswer> {
    const { store, audit } = this.#o;
    const { held, outcome, isNews } = await store.hear(told, siteId);
    // A conflict is told whenever the other site answers again.
    if (isNews && (outcome === 'taken' || outcome === 'conflict')) {
      const details = { outcome, counter: told.counter, removed: told.document === undefined };
      audit.note({ actor: `peer:${siteId}`, act: 'plan.told', subject: told.plan, details });
    }
    if (outcome === 'taken') this.#told.set(keyOf(siteId, held.plan), versionIn(held));
    return outcome === 'taken' || outcome === 'same'
      ? { outcome }
      : { outcome, own: { ...toldOf(held), former: [...held.former] } };
  }

  async #go(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const isDone = await this.#tellAll(signal);
      try {
        await this.#bell.wait(isDone ? Number.POSITIVE_INFINITY : AGAIN_AFTER_MS, signal);
      } catch {
        return; // Closed.
      }
    }
  }

  /** Whether every site that answers has every plan. */
  async #tellAll(signal: AbortSignal): Promise<boolean> {
    const { links, store, log } = this.#o;
    let isDone = true;
    for (const { siteId, presence } of links.views()) {
      if (presence !== 'reachable') continue;
      for (const held of store.held) {
        if (this.#told.get(keyOf(siteId, held.plan)) === versionIn(held)) continue;
        try {
          await this.#tell(siteId, held, signal);
        } catch (error) {
          if (!isFailure(error)) throw error;
          if (signal.aborted) return false;
          isDone = false;
          log.warn('plan.not-told', { siteId, plan: held.plan, reason: messageOf(error) });
        }
      }
    }
    return isDone;
  }

  async #tell(siteId: string, held: HeldPlan, signal: AbortSignal): Promise<void> {
    const body = toldOf(held) as unknown as Json;
    const answer = checkedAnswer(await this.#o.links.client(siteId).call('plan.tell', body, { signal }));
    if (answer.own) await this.#hear(siteId, answer.own);
    this.#told.set(keyOf(siteId, held.plan), versionIn(held));
  }
}

function keyOf(siteId: string, plan: string): string {
  return `${siteId} ${plan}`;
}

function versionIn({ counter, digest }: HeldPlan): string {
  return `${counter}-${digest}`;
}
