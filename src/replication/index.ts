/**
 * Replication: what the protected side does, and the recovery side's answers to it.
 *
 * A *protected machine* is a machine of this site with its *protected chain*: the owner's own files, above them the layers
 * that cuts have sealed, and the tip that takes the guest's writes. A *cut* seals the tip; its record is the point that may
 * become of it. A *send session* reads what one cut sealed and makes the delta stream and the signed statement of it. A
 * *target* is a site that keeps the points; a *session plan* says what it needs next. The *digest store* keeps the digests of
 * the acknowledged state, so that making the next statement costs what has changed and not the disk.
 * A *forwarding* brings the points of a replica on to a further site, as their *origin*, the site that made them, has signed them.
 *
 * Promised: what changed since the last cut is what the sealed layer holds, so that no crash of host, process or link ever
 * leads to a full scan or a new seeding; a sealed layer is merged away only when every target has acknowledged its point
 * verified, or the ranges that it held are recorded for one that is far behind the others; while nothing is acknowledged the
 * chain stays short (`places.ts`), points are recorded as missed, and the next one sent carries their changes; a machine that runs on another state than the recorded one is left alone and
 * reported.
 *
 * Relied on: `Hypervisor` and `DiskImages` for what they demand of their implementers; the target's word that an
 * acknowledgement is durable.
 */

export { sizeAt } from './chain.ts';
export { cutGroup, type GroupCutOutcome, type GroupMember } from './cut-group.ts';
export type { CutTogether } from './cut-together.ts';
export type { TargetProgress } from './deliveries.ts';
export type { ReplicateOutcome } from './delivery.ts';
export type { NewDisk } from './disk-changes.ts';
export { type Diverged, loadDiverged } from './diverged.ts';
export { REPLICATION_ERRORS } from './errors.ts';
export type { ForwardPolicy } from './forward-records.ts';
export { Forwarding, type ForwardTools } from './forwarding.ts';
export {
  type Arrival,
  type HomeMachine as SpeakingMachine,
  type HomeMachines,
  NOTHING_AT_HOME,
} from './home-machines.ts';
export { isLocked } from './image-locks.ts';
export { ProtectedLayout } from './layout.ts';
export { newestCutMs, openMachineFiles } from './machine-files.ts';
export type { MachinePlace } from './machine-move.ts';
export {
  type GuestStandstill,
  hasEnded,
  isUnseen,
  type MachinePresence,
  standstillOf,
} from './machine-presence.ts';
export { checkHeld, claimElsewhere, notHeldFailure } from './machine-tenure.ts';
export { OfferedRights, rightsAt } from './offered-rights.ts';
export type { Origin } from './origin.ts';
export { PeerTarget } from './peer-target.ts';
export { ProtectedMachine, type ProtectedTools } from './protected-machine.ts';
export { hookFailureOf } from './quiesce.ts';
export { type ReceiverTools, ReplicationReceiver } from './receiver.ts';
export type {
  CutRecord,
  HookReport,
  MachineRecord,
  ProtectedDisk,
  Protection,
  TargetPolicy,
  TargetRecord,
} from './records.ts';
export { NicPlug } from './records.ts';
export type { SeedExported, SeedExportOptions } from './seed-export.ts';
export type { SendProgress, StatementSigner } from './send-session.ts';
export { planSession, type SessionConflict, type SessionPlan } from './session-plan.ts';
export type {
  Cession,
  OfferDetails,
  ReplicationTarget,
  RightAnswer,
  RightsTarget,
  SeedTarget,
} from './target.ts';
export {
  protectionOf,
  type TargetChange,
  targetOf,
  targetsOf,
  withoutTarget,
  withTarget,
  withTargetChanged,
} from './targets.ts';
export { grownTogether, tipGrowth } from './tip-growth.ts';
