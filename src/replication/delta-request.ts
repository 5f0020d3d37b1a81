import type { DeltaHeader } from '../delta/index.ts';
import { chainAt, disksOf, layersSince, sizeAt } from './chain.ts';
import type { Delivered, DeliveryTools } from './delivery.ts';
import { missedBy } from './missed.ts';
import { rangesWithin } from './outrun.ts';
import type { ProtectedDisk, TargetRecord } from './records.ts';
import { HEADER_DEFAULTS, type SendRequest, saidOf } from './send-session.ts';
import type { SessionPlan } from './session-plan.ts';

export type SendPlan = Extract<SessionPlan, { kind: 'full' | 'incremental' }>;

/** What is sent for a plan, as plain data; pure. */
export function deltaRequest(
  { images, signer, siteId }: DeliveryTools,
  delivered: Delivered,
  target: TargetRecord,
  plan: SendPlan,
  session: string,
): Omit<SendRequest, 'trees' | 'signal'> {
  const { record: machine, cuts } = delivered;
  const { cut, sequence, parent } = plan;
  const disks = disksOf(machine.disks, cut);
  const since = target.acknowledged?.ordinal ?? 0;
  const ofDisks = <T>(work: (disk: ProtectedDisk) => T) =>
    Object.fromEntries(disks.map((disk) => [disk.diskId, work(disk)]));
  return {
    images,
    header: deltaHeader(delivered, target, plan, session),
    chains: ofDisks((disk) => chainAt(disk, cuts, cut)),
    layers: ofDisks((disk) => layersSince(disk, cuts, since, cut)),
    further: ofDisks((disk) => rangesWithin(target.outrun, disk.diskId, sizeAt(disk, cut))),
    said: {
      signer,
      about: {
        ...saidOf(machine, cut),
        ...{ sourceSiteId: siteId, sequence, parent, missed: missedBy(target, cuts, cut) },
      },
      tpmState: cut.tpm?.state,
    },
  };
}

export function deltaHeader(
  { record: { machineId, epoch, disks } }: Delivered,
  { session: begun }: TargetRecord,
  plan: SendPlan,
  session: string,
): Omit<DeltaHeader, 'firstFrame'> {
  const isWhole = plan.parent !== null && begun?.cutId === plan.cut.cutId && begun.wholeBlocks === true;
  return {
    session,
    machineId,
    pointId: plan.cut.cutId,
    sequence: plan.sequence,
    epoch,
    parent: plan.parent,
    disks: disksOf(disks, plan.cut).map((disk) => ({
      diskId: disk.diskId,
      sizeBytes: sizeAt(disk, plan.cut),
    })),
    ...HEADER_DEFAULTS,
    // What lies upon a base that has not come can be proven only by whole blocks.
    ...(isWhole ? { granularityBytes: HEADER_DEFAULTS.blockBytes } : {}),
  };
}
