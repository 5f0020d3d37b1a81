import type { MachineView, PeerView, PointView, ReplicationView } from '../../api/index.ts';
import type { ApplicationProof, BootProof } from '../../failover/index.ts';
import {
  BUILT_IN_TYPES,
  type GroupCut,
  hasGivenUp,
  type TpmSaid,
  tpmSaid,
} from '../../recovery-point/index.ts';
import { type Replica, type ReplicaPoint, tenureOfReplica } from '../../replica/index.ts';
import {
  type CutRecord,
  claimElsewhere,
  type GuestStandstill,
  type MachinePresence,
  type ProtectedDisk,
  type ProtectedMachine,
  type Protection,
  sizeAt,
  type TargetPolicy,
  targetsOf,
} from '../../replication/index.ts';
import { failureOf } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';
import type { LeaseStanding } from '../leases/lease-keeper.ts';
import type { HomeMachine } from '../machines/machines.ts';
import type { ForwardReport } from '../replicas/forwards.ts';
import type { KeepReasons, PointProofs } from '../replicas/replica-keeper.ts';

/** What the site tells of its things; pure, from plain data. */

type NameOf = (siteId: string) => string | undefined;

/** The bandwidth that holds at the moment. */
type LimitNow = (limits: Pick<TargetPolicy, 'bytesPerSecond' | 'limitWindows'>) => number | undefined;

export function homeView(
  { machine, loop }: HomeMachine,
  o: {
    readonly nameOf: NameOf;
    readonly limitNow: LimitNow;
    readonly standing: LeaseStanding | undefined;
  },
): MachineView {
  const { nameOf, limitNow, standing } = o;
  const { machineId, name, epoch, configuration, kind, sockets, disks, protection } = machine.record;
  const targetName = protection && nameOf(protection.targetSiteId);
  return {
    machineId,
    name,
    epoch,
    role: 'protected',
    configuration,
    protected: {
      kind,
      presence: presenceView(machine.presence),
      ...heldByOther(machine.record, nameOf),
      ...leaseView(machine.record, nameOf, standing),
      qmpPath: sockets.qmpPath,
      ...(sockets.agentPath === undefined ? {} : { agentPath: sockets.agentPath }),
      disks: disks.map((disk) => ({
        diskId: disk.diskId,
        sizeBytes: sizeAt(disk, machine.cuts.at(-1)),
        ...(isNew(disk, machine) ? { isNew: true as const } : {}),
        ...(disk.leaving ? { isLeaving: true as const } : {}),
        chain: machine.chain(disk.diskId).map(({ path, format }) => ({ path, format })),
      })),
      protection: protection && {
        targetSiteId: protection.targetSiteId,
        ...(targetName ? { targetName } : {}),
        targets: targetsOf(protection).map((target) => targetView(target, nameOf, limitNow)),
        ...policyView(protection, limitNow),
      },
      replication: protection && loop ? withNames(loop.report(), nameOf) : null,
    },
  };
}

const HOW_HELD = {
  holds: 'handed-over',
  cedes: 'offered',
  follows: 'handed-over',
  fenced: 'fenced',
} as const;

function heldByOther(record: ProtectedMachine['record'], nameOf: NameOf) {
  const claim = claimElsewhere(record);
  if (!claim) return {};
  const { siteId, epoch } = claim;
  const how = HOW_HELD[record.tenure!.state];
  const name = nameOf(siteId);
  return { heldBy: { siteId, epoch, how, ...(name === undefined ? {} : { name }) } };
}

function leaseView(
  { lease }: ProtectedMachine['record'],
  nameOf: NameOf,
  standing: LeaseStanding | undefined,
) {
  if (!lease) return {};
  const lenders = [lease.recoverySiteId, lease.witnessSiteId].map((siteId) => {
    const name = nameOf(siteId);
    const role = siteId === lease.witnessSiteId ? ('witness' as const) : ('recovery' as const);
    return { siteId, role, lentMs: standing?.lentMs[siteId] ?? 0, ...(name === undefined ? {} : { name }) };
  });
  const guest = standing?.guest;
  return { lease: { leaseMs: lease.leaseMs, lenders, ...(guest ? { guest } : {}) } };
}

