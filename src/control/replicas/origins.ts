import { join } from 'node:path';
import Type from 'typebox';
import type { OriginView } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure, libFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { loadRecord, recordKind, storeRecord } from '../../lib/records.ts';
import { keyIdOfPem, type Peer, type SiteIdentity } from '../../peer/index.ts';
import type { Origin } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';

const OriginSchema = Type.Object({
  siteId: Type.String(),
  name: Type.String(),
  /** Ed25519 public key for statements, PEM. */
  signingKey: Type.String(),
  /** The paired site that told of it. */
  viaSiteId: Type.String(),
  toldAtMs: Type.Integer({ minimum: 0 }),
  confirmedAtMs: Type.Optional(Type.Integer({ minimum: 0 })),
});
type KnownOrigin = Type.Static<typeof OriginSchema>;

const ORIGINS = recordKind('origins', 1, Type.Object({ origins: Type.Array(OriginSchema) }));

/** More sites than this are not remembered before somebody has confirmed one or forgotten it. */
const UNCONFIRMED_MAX = 64;

interface OriginsTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly alerts: AlertSink;
  readonly dataDirectory: string;
  readonly ownSiteId: string;
  /** A paired site, or one that was. */
  readonly peer: (siteId: string) => Peer | undefined;
}

/**
 * `origins.json`: sites that are not paired with this one, but whose points a paired site forwards here. The one who forwards says
 * by which key they are signed, and could say anything: a person compares the key with what the origin itself shows, once for
 * each origin, before the first byte of its points is taken. The key of a paired site is known from the pairing.
 */
export class Origins {
  readonly #o: OriginsTools;
  readonly #path: string;
  readonly #changing = new Mutex();
  #known: ReadonlyMap<string, KnownOrigin>;

  private constructor(o: OriginsTools, path: string, known: readonly KnownOrigin[]) {
    this.#o = o;
    this.#path = path;
    this.#known = new Map(known.map((origin) => [origin.siteId, origin]));
  }

  static async open(o: OriginsTools): Promise<Origins> {
    const path = join(o.dataDirectory, 'origins.json');
    try {
      const { origins = [] } = (await loadRecord(o.files, path, ORIGINS)) ?? {};
      return new Origins(o, path, origins);
    } catch (error) {
      if (!isFailure(error, 'RECORD_CORRUPT')) throw error;
      // Nothing stands in for it: by these keys points are taken, or refused.
      const hint =
        'Put the file back from a copy of the data directory, and start the site again. If there is none, move it away: points that are forwarded here are then taken again when `warmsite origin confirm` has been said of their site once more.';
      throw libFailure('RECORD_CORRUPT', error.message, { context: error.context, cause: error, hint });
    }
  }

