import { type Claim, compareClaims, type Tenure } from '../recovery-point/index.ts';
import type { ReplicaChange, ReplicaRecord } from './records.ts';

/** Where a site with a replica stands with the right to run its machine; pure. docs/failover.md says what follows from it. */

export type ReplicaRight = Pick<ReplicaRecord, 'epoch' | 'sourceSiteId' | 'tenure' | 'offer'>;

export function rightState({ tenure, epoch }: Pick<ReplicaRight, 'tenure' | 'epoch'>): Tenure['state'] {
  if (tenure) return tenure.state;
  // Before tenures were recorded nothing but a failover here raised the epoch.
  return epoch > 1 ? 'holds' : 'follows';
}

/** `siteId` is the site that has the replica. */
export function tenureOfReplica(record: ReplicaRight, siteId: string): Tenure {
  const { tenure, epoch, sourceSiteId } = record;
  if (tenure) return tenure;
  return rightState(record) === 'holds'
    ? { state: 'holds', claim: { epoch, siteId } }
    : { state: 'follows', claim: { epoch, siteId: sourceSiteId } };
}

/** Of a replica that is new here. */
export function firstTenure(epoch: number, sourceSiteId: string): { tenure?: Tenure } {
  return epoch > 1 ? { tenure: { state: 'follows', claim: { epoch, siteId: sourceSiteId } } } : {};
}

/** An offer that is not above what is known from now on is none any more. */
export function withTenure({ offer }: Pick<ReplicaRight, 'offer'>, tenure: Tenure): ReplicaChange {
  const stands = offer && compareClaims(offer.claim, tenure.claim) > 0;
  return { tenure, epoch: tenure.claim.epoch, offer: stands ? offer : undefined };
}

/** Undefined: nothing changes, because something at least as high is known here, or this very offer. */
export function withOffer(
  record: ReplicaRight,
  siteId: string,
  offer: { claim: Claim; pointId: string },
): ReplicaChange | undefined {
  const tenure = tenureOfReplica(record, siteId);
  if (tenure.state !== 'follows' || compareClaims(offer.claim, tenure.claim) <= 0) return undefined;
  const order = record.offer ? compareClaims(offer.claim, record.offer.claim) : 1;
  return order > 0 ? { offer } : undefined;
}

/** The source of a replica that follows it makes its copies in a higher epoch: an offer to another site was withdrawn. */
export function followingSource(record: ReplicaRight, epoch: number): ReplicaChange | undefined {
  const { tenure, sourceSiteId } = record;
  const isTheirs = tenure === undefined || tenure.claim.siteId === sourceSiteId;
  if (rightState(record) !== 'follows' || !isTheirs || epoch <= record.epoch) return undefined;
  return withTenure(record, { state: 'follows', claim: { epoch, siteId: sourceSiteId } });
}

/** Whether a change says who may run the machine. */
export function isDecided(before: ReplicaRight, after: ReplicaRight): boolean {
  return before.tenure !== after.tenure || before.offer !== after.offer || before.epoch !== after.epoch;
}