/** Taken in while the others have been copied already. */
function isNew({ sinceOrdinal = 1 }: ProtectedDisk, { cuts }: Pick<ProtectedMachine, 'cuts'>): boolean {
  const last = cuts.at(-1);
  return last !== undefined && last.ordinal < sinceOrdinal;
}

function targetView(target: TargetPolicy, nameOf: NameOf, limitNow: LimitNow) {
  const { siteId, limitWindows = [], ...policy } = target;
  const name = nameOf(siteId);
  const limit = limitNow(target);
  return {
    ...{ siteId, limitWindows, ...policy },
    ...(name === undefined ? {} : { name }),
    ...(limit === undefined ? {} : { limitNow: limit }),
  };
}

function withNames(replication: ReplicationView, nameOf: NameOf): ReplicationView {
  const targets = replication.targets.map((target) => {
    const name = nameOf(target.siteId);
    return name === undefined ? target : { ...target, name };
  });
  return { ...replication, targets };
}

function policyView(protection: Protection, limitNow: LimitNow) {
  const {
    copyTypes = [],
    schedules,
    blackouts = [],
    retention,
    freezeLimitMs,
    bytesPerSecond,
    limitWindows = [],
  } = protection;
  const limit = limitNow(protection);
  return {
    copyTypes: [
      ...BUILT_IN_TYPES.map((type) => ({ ...type, isBuiltIn: true })),
      ...copyTypes.map((type) => ({ ...type, isBuiltIn: false })),
    ],
    schedules,
    ...{ blackouts, retention, freezeLimitMs, limitWindows },
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    ...(limit === undefined ? {} : { limitNow: limit }),
    compression: protection.compression,
  };
}

function presenceView(presence: MachinePresence): NonNullable<MachineView['protected']>['presence'] {
  switch (presence.state) {
    case 'running':
      return {
        state: 'running',
        ...(presence.processId === undefined ? {} : { processId: presence.processId }),
        ...(presence.standstill ? { standstill: standstillView(presence.standstill) } : {}),
      };
    case 'stopped':
      return { state: 'stopped' };
    default:
      return { state: presence.state, reason: presence.reason };
  }
}

function standstillView({ why, diskIds }: GuestStandstill) {
  return { why, disks: [...diskIds] };
}

/** The source site's interval is not known here; the age of the newest point is. */
export function replicaView(
  replica: Replica,
  siteId: string,
  forwards: readonly ForwardReport[],
  nameOf: NameOf,
  nowMs: number,
): MachineView {
  const { machineId, machineName, epoch, sourceSiteId, viaSiteId, retention } = replica.record;
  const newest = replica.newest;
  const sourceName = nameOf(sourceSiteId);
  const { incoming } = replica.describe();
  return {
    machineId,
    name: machineName,
    epoch,
    role: 'replica',
    ...(newest ? { configuration: newest.statement.configuration } : {}),
    replica: {
      state: replicaState(replica),
      ...rightHere(replica, siteId),
      sourceSiteId,
      ...(sourceName ? { sourceName } : {}),
      ...(viaSiteId === undefined ? {} : { viaSiteId, ...named('viaName', nameOf(viaSiteId)) }),
      ...(forwards.length > 0 ? { forwards: forwards.map((one) => forwardView(one, nameOf)) } : {}),
      points: replica.points.length,
      branches: replica.branches.length,
      retention,
      ...(newest
        ? {
            newest: {
              pointId: newest.statement.pointId,
              sequence: newest.statement.sequence,
              copyType: newest.statement.copyType,
              consistency: newest.statement.consistency,
              cutAtMs: Math.round(newest.manifest.cutAtHereMs),
              skewMs: newest.manifest.skewMs,
            },
          }
        : {}),
      ...(incoming ? { incoming: { pointId: incoming.pointId } } : {}),
      ...(replica.awaitsSeed ? { awaitsSeed: true as const } : {}),
      rpo:
        newest && !replica.awaitsSeed ? { actualMs: Math.max(0, nowMs - newest.manifest.cutAtHereMs) } : {},
    },
  };
}