  list(): Omit<OriginView, 'viaName'>[] {
    return [...this.#known.values()].map(viewOf);
  }

  nameOf(siteId: string): string | undefined {
    return this.#known.get(siteId)?.name;
  }

  /** A site whose points are taken, as it is handed on; undefined before somebody has confirmed its key. */
  confirmed(siteId: string): Origin | undefined {
    const { name, signingKey } = this.#o.peer(siteId) ?? {};
    if (name !== undefined && signingKey !== undefined) return { siteId, name, signingKey };
    const known = this.#known.get(siteId);
    if (known?.confirmedAtMs === undefined) return undefined;
    return { siteId, name: known.name, signingKey: known.signingKey };
  }

  /**
   * Whether points of this origin are taken from a paired site. Throws ORIGIN_UNCONFIRMED, which a person can change,
   * ORIGIN_KEY_WRONG and ORIGIN_REFUSED.
   */
  async accept(origin: Origin, fromSiteId: string): Promise<void> {
    const { siteId, name } = origin;
    const keyId = keyIdOfPem(origin.signingKey);
    const context = { siteId, name, fromSiteId };
    if (keyId === undefined || siteId === fromSiteId || siteId === this.#o.ownSiteId) {
      throw controlFailure('ORIGIN_REFUSED', `${name} cannot be an origin of points here`, { context });
    }
    if (this.#o.peer(siteId)?.revokedAtMs !== undefined) {
      throw controlFailure('ORIGIN_REFUSED', `${name} is trusted no longer here`, { context });
    }
    const confirmed = this.confirmed(siteId);
    if (confirmed) {
      if (keyIdOfPem(confirmed.signingKey) === keyId) return;
      const said = `site ${fromSiteId} gives ${keyId} for the key of ${confirmed.name}; known here: ${keyIdOfPem(confirmed.signingKey)}`;
      const failure = controlFailure('ORIGIN_KEY_WRONG', said, { context });
      this.#o.alerts.raise(`origin-key:${siteId}:${fromSiteId}`, 'critical', failure);
      throw failure;
    }
    await this.#remember(origin, fromSiteId);
    const said = `nobody has confirmed ${keyId} for the key of ${name}, whose points site ${fromSiteId} wants to bring`;
    const hint = `If \`warmsite site show\` at ${name} shows the same key, confirm it at the site that the points come to: \`warmsite origin confirm ${siteId} ${keyId}\`. They come by themselves then.`;
    const failure = controlFailure('ORIGIN_UNCONFIRMED', said, { context, hint });
    this.#o.alerts.raise(`origin:${siteId}`, 'warning', failure);
    throw failure;
  }

  #remember(origin: Origin, viaSiteId: string): Promise<void> {
    return this.#change((known) => {
      const { siteId, name, signingKey } = origin;
      const before = known.get(siteId);
      if (before?.signingKey === signingKey && before.viaSiteId === viaSiteId) return false;
      const unconfirmed = [...known.values()].filter(({ confirmedAtMs }) => confirmedAtMs === undefined);
      if (!before && unconfirmed.length >= UNCONFIRMED_MAX) {
        const said = `${unconfirmed.length} sites wait for being confirmed already`;
        throw controlFailure('ORIGIN_REFUSED', said, { context: { siteId, name } });
      }
      known.set(siteId, { siteId, name, signingKey, viaSiteId, toldAtMs: this.#o.clock.wallMs() });
      return true;
    });
  }

  /** From now on points of this origin are taken. Durable on return. Throws ORIGIN_UNKNOWN, ORIGIN_KEY_WRONG. */
  async confirm(siteId: string, keyId: string): Promise<Omit<OriginView, 'viaName'>> {
    await this.#change((known) => {
      const origin = this.#need(known, siteId);
      const told = keyIdOfPem(origin.signingKey);
      if (told !== keyId) {
        const said = `site ${origin.viaSiteId} gives ${told} for the key of ${origin.name}, not ${keyId}`;
        throw controlFailure('ORIGIN_KEY_WRONG', said, { context: { siteId } });
      }
      if (origin.confirmedAtMs !== undefined) return false;
      known.set(siteId, { ...origin, confirmedAtMs: this.#o.clock.wallMs() });
      return true;
    });
    this.#o.alerts.clear(`origin:${siteId}`);
    return viewOf(this.#need(this.#known, siteId));
  }

  /** Points of this origin are taken no more. Durable on return. */
  async forget(siteId: string): Promise<void> {
    await this.#change((known) => {
      this.#need(known, siteId);
      return known.delete(siteId);
    });
    this.#o.alerts.clear(`origin:${siteId}`);
  }

  #need(known: ReadonlyMap<string, KnownOrigin>, siteId: string): KnownOrigin {
    const origin = known.get(siteId);
    if (origin) return origin;
    throw controlFailure('ORIGIN_UNKNOWN', `no site has told of ${siteId}`, { context: { siteId } });
  }

  /** `change` says whether it has changed anything. */
  #change(change: (known: Map<string, KnownOrigin>) => boolean): Promise<void> {
    return this.#changing.run(async () => {
      const known = new Map(this.#known);
      if (!change(known)) return;
      await storeRecord(this.#o.files, this.#path, ORIGINS, { origins: [...known.values()] });
      this.#known = known;
    });
  }
}

function viewOf({ signingKey, ...origin }: KnownOrigin): Omit<OriginView, 'viaName'> {
  // What was stored was a key when it came.
  return { ...origin, keyId: keyIdOfPem(signingKey) ?? '' };
}

/** The key of a site that makes points, this one or another, once it is confirmed. */
export function confirmedKey(
  { identity, origins }: { readonly identity: SiteIdentity; readonly origins: Pick<Origins, 'confirmed'> },
  siteId: string,
): string | undefined {
  return siteId === identity.siteId ? identity.signingKey : origins.confirmed(siteId)?.signingKey;
}
