import type { PlanDocument, PlanRun, SelectionWish } from '../../api/index.ts';
import { checkMachineConfiguration, type MachineConfiguration } from '../../hypervisor/index.ts';
import { isFailure } from '../../lib/errors.ts';
import { claimElsewhere } from '../../replication/index.ts';
import type { Found } from '../inventory/inventory.ts';

/** What a plan finds of its machines at a site, and wishes of them. */

/** It is at home here, after it was brought up here. */
export function isAdopted({ home }: Found): boolean {
  return home?.record.adopted !== undefined && !claimElsewhere(home.record);
}

/** Another site has it: it was handed over, or brought up there. */
export function isHandedOver(found: Found): boolean {
  const { home } = found;
  return home !== undefined && claimElsewhere(home.record) !== undefined && offeredTo(found) === undefined;
}

/** The site to which this one offers it, until that one has taken it. */
export function offeredTo({ home }: Found): string | undefined {
  const tenure = home?.record.tenure;
  return tenure?.state === 'cedes' ? tenure.offer.siteId : undefined;
}

/** Undefined also for a description that this version does not understand: what comes of that is its own machine's matter. */
export function configurationOf({ home, replica }: Found): MachineConfiguration | undefined {
  const newest = replica?.newest?.statement.configuration;
  if (newest === undefined) return home?.record.configuration;
  try {
    return checkMachineConfiguration(newest);
  } catch (error) {
    if (!isFailure(error, 'MACHINE_CONFIGURATION_INVALID')) throw error;
    return undefined;
  }
}

/** Which points of a machine are the best, as the plan says. */
export function wishOf({ machines, points }: PlanDocument, machine: string): SelectionWish {
  const { atLeast, points: own } = machines[machine]!;
  return { ...points, ...(atLeast ? { atLeast } : {}), ...own };
}

/** From which point a run brings a machine up. A rehearsal proves what would be taken next, and asks no proof. */
export function chosen({ steps, document, request }: PlanRun, machine: string) {
  const step = steps.find((one) => one.machine === machine);
  if (step?.pointId !== undefined) return { point: step.pointId, why: `of cut ${step.cutId} of its group` };
  const { provenOnly, ...wish } = wishOf(document, machine);
  const whole = request.mode === 'test' || provenOnly === undefined ? wish : { ...wish, provenOnly };
  return Object.keys(whole).length > 0 ? { wish: whole } : {};
}
