import Type from 'typebox';
import {
  AbsolutePath,
  Bytes,
  ConsistencyName,
  CopyTypeName,
  Count,
  FailureShape,
  Id,
  Reference,
  WallTime,
} from './common.ts';
import { Networks } from './failovers.ts';
import { LeaseView } from './leases.ts';
import {
  CopyTypeShape,
  Every,
  LimitWindowShape,
  Retention,
  ScheduleShape,
  Spacing,
  WindowShape,
} from './policies.ts';
import { ReplicaView } from './replicas.ts';
import { ReplicationView } from './replication-view.ts';

const ImageFormat = Type.Union([Type.Literal('qcow2'), Type.Literal('raw')]);
const Image = Type.Object({ path: AbsolutePath, format: ImageFormat });

/** A machine that this site starts itself. */
const AddManaged = Type.Object(
  {
    /** The machine in platform-neutral words; docs/format.md, «Machine configuration». */
    configuration: Type.Unknown(),
    /** One file for each disk of the configuration. */
    disks: Type.Array(
      Type.Object(
        { diskId: Type.String({ minLength: 1, maxLength: 24 }), path: AbsolutePath, format: ImageFormat },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: 64 },
    ),
    /** Of a machine with a TPM: where that has its state; one without a state gets a new TPM. */
    tpmDirectory: Type.Optional(AbsolutePath),
    /** Handed to QEMU as they are. */
    extraArguments: Type.Optional(Type.Array(Type.String({ maxLength: 4096 }), { maxItems: 256 })),
    /** What its NICs are connected to when this site starts it; the cable of one that is not named is unplugged. */
    networks: Type.Optional(Networks),
  },
  { additionalProperties: false },
);

/**
 * A disk that the machine has got. One that runs is asked for it: `device`, `file`, or the only one that is not protected. Of one that is
 * off, and started by this site, `file` is the disk.
 */
export const AddDiskRequest = Type.Object(
  {
    /** `disk1`, `disk2` … if absent. */
    diskId: Type.Optional(Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,23}$' })),
    /** The hypervisor's name of the device, as the alert MACHINE_DISK_LEFT_OUT tells it. */
    device: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
    file: Type.Optional(
      Type.Object({ path: AbsolutePath, format: ImageFormat }, { additionalProperties: false }),
    ),
    /** Of a machine that is off; as its first disk if absent. */
    bus: Type.Optional(
      Type.Union([
        Type.Literal('virtio-blk'),
        Type.Literal('virtio-scsi'),
        Type.Literal('ide'),
        Type.Literal('sata'),
      ]),
    ),
  },
  { additionalProperties: false },
);
export type AddDiskRequest = Type.Static<typeof AddDiskRequest>;

/** A machine that somebody else started; its disks and configuration are asked of it. */
const AddAttached = Type.Object(
  {
    attach: Type.Object(
      {
        name: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
        qmpPath: AbsolutePath,
        agentPath: Type.Optional(AbsolutePath),
        /** Where its TPM has its state: nobody else can tell. */
        tpmDirectory: Type.Optional(AbsolutePath),
      },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false },
);

export const AddMachineRequest = Type.Union([AddManaged, AddAttached]);
export type AddMachineRequest = Type.Static<typeof AddMachineRequest>;

export const StartStopRequest = Type.Object(
  {
    /** For stop: pull the plug instead of asking the guest. */
    force: Type.Optional(Type.Boolean()),
    /** For stop: how long the guest may take before MACHINE_STOP_TIMEOUT. */
    limitMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 3_600_000 })),
  },
  { additionalProperties: false },
);

const policyFields = {
  /** All schedules there shall be: each copy type named is made every so many milliseconds. Not together with `schedules`. */
  every: Type.Optional(Every),
  /** All schedules there shall be. */
  schedules: Type.Optional(Type.Array(ScheduleShape, { maxItems: 16 })),
  /** All copy types there shall be besides `crash` and `app`, which every machine has. */
  copyTypes: Type.Optional(Type.Array(CopyTypeShape, { maxItems: 16 })),
  /** Hours without copies but on somebody's word; replaces those there are. */
  blackouts: Type.Optional(Type.Array(WindowShape, { maxItems: 64 })),
  retention: Type.Optional(Retention),
  /** Other limits for some hours of the week; replaces those there are. */
  limitWindows: Type.Optional(Type.Array(LimitWindowShape, { maxItems: 64 })),
  freezeLimitMs: Type.Optional(Type.Integer({ minimum: 100, maximum: 10_000 })),
  compression: Type.Optional(Type.Boolean()),
};

