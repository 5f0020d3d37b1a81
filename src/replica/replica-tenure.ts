import { type Claim, compareClaims, type Tenure } from '../recovery-point/index.ts';
import type { ReplicaChange, ReplicaRecord } from './records.ts';

/** Where a site with a replica stands with the right to run its machine; pure. docs/failover.md says what follows from it. */

export type ReplicaRight = Pick<ReplicaRecord, 'epoch' | 'sourceSiteId' | 'tenure' | 'offer'>;

export function tenureOfReplica({ tenure, epoch, sourceSiteId }: ReplicaRight): Tenure {
  return tenure ?? { state: 'follows', claim: { epoch, siteId: sourceSiteId } };
}

/** An offer that is not above what is known from now on is none any more. */
export function withTenure({ offer }: ReplicaRight, tenure: Tenure): ReplicaChange {
  const stands = offer && compareClaims(offer.claim, tenure.claim) > 0;
  return { tenure, epoch: tenure.claim.epoch, offer: stands ? offer : undefined };
}

/** Undefined: nothing changes, because something at least as high is known here, or this very offer. */
export function withOffer(
  record: ReplicaRight,
  offer: { claim: Claim; pointId: string },
): ReplicaChange | undefined {
  const tenure = tenureOfReplica(record);
  if (tenure.state !== 'follows' || compareClaims(offer.claim, tenure.claim) <= 0) return undefined;
  const order = record.offer ? compareClaims(offer.claim, record.offer.claim) : 1;
  return order > 0 ? { tenure: record.tenure, epoch: record.epoch, offer } : undefined;
}

/** The source of a replica that follows it makes its copies in a higher epoch: an offer to another site was withdrawn. */
export function followingSource(record: ReplicaRight, epoch: number): ReplicaChange | undefined {
  const { state, claim } = tenureOfReplica(record);
  if (state !== 'follows' || claim.siteId !== record.sourceSiteId || epoch <= claim.epoch) return undefined;
  return withTenure(record, { state: 'follows', claim: { epoch, siteId: record.sourceSiteId } });
}
