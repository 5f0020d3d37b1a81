import Type from 'typebox';
import { Value } from 'typebox/value';
import type { DeltaHeader } from '../delta/index.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { isFailure } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { ID_PATTERN } from '../lib/random.ts';
import { unlessAborted } from '../lib/unless-aborted.ts';
import type { CallHandler, UploadHandler } from '../peer/index.ts';
import { checkSignedStatement, type RetentionPolicy } from '../recovery-point/index.ts';
import {
  type Acknowledgement,
  bringerOf,
  DIGEST_PAGE_BLOCKS,
  followingSource,
  type OfferAnswer,
  type OlderDisks,
  olderCopyChanged,
  type Replica,
  type ReplicaRecord,
  type Replicas,
  type SeedAnnouncement,
} from '../replica/index.ts';
import { replicationFailure } from './errors.ts';
import type { Arrival, HomeMachines } from './home-machines.ts';
import { Origin } from './origin.ts';
import { type RetentionPreview, retentionFromWire } from './retention-wire.ts';

const Id = Type.String({ pattern: ID_PATTERN });
const DescribeBody = Type.Object({
  machineId: Type.String({ maxLength: 26 }),
  acknowledged: Type.Optional(Id),
});
const KeepBody = Type.Object({
  machineId: Type.String({ maxLength: 26 }),
  pointId: Type.String({ maxLength: 26 }),
});
const AnnounceBody = Type.Object({
  session: Id,
  signed: Type.Unknown(),
  machineName: Type.String({ maxLength: 64 }),
  retention: Type.Unknown(),
  wallMs: Type.Number(),
});
const OlderLeavesBody = Type.Object({
  session: Id,
  diskId: Type.String({ maxLength: 24 }),
  firstBlock: Type.Integer({ minimum: 0, maximum: 2 ** 40 }),
  blocks: Type.Integer({ minimum: 1, maximum: DIGEST_PAGE_BLOCKS }),
});
const PreviewBody = Type.Object({
  machineId: Type.String({ maxLength: 26 }),
  retention: Type.Unknown(),
});
const OfferBody = Type.Object({
  header: Type.Unknown(),
  machineName: Type.String({ maxLength: 64 }),
  retention: Type.Unknown(),
  /** The sender's wall clock, for the skew of this session. */
  wallMs: Type.Number(),
});

const ForwardBody = Type.Object({ ...OfferBody.properties, origin: Origin });

/** Where points come from, and by whom. */
type Bringing = Pick<ReplicaRecord, 'sourceSiteId' | 'viaSiteId'>;

/** Points that were cut together are kept together. */
const GROUPS_VERSION = 1;

export interface ReceiverTools {
  readonly replicas: Replicas;
  readonly home: HomeMachines;
  readonly wallMs: () => number;
  readonly log: Log;
  /** Told after each publication; retention and proofs are its business. */
  readonly onPublished: (replica: Replica, acknowledgement: Acknowledgement) => void;
  /** What a policy would do with the points of a replica. */
  readonly preview: (replica: Replica, policy: RetentionPolicy) => Promise<RetentionPreview>;
  /** What somebody has said is an older copy of the disks of this machine; undefined if nobody has. */
  readonly olderDisks: (siteId: string, machineName: string, header: DeltaHeader) => OlderDisks | undefined;
  /** Throws while there is no room for further deltas. */
  readonly checkRoom: () => Promise<void>;
  /** Whether points of this origin may be taken from a site that is not it; throws if not. */
  readonly acceptOrigin: (origin: Origin, fromSiteId: string) => Promise<void>;
}

interface AcceptedSession {
  readonly replica: Replica;
  readonly siteId: string;
  readonly announcement?: SeedAnnouncement;
  readonly first?: FirstCopy | undefined;
}

