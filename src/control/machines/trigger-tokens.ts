import { createHash, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import Type from 'typebox';
import type { Clock } from '../../lib/clock.ts';
import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { newId, type Random } from '../../lib/random.ts';
import { loadRecord, recordKind, storeRecord } from '../../lib/records.ts';
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

const TRIGGERS_RECORD = recordKind(
  'triggers',
  1,
  Type.Object({ triggers: Type.Array(TriggerSchema, { maxItems: TRIGGERS_MAX }) }),
);

const PREFIX = 'warmsite-trigger-1.';
const SECRET_BYTES = 32;
/** Every copy costs a pause of the guest and a place at the recovery site; whoever asks more often has lost its token. */
const USES_MAX = 6;
const USES_WINDOW_MS = 60_000;

/** `triggers.json` of a site: who may have copies made without being an operator. */
export class TriggerTokens {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #changing = new Mutex();
  /** By trigger: when it was used last, on the monotonic clock; none older than the window. */
  readonly #uses = new Map<string, readonly number[]>();
  /** What a token is compared with that names no trigger; nobody knows what it is the digest of. */
  readonly #nobody: Buffer;
  #triggers: readonly StoredTrigger[] = [];

  private constructor(o: { files: FileSystem; clock: Clock; random: Random }, path: string) {
    this.#files = o.files;
    this.#clock = o.clock;
    this.#random = o.random;
    this.#path = path;
    this.#nobody = o.random.bytes(32);
  }

  static async open(o: {
    files: FileSystem;
    clock: Clock;
    random: Random;
    dataDirectory: string;
  }): Promise<TriggerTokens> {
    const path = join(o.dataDirectory, 'triggers.json');
    const tokens = new TriggerTokens(o, path);
    tokens.#triggers = (await loadRecord(o.files, path, TRIGGERS_RECORD))?.triggers ?? [];
    return tokens;
  }

  get list(): readonly StoredTrigger[] {
    return this.#triggers;
  }

  /** Throws TRIGGER_TOKEN_UNKNOWN. */
  need(triggerId: string): StoredTrigger {
    const trigger = this.#triggers.find((candidate) => candidate.triggerId === triggerId);
    if (trigger) return trigger;
    throw controlFailure('TRIGGER_TOKEN_UNKNOWN', `there is no trigger ${triggerId}`, {
      context: { triggerId },
    });
  }

  /** Whether this is the token of that trigger. Takes the same time whatever is shown, also for a trigger that does not exist. */
  isShown(triggerId: string, token: string): boolean {
    const trigger = this.#triggers.find((candidate) => candidate.triggerId === triggerId);
    const expected = trigger ? Buffer.from(trigger.tokenDigest, 'hex') : this.#nobody;
    return timingSafeEqual(digestOf(token), expected) && trigger !== undefined;
  }

  /** A new trigger, durable on return, and its token, which is kept nowhere. Throws TRIGGERS_TOO_MANY. */
  create(
    of: Pick<StoredTrigger, 'machineId' | 'copyType' | 'note'>,
  ): Promise<{ readonly trigger: StoredTrigger; readonly token: string }> {
    return this.#changing.run(async () => {
      if (this.#triggers.length >= TRIGGERS_MAX) {
        throw controlFailure('TRIGGERS_TOO_MANY', `this site has ${TRIGGERS_MAX} triggers already`);
      }
      const token = PREFIX + this.#random.bytes(SECRET_BYTES).toString('base64url');
      const trigger: StoredTrigger = {
        triggerId: newId(this.#clock, this.#random),
        ...of,
        createdAtMs: this.#clock.wallMs(),
        tokenDigest: digestOf(token).toString('hex'),
      };
      await this.#store([...this.#triggers, trigger]);
      return { trigger, token };
    });
  }

  /** Takes triggers away; durable on return, and none of them is good from then on. */
  remove(isMeant: (trigger: StoredTrigger) => boolean): Promise<void> {
    return this.#changing.run(async () => {
      const staying = this.#triggers.filter((trigger) => !isMeant(trigger));
      if (staying.length < this.#triggers.length) await this.#store(staying);
    });
  }

  async #store(triggers: readonly StoredTrigger[]): Promise<void> {
    await storeRecord(this.#files, this.#path, TRIGGERS_RECORD, { triggers: [...triggers] });
    this.#triggers = triggers;
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
