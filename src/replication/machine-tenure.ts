import type { Failure } from '../lib/errors.ts';
import { afterHearing, type Claim, mayRun, type Tenure } from '../recovery-point/index.ts';
import { replicationFailure } from './errors.ts';
import type { MachineRecord } from './records.ts';

/** Where this site stands with its right to run a machine; pure. */

type Standing = Pick<MachineRecord, 'name' | 'epoch' | 'tenure'>;

export function tenureOf({ tenure, epoch }: Standing, siteId: string): Tenure {
  return tenure ?? { state: 'holds', claim: { epoch, siteId } };
}

/** The record of a machine after this site has heard of a claim; the same one if nothing changes by that. */
export function havingHeard(record: MachineRecord, siteId: string, claim: Claim): MachineRecord {
  const before = tenureOf(record, siteId);
  const tenure = afterHearing(before, siteId, claim);
  return tenure === before ? record : standingAs(record, tenure);
}

/** The record of a machine whose site stands so. Whoever holds it makes its copies in the epoch of its claim. */
export function standingAs({ tenure: _before, ...record }: MachineRecord, tenure: Tenure): MachineRecord {
  if (!mayRun(tenure)) return { ...record, tenure };
  // What its disks hold is the machine again, and no branch.
  const { diverged: _branch, ...held } = record;
  return { ...held, epoch: tenure.claim.epoch };
}

/** Throws PROTECTION_FENCED, PROTECTION_CEDED unless the machine may run here. */
export function checkHeld(record: Standing): void {
  const failure = notHeldFailure(record);
  if (failure) throw failure;
}

/** Copies that were made while it ran here are sent also when the machine is ceded, until another site has it. */
export function checkMaySend(record: Standing): void {
  if (record.tenure?.state !== 'cedes') checkHeld(record);
}

/** By which claim the machine may not run here, if it may not; one that nobody has taken yet is the offer. */
export function claimElsewhere({ tenure }: Pick<Standing, 'tenure'>): Claim | undefined {
  if (tenure === undefined || mayRun(tenure)) return undefined;
  return tenure.state === 'cedes' ? tenure.offer : tenure.claim;
}

/** Why the machine may not run here, if it may not. */
export function notHeldFailure(record: Standing): Failure | undefined {
  const { name, epoch, tenure } = record;
  const claim = claimElsewhere(record);
  if (!tenure || !claim) return undefined;
  const options = { context: { machine: name, epoch: claim.epoch, siteId: claim.siteId } };
  const there = `site ${claim.siteId}, in epoch ${claim.epoch}`;
  switch (tenure.state) {
    case 'cedes':
      return replicationFailure(
        'PROTECTION_CEDED',
        `${name} is offered to ${there}, and runs nowhere until it is taken there`,
        options,
      );
    case 'follows':
      return replicationFailure('PROTECTION_CEDED', `${name} was handed over to ${there}`, options);
    default: {
      const said = `${name} was brought up at ${there}; this site is in epoch ${epoch}`;
      return replicationFailure('PROTECTION_FENCED', said, options);
    }
  }
}

/** Throws PROTECTION_CEDED while another site may take the machine at any moment: only it can let go of that. */
export function checkNotOffered(record: Standing, siteId?: string): void {
  const { tenure } = record;
  if (tenure?.state !== 'cedes' || (siteId !== undefined && tenure.offer.siteId !== siteId)) return;
  throw notHeldFailure(record);
}

/**
 * A record whose protection has ended. Who `overrules` by that the claim that has fenced a machine decides for what this site has, above
 * every claim that is known; without it the machine stays fenced, and one that was handed over stays where it is.
 */
export function unprotected(record: MachineRecord, overrules: boolean): MachineRecord {
  const { tenure, diverged: _branch, ...others } = record;
  if (tenure?.state !== 'fenced' || !overrules) return { ...record, protection: null };
  const { epoch, siteId } = tenure.claim;
  return superseding({ ...others, epoch: epoch + 1, protection: null }, siteId);
}

/**
 * A record that remembers over whom the machine was claimed here: that site hears of it, also if nothing is replicated there, and may
 * answer with a claim of its own, whenever that is made.
 */
export function superseding(
  record: MachineRecord,
  siteId: string,
  o: { readonly told?: true } = {},
): MachineRecord {
  const others = record.superseded?.filter((other) => other.siteId !== siteId) ?? [];
  return { ...record, superseded: [...others, { siteId, ...o }] };
}

export function untoldOf({ superseded = [] }: Pick<MachineRecord, 'superseded'>): string[] {
  return superseded.filter(({ told }) => !told).map(({ siteId }) => siteId);
}
