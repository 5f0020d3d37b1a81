import type { DeltaHeader } from '../delta/index.ts';
import type { UploadChunk } from '../peer/index.ts';
import type { RetentionPolicy } from '../recovery-point/index.ts';
import type { Acknowledgement, OfferAnswer, ReplicaDescription } from '../replica/index.ts';

/** What travels beside the header of an offered delta. */
export interface OfferDetails {
  readonly machineName: string;
  readonly retention: RetentionPolicy;
}

/**
 * The other end of a replication: a site that keeps points of our machines.
 *
 * What an implementation must provide: an acknowledgement returned by `upload` means that the target would still
 * have that point if it lost its power now. Failures with retry `later` or `reconnect` leave the target able to go on
 * from what is durable there. The memory of a chunk belongs to the stream again when the next one is asked for.
 */
export interface ReplicationTarget {
  readonly siteId: string;
  /** What the target holds of a machine; null if it has never heard of it. */
  describe(machineId: string, signal?: AbortSignal): Promise<ReplicaDescription | null>;
  offer(header: DeltaHeader, details: OfferDetails, signal?: AbortSignal): Promise<OfferAnswer>;
  upload(
    machineId: string,
    session: string,
    stream: AsyncIterable<UploadChunk>,
    signal?: AbortSignal,
  ): Promise<Acknowledgement>;
}
