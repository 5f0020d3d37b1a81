import { createHash, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import Type from 'typebox';
import type { Clock } from '../../lib/clock.ts';
import type { FileSystem } from '../../lib/files.ts';
import { newId, type Random } from '../../lib/random.ts';
import { recordKind } from '../../lib/records.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Stored } from '../base/stored.ts';
import { controlFailure } from '../errors.ts';

const TRIGGERS_MAX = 1024;

const TriggerSchema = Type.Object({
  triggerId: Type.String(),
  machineId: Type.String(),
  copyType: Type.String(),
  note: Type.Optional(Type.String()),
  createdAtMs: Type.Integer({ minimum: 0 }),
  /** SHA-256 of the token, hexadecimal. The token has 256 random bits: nothing shorter is gained by trying. */
  tokenDigest: Type.String({ pattern: '^[0-9a-f]{64}$' }),
});
export type StoredTrigger = Type.Static<typeof TriggerSchema>;

const Triggers = Type.Object({ triggers: Type.Array(TriggerSchema, { maxItems: TRIGGERS_MAX }) });
type Triggers = Type.Static<typeof Triggers>;
const TRIGGERS_RECORD = recordKind('triggers', 1, Triggers);

const PREFIX = 'warmsite-trigger-1.';
const SECRET_BYTES = 32;
/** Every copy costs a pause of the guest and a place at the recovery site; whoever asks more often has lost its token. */
const USES_MAX = 6;
const USES_WINDOW_MS = 60_000;

/** `triggers.json` of a site: who may have copies made without being an operator. */
export class TriggerTokens {
  readonly #stored: Stored<Triggers>;
  readonly #clock: Clock;
  readonly #random: Random;
  /** By trigger: when it was used last, on the monotonic clock; none older than the window. */
  readonly #uses = new Map<string, readonly number[]>();
  /** What a token is compared with that names no trigger; nobody knows what it is the digest of. */
  readonly #nobody: Buffer;

  private constructor(o: { clock: Clock; random: Random }, stored: Stored<Triggers>) {
    this.#stored = stored;
    this.#clock = o.clock;
    this.#random = o.random;
    this.#nobody = o.random.bytes(32);
  }

  /** With `alerts` also where it cannot be read: no token is good then. */
  static async open(o: {
    files: FileSystem;
    clock: Clock;
    random: Random;
    dataDirectory: string;
    alerts?: AlertSink;
  }): Promise<TriggerTokens> {
    const path = join(o.dataDirectory, 'triggers.json');
    const whileUnread = o.alerts && { alerts: o.alerts };
    return new TriggerTokens(
      o,
      await Stored.open(o.files, path, TRIGGERS_RECORD, { triggers: [] }, whileUnread),
    );
  }

  /** Throws why it cannot be read which there are. */
  get list(): readonly StoredTrigger[] {
    return this.#stored.said.triggers;
  }

  /** Throws TRIGGER_TOKEN_UNKNOWN, and why it cannot be read which there are. */
  need(triggerId: string): StoredTrigger {
    const trigger = this.list.find((candidate) => candidate.triggerId === triggerId);
    if (trigger) return trigger;
    throw controlFailure('TRIGGER_TOKEN_UNKNOWN', `there is no trigger ${triggerId}`, {
      context: { triggerId },
    });
  }

  /** Whether this is the token of that trigger. Takes the same time whatever is shown, also for a trigger that does not exist. */
  isShown(triggerId: string, token: string): boolean {
    const { triggers } = this.#stored.value;
    const trigger = triggers.find((candidate) => candidate.triggerId === triggerId);
    const expected = trigger ? Buffer.from(trigger.tokenDigest, 'hex') : this.#nobody;
    return timingSafeEqual(digestOf(token), expected) && trigger !== undefined;
  }

  /** A new trigger, durable on return, and its token, which is kept nowhere. Throws TRIGGERS_TOO_MANY. */
  async create(
    of: Pick<StoredTrigger, 'machineId' | 'copyType' | 'note'>,
  ): Promise<{ readonly trigger: StoredTrigger; readonly token: string }> {
    const token = PREFIX + this.#random.bytes(SECRET_BYTES).toString('base64url');
    const trigger: StoredTrigger = {
      triggerId: newId(this.#clock, this.#random),
      ...of,
      createdAtMs: this.#clock.wallMs(),
      tokenDigest: digestOf(token).toString('hex'),
    };
    await this.#stored.change(({ triggers }) => {
      if (triggers.length >= TRIGGERS_MAX) {
        throw controlFailure('TRIGGERS_TOO_MANY', `this site has ${TRIGGERS_MAX} triggers already`);
      }
      return { triggers: [...triggers, trigger] };
    });
    return { trigger, token };
  }

  /**
   * Takes triggers away; durable on return, and none of them is good from then on. Where they cannot be read none is good, a machine that goes is
   * not kept by them, and they go by the record again when that has been put back, should the machine be here then.
   */
  async remove(isMeant: (trigger: StoredTrigger) => boolean): Promise<void> {
    if (this.#stored.unread) return;
    await this.#stored.change((before) => {
      const staying = before.triggers.filter((trigger) => !isMeant(trigger));
      return staying.length < before.triggers.length ? { triggers: staying } : before;
    });
  }

  /** Counts a use. Throws TRIGGER_TOO_OFTEN for one too many, which counts as none. */
  count(triggerId: string): void {
    const now = this.#clock.monotonicMs();
    const uses = (this.#uses.get(triggerId) ?? []).filter((atMs) => atMs > now - USES_WINDOW_MS);
    if (uses.length >= USES_MAX) {
      const said = `trigger ${triggerId} was used ${USES_MAX} times within a minute`;
      const againInMs = uses[0]! + USES_WINDOW_MS - now;
      throw controlFailure('TRIGGER_TOO_OFTEN', said, { context: { triggerId, againInMs } });
    }
    this.#uses.set(triggerId, [...uses, now]);
  }
}

function digestOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
