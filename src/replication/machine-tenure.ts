import type { Failure } from '../lib/errors.ts';
import { afterHearing, type Claim, mayRun, type Tenure } from '../recovery-point/index.ts';
import { replicationFailure } from './errors.ts';
import type { MachineRecord } from './records.ts';

/** Where this site stands with its right to run a machine; pure. */
function tenureOf({ tenure, epoch }: MachineRecord, siteId: string): Tenure {
  return tenure ?? { state: 'holds', claim: { epoch, siteId } };
}

/** The record of a machine after this site has heard of a claim; the same one if nothing changes by that. */
export function havingHeard(record: MachineRecord, siteId: string, claim: Claim): MachineRecord {
  const before = tenureOf(record, siteId);
  const tenure = afterHearing(before, siteId, claim);
  return tenure === before ? record : { ...record, tenure };
}

/** Throws PROTECTION_FENCED unless the machine may run here. */
export function checkHeld(record: MachineRecord): void {
  const failure = fencedFailure(record);
  if (failure) throw failure;
}

/** By which claim the machine may not run here, if it may not. */
export function claimElsewhere({ tenure }: Pick<MachineRecord, 'tenure'>): Claim | undefined {
  return tenure === undefined || mayRun(tenure) ? undefined : tenure.claim;
}

/** Why the machine may not run here, if it may not. */
export function fencedFailure(record: MachineRecord): Failure | undefined {
  const { name, epoch } = record;
  const claim = claimElsewhere(record);
  if (!claim) return undefined;
  const said = `${name} was brought up at site ${claim.siteId}, in epoch ${claim.epoch}; this site is in epoch ${epoch}`;
  return replicationFailure('PROTECTION_FENCED', said, {
    context: { machine: name, epoch: claim.epoch, siteId: claim.siteId },
  });
}
