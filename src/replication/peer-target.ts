import type { DeltaHeader } from '../delta/index.ts';
import type { Json } from '../lib/canonical-json.ts';
import type { Clock } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import type { PeerClient, UploadChunk } from '../peer/index.ts';
import type { RetentionPolicy } from '../recovery-point/index.ts';
import type { Acknowledgement, DigestPage, OfferAnswer, ReplicaDescription } from '../replica/index.ts';
import { replicationFailure } from './errors.ts';
import { rightsAt } from './offered-rights.ts';
import { checkPreview, needsVersion2, type RetentionPreview, retentionToWire } from './retention-wire.ts';
import type { OfferDetails, ReplicationTarget, RightsTarget, SeedTarget } from './target.ts';

/** An older copy that is slower to read than the line spares nothing; and the stream must not wait until it counts as stalled. */
const OLDER_TIMEOUT_MS = 10_000;

/** Another site as a target, over its peer connection. */
export class PeerTarget implements ReplicationTarget {
  readonly siteId: string;
  readonly #client: Pick<PeerClient, 'call' | 'upload'>;
  readonly #clock: Clock;

  constructor(o: { siteId: string; client: Pick<PeerClient, 'call' | 'upload'>; clock: Clock }) {
    this.siteId = o.siteId;
    this.#client = o.client;
    this.#clock = o.clock;
  }

  async describe(
    machineId: string,
    signal?: AbortSignal,
    acknowledged?: string,
  ): Promise<ReplicaDescription | null> {
    const body = { machineId, ...(acknowledged === undefined ? {} : { acknowledged }) };
    const answer = await this.#client.call('replica.describe', body, signal ? { signal } : {});
    return answer as unknown as ReplicaDescription | null;
  }

  async offer(header: DeltaHeader, details: OfferDetails, signal?: AbortSignal): Promise<OfferAnswer> {
    const retention = retentionToWire(details.retention);
    const { machineName, forwarded } = details;
    const wallMs = this.#clock.wallMs() + (forwarded?.skewMs ?? 0);
    const offered = { header, machineName, retention, wallMs };
    const body = forwarded ? { ...offered, origin: forwarded.origin } : offered;
    const call = forwarded ? 'replica.forward' : 'replica.offer';
    try {
      const answer = await this.#client.call(call, body as unknown as Json, signal ? { signal } : {});
      return answer as unknown as OfferAnswer;
    } catch (error) {
      if (forwarded && isFailure(error, 'PEER_CALL_UNKNOWN')) {
        const said = 'the other site runs a version that takes no points from a replica';
        throw replicationFailure('REPLICATION_FORWARD_UNKNOWN', said, { cause: error });
      }
      if (!isFailure(error, 'REPLICATION_REQUEST_INVALID') || !needsVersion2(details.retention)) throw error;
      const said = 'the recovery site runs a version that does not know this kind of retention policy';
      throw replicationFailure('REPLICATION_RETENTION_UNKNOWN', said, { cause: error });
    }
  }

  async olderLeaves(session: string, page: DigestPage, signal?: AbortSignal): Promise<Uint8Array> {
    const options = { timeoutMs: OLDER_TIMEOUT_MS, ...(signal ? { signal } : {}) };
    const answer = await this.#client.call('replica.older-leaves', { session, ...page }, options);
    const { leaves } = (answer ?? {}) as { leaves?: unknown };
    return Buffer.from(typeof leaves === 'string' ? leaves : '', 'base64');
  }

  /** What the policy would do with the points that the target has now. */
  async preview(machineId: string, policy: RetentionPolicy): Promise<RetentionPreview> {
    const retention = retentionToWire(policy);
    return checkPreview(await this.#client.call('replica.preview', { machineId, retention }), policy);
  }

  /** Whether it keeps points together that were cut together. */
  async knowsGroups(): Promise<boolean> {
    try {
      await this.#client.call('replica.groups', {});
      return true;
    } catch (error) {
      if (isFailure(error, 'PEER_CALL_UNKNOWN')) return false;
      throw error;
    }
  }

  get rights(): RightsTarget {
    return rightsAt(this.#client);
  }

  get seeds(): SeedTarget {
    return {
      announce: async (announcement, details, leaves, signal) => {
        const retention = retentionToWire(details.retention);
        const body = { ...announcement, ...details, retention, wallMs: this.#clock.wallMs() };
        const options = signal ? { signal } : {};
        const known = await this.#client.call('replica.announce-seed', body as unknown as Json, options);
        const answer = known ?? (await this.#client.upload(announcement.session, leaves, options));
        return answer as unknown as Acknowledgement;
      },
      keep: async (machineId, pointId, signal) => {
        await this.#client.call('replica.keep-for-seed', { machineId, pointId }, signal ? { signal } : {});
      },
    };
  }

  async upload(
    _machineId: string,
    session: string,
    stream: AsyncIterable<UploadChunk>,
    signal?: AbortSignal,
  ): Promise<Acknowledgement> {
    const answer = await this.#client.upload(session, stream, signal ? { signal } : {});
    return answer as unknown as Acknowledgement;
  }
}
