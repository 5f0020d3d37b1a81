import { type Claim, compareClaims, type Tenure } from '../../src/recovery-point/index.ts';

/** What both models demand of the claims of two sites. */

interface Standing {
  readonly tenure: Tenure;
  readonly runs: boolean;
}

/** A claim as it stands among those that somebody has confirmed: another site's claim in the same epoch is another one. */
export function claimText({ epoch, siteId }: Claim): string {
  return `${epoch}${siteId}`;
}

export function isOneEpoch(one: Tenure, other: Tenure): boolean {
  return one.state === 'holds' && other.state === 'holds' && one.claim.epoch === other.claim.epoch;
}

/** What is wrong between two sites, by the claims that somebody has confirmed. */
export function claimsViolation(
  one: Standing,
  other: Standing,
  confirmed: readonly string[],
): string | undefined {
  const claims = [one.tenure.claim, other.tenure.claim].sort(compareClaims);
  // Only two people, each of whom says that the other side is down, bring that about.
  if (isOneEpoch(one.tenure, other.tenure) && !claims.every((claim) => confirmed.includes(claimText(claim))))
    return `both sites hold epoch ${one.tenure.claim.epoch}, and not each of them by somebody’s word`;
  for (const { tenure } of [one, other]) {
    if (tenure.state === 'fenced' && compareClaims(tenure.lost, tenure.claim) >= 0)
      return `claim ${claimText(tenure.lost)} gave way to ${claimText(tenure.claim)}, which is not higher`;
  }
  if (one.runs && other.runs && !confirmed.includes(claimText(claims[1]!)))
    return 'both sites run the machine, and nobody has confirmed anything';
  return undefined;
}