export const ProtectRequest = Type.Object(
  {
    /** The recovery site, by name or id; the only paired one if absent. */
    target: Type.Optional(Reference),
    ...policyFields,
    bytesPerSecond: Type.Optional(Type.Integer({ minimum: 1024 })),
    spacingMs: Type.Optional(Spacing),
    /** The base goes by courier: nothing is sent before a seed has been exported. */
    seed: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type ProtectRequest = Type.Static<typeof ProtectRequest>;

export const UnprotectRequest = Type.Object(
  {
    /** For a stale base: keep what the owner's files hold now and set our layers aside, uncommitted. */
    keepOrigin: Type.Optional(Type.Boolean()),
    /** Of a fenced machine: the word of a person that it does not run at the site that holds it; its disks here are the machine again. */
    confirmOtherSideDown: Type.Optional(Type.Literal(true)),
  },
  { additionalProperties: false },
);
export type UnprotectRequest = Type.Static<typeof UnprotectRequest>;

export const PolicyRequest = Type.Object(
  {
    ...policyFields,
    /** null takes the limit away. */
    bytesPerSecond: Type.Optional(Type.Union([Type.Integer({ minimum: 1024 }), Type.Null()])),
    /** null: the first target gets every copy. */
    spacingMs: Type.Optional(Type.Union([Spacing, Type.Null()])),
  },
  { additionalProperties: false },
);
export type PolicyRequest = Type.Static<typeof PolicyRequest>;

const targetFields = {
  retention: Type.Optional(Retention),
  /** Other limits for some hours of the week; replaces those there are. */
  limitWindows: Type.Optional(Type.Array(LimitWindowShape, { maxItems: 64 })),
  compression: Type.Optional(Type.Boolean()),
};

/** Another site that a protected machine is replicated to. What is not said is as for the first target, but for limits. */
export const AddTargetRequest = Type.Object(
  {
    /** By name or id. */
    target: Reference,
    ...targetFields,
    bytesPerSecond: Type.Optional(Type.Integer({ minimum: 1024 })),
    spacingMs: Type.Optional(Spacing),
    /** The base goes by courier: nothing is sent before a seed has been exported. */
    seed: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type AddTargetRequest = Type.Static<typeof AddTargetRequest>;

export const ChangeTargetRequest = Type.Object(
  {
    ...targetFields,
    /** null takes the limit away. */
    bytesPerSecond: Type.Optional(Type.Union([Type.Integer({ minimum: 1024 }), Type.Null()])),
    /** null: every copy. */
    spacingMs: Type.Optional(Type.Union([Spacing, Type.Null()])),
  },
  { additionalProperties: false },
);
export type ChangeTargetRequest = Type.Static<typeof ChangeTargetRequest>;

/** Why a guest stands still whose process runs. */
export const StandstillReason = Type.Union([
  Type.Literal('paused'),
  /** Stopped by its hypervisor because a disk could not grow; continued by the site when there is room. */
  Type.Literal('no-space'),
  Type.Literal('io-error'),
  Type.Literal('shut-down'),
  Type.Literal('crashed'),
]);

/** What the process of a machine of this site does, as far as the site can tell. */
const Presence = Type.Object({
  state: Type.Union([
    Type.Literal('running'),
    Type.Literal('stopped'),
    /** It runs on other disks than the recorded ones: nothing is cut, sent or merged. */
    Type.Literal('stale'),
    Type.Literal('unreachable'),
  ]),
  reason: Type.Optional(Type.String()),
  processId: Type.Optional(Type.Integer()),
  /** The process runs, and the guest in it stands still. */
  standstill: Type.Optional(
    Type.Object({
      why: StandstillReason,
      /** Those that an I/O error is known to have happened to. */
      disks: Type.Array(Type.String()),
    }),
  ),
});

/** What one target gets of a machine. */
const TargetView = Type.Object({
  siteId: Type.String(),
  name: Type.Optional(Type.String()),
  retention: Retention,
  bytesPerSecond: Type.Optional(Type.Integer()),
  limitWindows: Type.Array(LimitWindowShape),
  /** What holds now; absent: no limit. */
  limitNow: Type.Optional(Type.Integer()),
  compression: Type.Boolean(),
  spacingMs: Type.Optional(Type.Integer()),
});

/** What is said of a target without `targets` is said of the first one. */
const ProtectionView = Type.Object({
  /** All of them, the first one first. */
  targets: Type.Array(TargetView),
  targetSiteId: Type.String(),
  targetName: Type.Optional(Type.String()),
  /** The two that every machine has, then its own. */
  copyTypes: Type.Array(
    Type.Object({ ...CopyTypeShape.properties, isBuiltIn: Type.Boolean() }, { additionalProperties: false }),
  ),
  schedules: Type.Array(ScheduleShape),
  blackouts: Type.Array(WindowShape),
  retention: Retention,
  freezeLimitMs: Type.Integer(),
  bytesPerSecond: Type.Optional(Type.Integer()),
  limitWindows: Type.Array(LimitWindowShape),
  /** What holds now; absent: no limit. */
  limitNow: Type.Optional(Type.Integer()),
  compression: Type.Boolean(),
});

/** The side of a machine that is at home here. */
const ProtectedView = Type.Object({
  kind: Type.Union([Type.Literal('managed'), Type.Literal('attached')]),
  presence: Presence,
  /** Another site has the right to run the machine, or is offered it: it is neither started nor copied here. */
  heldBy: Type.Optional(
    Type.Object({
      siteId: Type.String(),
      name: Type.Optional(Type.String()),
      epoch: Count,
      /** `offered`: not taken yet; `fenced`: it was brought up there while it was at home here. */
      how: Type.Union([Type.Literal('offered'), Type.Literal('handed-over'), Type.Literal('fenced')]),
    }),
  ),
  /** It runs by leases. */
  lease: Type.Optional(LeaseView),
  qmpPath: AbsolutePath,
  agentPath: Type.Optional(AbsolutePath),
  disks: Type.Array(
    Type.Object({
      diskId: Type.String(),
      sizeBytes: Bytes,
      /** No copy has it yet; the next one is the first. */
      isNew: Type.Optional(Type.Literal(true)),
      /** Taken out: no further copy has it. Its files stay until a copy without it has arrived and the machine has let go of it. */
      isLeaving: Type.Optional(Type.Literal(true)),
      /** The oldest file first; the last one, the tip, is what the machine must be started from. */
      chain: Type.Array(Image),
    }),
  ),
  protection: Type.Union([ProtectionView, Type.Null()]),
  replication: Type.Union([ReplicationView, Type.Null()]),
});

export const MachineView = Type.Object({
  machineId: Id,
  name: Type.String(),
  epoch: Count,
  /** `protected`: it is at home here; `replica`: another site replicates it here. */
  role: Type.Union([Type.Literal('protected'), Type.Literal('replica')]),
  /** Why its directory cannot be opened; its files are left as they are, and only its id is known. */
  broken: Type.Optional(FailureShape),
  /** Platform-neutral configuration; absent for a replica without a point. */
  configuration: Type.Optional(Type.Unknown()),
  protected: Type.Optional(ProtectedView),
  replica: Type.Optional(ReplicaView),
});
export type MachineView = Type.Static<typeof MachineView>;

export const PointView = Type.Object({
  pointId: Id,
  machineId: Id,
  /** Counts the published points of the machine; absent for a copy that has not been published yet. */
  sequence: Type.Optional(Count),
  /**
   * `unsent`, `sending`: cut, at the protected site alone. `verified`: durable, read back and equal at the recovery site.
   * `awaiting-seed`: all of that but its base, which comes by courier: it cannot be used before.
   */
  state: Type.Union([
    Type.Literal('unsent'),
    Type.Literal('sending'),
    Type.Literal('awaiting-seed'),
    Type.Literal('verified'),
  ]),
  copyType: Type.String(),
  consistency: ConsistencyName,
  /** Why the copy is less consistent than its type strives for. */
  degraded: Type.Optional(Type.String()),
  /** An assertion failed: it counts as crash-consistent, whatever `consistency` says that was reached. */
  demoted: Type.Optional(Type.Literal(true)),
  /** What its copy type claims of it, by the names of the assertions. */
  claims: Type.Optional(Type.Array(Type.String())),
  /** When it was cut, on the answering site's clock. */
  cutAtMs: WallTime,
  /**
   * The clock of the site that made it minus the one here, when it was sent; `cutAtMs` has it taken off. At the recovery site
   * only.
   */
  skewMs: Type.Optional(Type.Number()),
  publishedAtMs: Type.Optional(WallTime),
  pauseMs: Type.Number(),
  frozenMs: Type.Optional(Type.Number()),
  /** How what its TPM held was taken, for how long the guest stood still for it, and how much it is. */
  tpm: Type.Optional(
    Type.Object({
      captured: Type.Union([Type.Literal('paused'), Type.Literal('unchanged'), Type.Literal('stopped')]),
      pauseMs: Type.Number(),
      bytes: Count,
    }),
  ),
  /** How the hooks of its type went, in their order; at the protected site, as long as it keeps the record of the copy. */
  hooks: Type.Optional(
    Type.Array(
      Type.Object({
        hook: Type.Union([Type.Literal('before'), Type.Literal('after'), Type.Literal('onFailure')]),
        hasBegun: Type.Boolean(),
        tookMs: Type.Number(),
        exitCode: Type.Optional(Type.Integer()),
        /** The beginning of what it printed: a stranger's words. */
        output: Type.Optional(Type.String()),
        failure: Type.Optional(Type.String()),
      }),
    ),
  ),
  changedBytes: Type.Optional(Bytes),
  receivedBytes: Type.Optional(Bytes),
  /** Taken from an older copy at the recovery site, and not sent. */
  olderBytes: Type.Optional(Bytes),
  epoch: Type.Optional(Count),
  parentPointId: Type.Optional(Id),
  statementDigest: Type.Optional(Type.String()),
  /** Copies between the parent and this one whose own state could not be kept. */
  missed: Count,
  /** Proofs that exist; at the recovery site only. */
  proofs: Type.Object({
    content: Type.Optional(Type.Object({ verifiedAtMs: WallTime })),
    boot: Type.Optional(
      Type.Object({ passed: Type.Boolean(), atMs: WallTime, rtoMs: Type.Optional(Type.Number()) }),
    ),
    /** What the assertions of its copy type said when it was last booted in isolation. */
    application: Type.Optional(
      Type.Object({
        held: Type.Boolean(),
        atMs: WallTime,
        assertions: Type.Array(
          Type.Object({
            name: Type.String(),
            outcome: Type.Union([Type.Literal('held'), Type.Literal('failed'), Type.Literal('not-run')]),
            exitCode: Type.Optional(Type.Integer()),
            /** The beginning of what it printed: a stranger's words. */
            output: Type.Optional(Type.String()),
            reason: Type.Optional(Type.String()),
          }),
        ),
      }),
    ),
  }),
  /** A person holds it: it stays whatever retention says. */
  hold: Type.Optional(
    Type.Object({ reason: Type.String(), sinceMs: WallTime, untilMs: Type.Optional(WallTime) }),
  ),
  /** The cut of several machines that it belongs to; docs/consistency.md, «Groups». */
  group: Type.Optional(
    Type.Object({
      groupId: Id,
      name: Type.String(),
      cutId: Id,
      pauseMs: Type.Number(),
      machines: Count,
      /** At the recovery site: the points of all of them are there. */
      whole: Type.Optional(Type.Boolean()),
    }),
  ),
  /** Why retention keeps it; empty: it may go. At the recovery site only. */
  keptFor: Type.Optional(Type.Array(Type.String())),
  disks: Type.Optional(
    Type.Array(
      Type.Object({ diskId: Type.String(), sizeBytes: Bytes, changedBytes: Bytes, root: Type.String() }),
    ),
  ),
});
export type PointView = Type.Static<typeof PointView>;

export const HoldRequest = Type.Object(
  {
    reason: Type.String({ minLength: 1, maxLength: 200 }),
    /** How long from now; absent: until it is released. */
    forMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 100 * 366 * 24 * 3600 * 1000 })),
  },
  { additionalProperties: false },
);
export type HoldRequest = Type.Static<typeof HoldRequest>;

export const CreatePointRequest = Type.Object(
  {
    type: CopyTypeName,
    /** Answer when the point is verified at the recovery site (as a job) and not when it is cut. */
    wait: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