/** A first copy, for one upload. Older copies are read only while it goes on, so that nobody holds the files afterwards. */
interface FirstCopy {
  readonly disks: OlderDisks | undefined;
  /** Other older copies are offered now: the upload is ended, and the sender goes on where it was. */
  readonly changed: AbortController;
  /** Settled when the upload begins: what is asked for a moment before it waits for it. */
  readonly begun: PromiseWithResolvers<void>;
  isOver: boolean;
}

/**
 * The recovery side of a replication, as calls and uploads that a peer may make. Every one names a machine of the peer's
 * own: a site never sees or touches what another one has replicated here.
 */
export class ReplicationReceiver {
  readonly #tools: ReceiverTools;
  /** Sessions that have been accepted since this process started; an upload is always preceded by its offer. */
  readonly #sessions = new Map<string, AcceptedSession>();

  constructor(tools: ReceiverTools) {
    this.#tools = tools;
  }

  get calls(): Readonly<Record<string, CallHandler>> {
    return {
      'replica.describe': async (peer, body) => {
        const { machineId, acknowledged } = this.#checked(DescribeBody, body);
        const home = this.#tools.home.of(machineId);
        if (home) {
          if (!home.concerns(peer.siteId)) throw notYours(machineId);
          await home.settled();
          return home.described(peer.siteId, acknowledged) as unknown as Json;
        }
        const replica = this.#tools.replicas.get(machineId);
        if (!replica) {
          // A replica that cannot be opened must not look like one that was never there.
          if (this.#tools.replicas.broken.some((broken) => broken.machineId === machineId)) {
            this.#tools.replicas.need(machineId);
          }
          return null;
        }
        checkOwner(replica, peer.siteId);
        await replica.settle();
        return replica.describe() as unknown as Json;
      },
      'replica.preview': async (peer, body) => {
        const { machineId, retention } = this.#checked(PreviewBody, body);
        const replica = this.#tools.replicas.need(machineId);
        checkOwner(replica, peer.siteId);
        return (await this.#tools.preview(replica, retentionFromWire(retention))) as unknown as Json;
      },
      'replica.groups': async () => ({ version: GROUPS_VERSION }),
      'replica.offer': (peer, body) => {
        return this.#offer(this.#checked(OfferBody, body), { sourceSiteId: peer.siteId });
      },
      'replica.forward': async (peer, body) => {
        const { origin, ...offer } = this.#checked(ForwardBody, body);
        await this.#tools.acceptOrigin(origin, peer.siteId);
        return this.#offer(offer, { sourceSiteId: origin.siteId, viaSiteId: peer.siteId });
      },
      'replica.older-leaves': (peer, body, signal) => this.#olderLeaves(peer.siteId, body, signal),
      'replica.announce-seed': (peer, body) => this.#announceSeed(peer.siteId, body),
      'replica.keep-for-seed': async (peer, body) => {
        const { machineId, pointId } = this.#checked(KeepBody, body);
        const replica = this.#tools.replicas.need(machineId);
        checkOwner(replica, peer.siteId);
        await replica.seeding.keep(pointId);
        return null;
      },
    };
  }

  async #offer(
    { header: raw, machineName, retention: wire, wallMs }: Type.Static<typeof OfferBody>,
    from: Bringing,
  ): Promise<Json> {
    const header = checkHeader(raw);
    const retention = retentionFromWire(wire);
    const skewMs = Math.round(wallMs - this.#tools.wallMs());
    const replica = await this.#replicaFor(from, header, machineName, retention);
    // What has arrived before is said again, and takes no room.
    if (replica.newest?.statement.pointId !== header.pointId) await this.#tools.checkRoom();
    const answer = await replica.offer({ header, skewMs });
    if (answer.kind === 'accept') return this.#accept(answer, replica, header);
    if (answer.kind === 'conflict') {
      this.#tools.log.warn('replica.conflict', { machine: machineName, ...answer.conflict });
    }
    return answer as unknown as Json;
  }

  #accept(answer: Extract<OfferAnswer, { kind: 'accept' }>, replica: Replica, header: DeltaHeader): Json {
    const siteId = bringerOf(replica.record);
    const { machineName, viaSiteId } = replica.record;
    // An older copy is lent to the site that has the machine, and to no one else.
    const isFirst = header.parent === null && viaSiteId === undefined;
    const disks = isFirst ? this.#tools.olderDisks(siteId, machineName, header) : undefined;
    const begun = Promise.withResolvers<void>();
    const first = isFirst ? { disks, changed: new AbortController(), begun, isOver: false } : undefined;
    this.#sessions.set(answer.session, { replica, siteId, first });
    return { ...answer, ...(disks ? { older: disks.diskIds } : {}) } as unknown as Json;
  }