function rightHere({ record }: Replica, siteId: string): Pick<NonNullable<MachineView['replica']>, 'right'> {
  if (record.adopted !== undefined) return { right: 'adopted' };
  const tenure = tenureOfReplica(record, siteId);
  if (tenure.state === 'holds') return { right: 'held' };
  if (hasGivenUp(tenure, siteId)) return { right: 'given-up' };
  return record.offer ? { right: 'offered' } : {};
}

function replicaState({
  newest,
  awaitsSeed,
  branches,
}: Replica): Exclude<NonNullable<MachineView['replica']>['state'], 'broken'> {
  if (branches.some(({ purpose }) => purpose === 'failover')) return 'failed-over';
  return newest && !awaitsSeed ? 'standby' : 'seeding';
}

function forwardView({ policy, state }: ForwardReport, nameOf: NameOf) {
  const { siteId, retention, copyTypes, spacingMs, bytesPerSecond, compression } = policy;
  return {
    ...{ ...state, ...named('name', nameOf(siteId)), retention, compression },
    ...(copyTypes ? { copyTypes } : {}),
    ...(spacingMs === undefined ? {} : { spacingMs }),
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
  };
}

function named<K extends string>(key: K, name: string | undefined): { [P in K]?: string } {
  return name === undefined ? {} : ({ [key]: name } as { [P in K]?: string });
}

/** A machine that cannot be opened is shown all the same: silence would look like its absence. */
export function brokenView(
  { machineId, error }: { readonly machineId: string; readonly error: Error },
  role: MachineView['role'],
): MachineView {
  const broken = recordOf(error);
  const replica = { state: 'broken' as const, sourceSiteId: '', points: 0, branches: 0, rpo: {}, broken };
  return { machineId, name: machineId, epoch: 0, role, broken, ...(role === 'replica' ? { replica } : {}) };
}

export function recordOf(error: unknown): NonNullable<MachineView['broken']> {
  // The context of a failure holds no undefined once it has been through JSON.
  return JSON.parse(JSON.stringify(failureOf(error).toJSON()));
}

export function replicaPointView(
  point: ReplicaPoint,
  { awaitsSeed }: Pick<Replica, 'awaitsSeed'>,
  proofs: PointProofs,
  keptFor: KeepReasons,
  wholeCuts: ReadonlySet<string>,
): PointView {
  const { statement, manifest, statementDigest } = point;
  const { content, boot, application } = proofs;
  return {
    pointId: statement.pointId,
    machineId: statement.machineId,
    sequence: statement.sequence,
    state: awaitsSeed ? 'awaiting-seed' : 'verified',
    copyType: statement.copyType,
    consistency: statement.consistency,
    ...(statement.degraded === undefined ? {} : { degraded: statement.degraded }),
    ...(application?.verdict === 'failed' ? { demoted: true as const } : {}),
    ...(statement.assertions ? { claims: statement.assertions.map(({ name }) => name) } : {}),
    cutAtMs: Math.round(manifest.cutAtHereMs),
    skewMs: manifest.skewMs,
    publishedAtMs: manifest.publishedAtMs,
    pauseMs: statement.pauseMs,
    ...(statement.frozenMs === undefined ? {} : { frozenMs: statement.frozenMs }),
    ...tpmView(statement.tpm),
    changedBytes: statement.disks.reduce((sum, disk) => sum + disk.changedBytes, 0),
    receivedBytes: manifest.receivedBytes,
    ...(manifest.olderBytes === undefined ? {} : { olderBytes: manifest.olderBytes }),
    epoch: statement.epoch,
    ...(statement.parent ? { parentPointId: statement.parent.pointId } : {}),
    statementDigest,
    missed: statement.missed.length,
    proofs: {
      ...(content ? { content: { verifiedAtMs: content.verifiedAtMs } } : {}),
      ...(boot ? { boot: bootView(boot) } : {}),
      ...(application ? { application: applicationView(application) } : {}),
    },
    ...(statement.group
      ? { group: { ...groupView(statement.group), whole: wholeCuts.has(statement.group.cutId) } }
      : {}),
    ...(manifest.hold ? { hold: manifest.hold } : {}),
    keptFor: [...keptFor],
    disks: statement.disks.map(({ diskId, sizeBytes, changedBytes, root }) => ({
      ...{ diskId, sizeBytes, changedBytes, root },
    })),
  };
}

