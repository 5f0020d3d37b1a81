import type { DeltaHeader } from '../delta/index.ts';
import type { UploadChunk } from '../peer/index.ts';
import type { Claim, RetentionPolicy, SignedStatement, Tenure } from '../recovery-point/index.ts';
import type { Acknowledgement, DigestPage, OfferAnswer, ReplicaDescription } from '../replica/index.ts';
import type { Origin } from './origin.ts';

/** What travels beside the header of an offered delta. */
export interface OfferDetails {
  readonly machineName: string;
  readonly retention: RetentionPolicy;
  /** The point was made by another site, and comes from the replica here. */
  readonly forwarded?: {
    readonly origin: Origin;
    /** The origin's clock minus ours, as measured when the point came here. */
    readonly skewMs: number;
  };
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
  /**
   * What the target holds of a machine; null if it has never heard of it. `acknowledged` is the point that it has acknowledged last, as
   * far as is known here: where the machine ran since, upon older points, that tells which history is meant.
   */
  describe(
    machineId: string,
    signal?: AbortSignal,
    acknowledged?: string,
  ): Promise<ReplicaDescription | null>;
  offer(header: DeltaHeader, details: OfferDetails, signal?: AbortSignal): Promise<OfferAnswer>;
  /**
   * The leaves of an older copy that the answer to an offer spoke of, 32 bytes a block; zero bytes: not there. For while the
   * session's stream is being uploaded.
   */
  olderLeaves?(session: string, page: DigestPage, signal?: AbortSignal): Promise<Uint8Array>;
  /** Who may run the machine; absent where nothing is known of that. */
  readonly rights?: RightsTarget;
  /** What goes by courier, and is told over the wire. */
  readonly seeds: SeedTarget;
  upload(
    machineId: string,
    session: string,
    stream: AsyncIterable<UploadChunk>,
    signal?: AbortSignal,
  ): Promise<Acknowledgement>;
}

/** What a target knows of the right to run a machine, durably. */
export interface RightAnswer {
  /** The highest claim that it knows. */
  readonly claim: Claim;
  /** Where it stands itself. */
  readonly state: Tenure['state'];
  /** To a claim: why its machine would not start there; absent where nothing is known to hinder it. */
  readonly hindrance?: string;
}

/** The part of a target that is told of rights: docs/protocol.md. Throws PEER_CALL_UNKNOWN where it runs an older version. */
export interface RightsTarget {
  /** This site holds the machine by this claim. */
  claim(machineId: string, claim: Claim, signal?: AbortSignal): Promise<RightAnswer>;
  /** This site offers it to the target. */
  offer(machineId: string, cession: Cession, signal?: AbortSignal): Promise<RightAnswer>;
  /** This site asks the target to let go of an offer. */
  withdraw(machineId: string, withdrawal: Claim, signal?: AbortSignal): Promise<RightAnswer>;
}

export interface Cession {
  /** By which the machine was held until now. */
  readonly claim: Claim;
  readonly offer: Claim;
  /** The point that the target has of the last state. */
  readonly pointId: string;
  readonly sequence: number;
}

/** The part of a target that is told of seeds. */
export interface SeedTarget {
  /**
   * The base of a machine comes by courier: this is what it will be. `leaves` gives for each disk of the statement eight bytes of
   * length and the leaves file. Deltas can be laid on the point on return. A repetition is answered as the first time.
   */
  announce(
    announcement: { readonly session: string; readonly signed: SignedStatement },
    details: OfferDetails,
    leaves: AsyncIterable<UploadChunk>,
    signal?: AbortSignal,
  ): Promise<Acknowledgement>;
  /** Another seed, of this point, which awaits its base, is being made: durably, the point is to stay. */
  keep(machineId: string, pointId: string, signal?: AbortSignal): Promise<void>;
}