  /** Only to the site that replicates this machine here, and only while it sends its first copy. */
  async #olderLeaves(siteId: string, body: Json, signal: AbortSignal): Promise<Json> {
    const { session, ...page } = this.#checked(OlderLeavesBody, body);
    const accepted = this.#sessions.get(session);
    const first = accepted?.siteId === siteId ? accepted.first : undefined;
    if (first?.disks) await unlessAborted(first.begun.promise, signal);
    if (!first?.disks || first.isOver) {
      throw replicationFailure('REPLICATION_SESSION_UNKNOWN', `no older copy is read for session ${session}`);
    }
    return { leaves: (await first.disks.digests(page)).toString('base64') };
  }

  /** Of the machine of that name or id: a first copy that is on its way from the site goes on with what is offered now. */
  olderCopiesChanged(siteId: string, machine: string): void {
    for (const { replica, siteId: from, first } of this.#sessions.values()) {
      const { machineId, machineName } = replica.record;
      const isMeant = from === siteId && (machineId === machine || machineName === machine);
      if (isMeant) first?.changed.abort();
    }
  }

  /** Null: the leaves are due, as an upload of that session. */
  async #announceSeed(siteId: string, body: Json): Promise<Json> {
    const { session, signed: raw, machineName, retention: wire, wallMs } = this.#checked(AnnounceBody, body);
    const retention = retentionFromWire(wire);
    const signed = checkSignedStatement(raw, 'the statement of an announced seed');
    const skewMs = Math.round(wallMs - this.#tools.wallMs());
    const from = { sourceSiteId: siteId };
    const replica = await this.#replicaFor(from, signed.statement, machineName, retention);
    const known = replica.seeding.announced(signed);
    if (known) return known as unknown as Json;
    this.#sessions.set(session, { replica, siteId, announcement: { session, signed, skewMs } });
    return null;
  }

  async #replicaFor(
    from: Bringing,
    header: Pick<Arrival, 'machineId' | 'epoch' | 'parent'>,
    machineName: string,
    retention: RetentionPolicy,
  ): Promise<Replica> {
    const { replicas, home } = this.#tools;
    const generation = await home.admit({ ...from, ...header });
    const replica = await replicas.forOffer(header, { ...from, machineName, retention, generation });
    checkSameWay(replica.record, from);
    const following = (record: ReplicaRecord) => followingSource(record, header.epoch);
    if (following(replica.record)) await replica.update(following);
    const known = replica.record;
    const isSame =
      known.machineName === machineName &&
      canonicalJson(known.retention as unknown as Json) === canonicalJson(retention as unknown as Json);
    if (!isSame) await replica.update({ machineName, retention });
    return replica;
  }

  get upload(): UploadHandler {
    return async (peer, session, source, signal) => {
      const accepted = this.#sessions.get(session);
      if (accepted?.siteId !== peer.siteId) {
        throw replicationFailure(
          'REPLICATION_SESSION_UNKNOWN',
          `no delta ${session} has been accepted from ${peer.name}`,
        );
      }
      const { replica, announcement, first } = accepted;
      const acknowledgement = announcement
        ? await replica.announceSeed(announcement, source)
        : first
          ? await receiveFirst(replica, session, source, { signal, first })
          : await replica.receive(session, source, { signal });
      this.#sessions.delete(session);
      this.#tools.onPublished(replica, acknowledgement);
      return acknowledgement as unknown as Json;
    };
  }

  #checked<S extends Type.TSchema>(schema: S, body: Json): Type.Static<S> {
    if (Value.Check(schema, body)) return body;
    throw replicationFailure(
      'REPLICATION_REQUEST_INVALID',
      'the request of the peer does not have the form agreed on',
    );
  }
}