/** What it holds is nobody's business: keys. */
function tpmView(tpm: TpmSaid | undefined): Pick<PointView, 'tpm'> {
  if (!tpm) return {};
  const { captured, pauseMs, sizeBytes } = tpm;
  return { tpm: { captured, pauseMs, bytes: sizeBytes } };
}

function groupView({ groupId, groupName: name, cutId, pauseMs, members }: GroupCut) {
  return { groupId, name, cutId, pauseMs, machines: members.length };
}

function applicationView(proof: ApplicationProof): NonNullable<PointView['proofs']['application']> {
  const assertions = proof.assertions.map(({ tookMs: _, ...assertion }) => assertion);
  return { held: proof.verdict === 'held', atMs: proof.startedAtMs, assertions };
}

function bootView(boot: BootProof): NonNullable<PointView['proofs']['boot']> {
  return {
    passed: boot.verdict === 'passed',
    atMs: boot.startedAtMs,
    ...(boot.rtoMs === null ? {} : { rtoMs: boot.rtoMs }),
  };
}

/** A copy as the protected site knows it; what became of it at the other site is known there. */
export function cutView(machine: ProtectedMachine, cut: CutRecord): PointView {
  const holding = machine.targets.filter(({ record }) => cut.ordinal <= (record.acknowledged?.ordinal ?? 0));
  const isThere = holding.length > 0;
  const awaitsSeed = holding.every(({ record }) => record.seed?.state === 'awaited');
  const isSending = machine.targets.some(({ sending }) => sending?.pointId === cut.cutId);
  const acknowledged = holding.find(({ record }) => record.acknowledged?.pointId === cut.cutId)?.record
    .acknowledged;
  return {
    pointId: cut.cutId,
    machineId: machine.record.machineId,
    ...(acknowledged ? { sequence: acknowledged.sequence } : {}),
    state: isThere ? (awaitsSeed ? 'awaiting-seed' : 'verified') : isSending ? 'sending' : 'unsent',
    copyType: cut.copyType,
    consistency: cut.consistency,
    ...(cut.degraded === undefined ? {} : { degraded: cut.degraded }),
    cutAtMs: cut.cutAtMs,
    pauseMs: cut.pauseMs,
    ...(cut.frozenMs === undefined ? {} : { frozenMs: cut.frozenMs }),
    ...tpmView(cut.tpm && tpmSaid(cut.tpm)),
    ...(cut.hooks ? { hooks: cut.hooks } : {}),
    missed: cut.missed.length,
    ...(cut.group ? { group: groupView(cut.group) } : {}),
    proofs: {},
  };
}

/**
 * Which of the peers a person means: by id or name; the only one there is if nobody is named. Throws SITE_PEER_UNKNOWN,
 * SITE_PEER_UNCLEAR.
 */
export function peerMeant(peers: readonly PeerView[], reference: string | undefined): PeerView {
  const paired = peers.filter(({ revokedAtMs }) => revokedAtMs === undefined);
  const meant =
    reference === undefined
      ? paired
      : paired.filter(({ siteId, name }) => siteId === reference || name === reference);
  const [peer, another] = meant;
  if (peer && !another) return peer;
  throw reference === undefined
    ? controlFailure('SITE_PEER_UNCLEAR', 'there is not one paired site')
    : controlFailure('SITE_PEER_UNKNOWN', `there is no paired site ${reference}`);
}
