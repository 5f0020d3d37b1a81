import Type from 'typebox';

/**
 * Who may run a machine writable: pure, and the same at every site. docs/failover.md draws it.
 *
 * A *claim* is a right to run a machine, and its maker's id is in it, so that no two sites ever make the same one. Claims are
 * ordered; of two, the lower gives way as soon as its site hears of the higher. A site's *tenure* is where it stands, and is
 * durable before anything is done upon it: before a machine starts, before an offer or an answer leaves the site.
 */
export const Claim = Type.Object({
  epoch: Type.Integer({ minimum: 1, maximum: 2 ** 52 }),
  siteId: Type.String(),
});
export type Claim = Readonly<Type.Static<typeof Claim>>;

export const Tenure = Type.Union([
  /** The machine may run here, and nowhere else as far as is known here. */
  Type.Object({ state: Type.Literal('holds'), claim: Claim }),
  /** It has ended here, and its last state is at the site to which the right is offered; nobody may run it until that takes it. */
  Type.Object({ state: Type.Literal('cedes'), claim: Claim, offer: Claim }),
  /** Another site holds it, or did when it was last heard of; by its own claim: this site has given it up, and nobody holds it. */
  Type.Object({ state: Type.Literal('follows'), claim: Claim }),
  /** It held the machine when it heard of a higher claim; what was written here under the lost one must be set apart first. */
  Type.Object({ state: Type.Literal('fenced'), claim: Claim, lost: Claim }),
]);
export type Tenure = Readonly<Type.Static<typeof Tenure>>;

/** Below zero: `one` gives way to `other`. */
export function compareClaims(one: Claim, other: Claim): number {
  if (one.epoch !== other.epoch) return one.epoch - other.epoch;
  return one.siteId < other.siteId ? -1 : Number(one.siteId > other.siteId);
}

export function mayRun({ state }: Tenure): boolean {
  return state === 'holds';
}

/**
 * After another site has told of a claim. Nothing changes by one that is not higher than what is known here; who told it should hear
 * ours then.
 */
export function afterHearing(tenure: Tenure, siteId: string, claim: Claim): Tenure {
  const known = tenure.state === 'cedes' ? tenure.offer : tenure.claim;
  const order = compareClaims(claim, known);
  if (tenure.state === 'cedes' && order === 0) return { state: 'follows', claim };
  if (order <= 0) return tenure;
  // Only what we have asked for ourselves bears our name, and who answers with it has promised to follow it.
  if (tenure.state !== 'holds' && claim.siteId === siteId) return { state: 'holds', claim };
  switch (tenure.state) {
    case 'holds':
    case 'cedes':
      return { state: 'fenced', claim, lost: tenure.claim };
    case 'follows':
      return { state: 'follows', claim };
    case 'fenced':
      return { ...tenure, claim };
  }
}

/** The holder offers its right. It has ended the machine, and `toSiteId` has verified its last state: callers see to both. */
export function afterCeding(tenure: Tenure, toSiteId: string): Tenure | undefined {
  if (tenure.state !== 'holds') return undefined;
  const offer = { epoch: tenure.claim.epoch + 1, siteId: toSiteId };
  return { state: 'cedes', claim: tenure.claim, offer };
}

/** Takes an offer made to this site. Undefined: it is not, or no longer, to be had. Taking it again changes nothing. */
export function afterTaking(tenure: Tenure, siteId: string, offer: Claim): Tenure | undefined {
  if (offer.siteId !== siteId) return undefined;
  if (tenure.state === 'holds' && compareClaims(offer, tenure.claim) === 0) return tenure;
  if (tenure.state !== 'follows' || compareClaims(offer, tenure.claim) <= 0) return undefined;
  return { state: 'holds', claim: offer };
}

/**
 * The holder lets go of the machine, for nobody in particular. It has ended what it ran, and keeps what that wrote as a branch: callers
 * see to both. It follows its own claim then, until another site has asked for the machine. Undefined: it does not hold it.
 */
export function afterGivingUp(tenure: Tenure): Tenure | undefined {
  return tenure.state === 'holds' ? { state: 'follows', claim: tenure.claim } : undefined;
}

export function hasGivenUp({ state, claim }: Tenure, siteId: string): boolean {
  return state === 'follows' && claim.siteId === siteId;
}

/**
 * What a site asks to be followed by: to withdraw its offer, or to get back what the other site has given up. A claim of its own, above
 * all that it knows. Undefined: it holds the machine, or has given it up itself.
 */
export function withdrawalOf(tenure: Tenure, siteId: string): Claim | undefined {
  if (tenure.state === 'holds' || hasGivenUp(tenure, siteId)) return undefined;
  const { epoch } = tenure.state === 'cedes' ? tenure.offer : tenure.claim;
  return { epoch: epoch + 1, siteId };
}

/**
 * At the site that is asked by a withdrawal: after this it never takes the offer, or runs what it has given up. One that holds the
 * machine, or knows of more, or follows a third site, stays as it is, and its claim is the answer.
 */
export function afterWithdrawal(tenure: Tenure, siteId: string, withdrawal: Claim): Tenure {
  const isOurs = hasGivenUp(tenure, siteId) || tenure.claim.siteId === withdrawal.siteId;
  if (tenure.state !== 'follows' || !isOurs || compareClaims(withdrawal, tenure.claim) <= 0) return tenure;
  return { state: 'follows', claim: withdrawal };
}

/**
 * Takes the right without the holder's help. Nothing here can know whether the holder still runs: callers have a person's
 * confirmation on record, or a proof. Undefined in a state in which nothing is to be seized.
 */
export function afterSeizing(tenure: Tenure, siteId: string): Tenure | undefined {
  if (tenure.state !== 'follows' && tenure.state !== 'cedes') return undefined;
  const known = tenure.state === 'cedes' ? tenure.offer : tenure.claim;
  return { state: 'holds', claim: { epoch: known.epoch + 1, siteId } };
}

/** What was written under the lost claim is kept as a branch, and the machine has ended: callers see to both. */
export function afterSettingApart(tenure: Tenure): Tenure {
  return tenure.state === 'fenced' ? { state: 'follows', claim: tenure.claim } : tenure;
}