async function receiveFirst(
  replica: Replica,
  session: string,
  source: AsyncIterable<Uint8Array>,
  { signal, first }: { signal: AbortSignal; first: FirstCopy },
): Promise<Acknowledgement> {
  const { disks, changed, begun } = first;
  begun.resolve();
  try {
    const either = AbortSignal.any([signal, changed.signal]);
    return await replica.receive(session, source, { signal: either, older: disks });
  } catch (error) {
    const isOurs = isFailure(error, 'CANCELLED') && changed.signal.aborted && !signal.aborted;
    throw isOurs ? olderCopyChanged('other older copies are offered now') : error;
  } finally {
    first.isOver = true;
    await disks?.close();
  }
}

/** Throws REPLICATION_NOT_YOURS, REPLICATION_COMES_FORWARDED. */
function checkOwner({ record }: Replica, siteId: string): void {
  if (bringerOf(record) === siteId) return;
  const { machineId, sourceSiteId } = record;
  throw sourceSiteId === siteId ? comesForwarded(record) : notYours(machineId);
}

/**
 * The points of a replica come by one way: the numbers that a site gives the points of a machine are each target's own, so that
 * what is counted for one cannot be laid upon what was counted for another.
 */
function checkSameWay(record: ReplicaRecord, { sourceSiteId, viaSiteId }: Bringing): void {
  if (record.sourceSiteId === sourceSiteId && record.viaSiteId === viaSiteId) return;
  const isAnotherWay = record.sourceSiteId === sourceSiteId && viaSiteId === undefined;
  throw isAnotherWay ? comesForwarded(record) : notYours(record.machineId);
}

function notYours(machineId: string): Error {
  const said = 'this replica belongs to another site, or its points come by another way';
  return replicationFailure('REPLICATION_NOT_YOURS', said, { context: { machineId } });
}

function comesForwarded({ machineId, machineName, viaSiteId }: ReplicaRecord): Error {
  const said = `the points of ${machineName} come here by way of site ${viaSiteId}`;
  return replicationFailure('REPLICATION_COMES_FORWARDED', said, { context: { machineId } });
}

/** Enough of a look at an offered header to act on it; the stream's own header is checked whole by the decoder. */
function checkHeader(raw: unknown): DeltaHeader {
  const Header = Type.Object({
    session: Id,
    machineId: Id,
    pointId: Id,
    sequence: Type.Integer({ minimum: 1 }),
    epoch: Type.Integer({ minimum: 1 }),
    parent: Type.Union([Type.Object({ pointId: Id, statementDigest: Type.String() }), Type.Null()]),
    disks: Type.Array(
      Type.Object({
        diskId: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,23}$' }),
        sizeBytes: Type.Integer({ minimum: 512, maximum: 2 ** 50 }),
      }),
      { minItems: 1, maxItems: 64 },
    ),
    blockBytes: Type.Literal(65536),
    granularityBytes: Type.Union([Type.Literal(4096), Type.Literal(65536)]),
    digest: Type.Literal('sha256'),
    firstFrame: Type.Literal(0),
  });
  if (Value.Check(Header, raw) && hasUniqueDisks(raw)) return raw;
  throw replicationFailure('REPLICATION_REQUEST_INVALID', 'the header of the offered delta is not valid');
}

function hasUniqueDisks({ disks }: Pick<DeltaHeader, 'disks'>): boolean {
  return new Set(disks.map(({ diskId }) => diskId)).size === disks.length;
}
