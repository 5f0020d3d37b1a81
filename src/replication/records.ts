import Type from 'typebox';
import { Value } from 'typebox/value';
import { MachineConfiguration } from '../hypervisor/index.ts';
import { recordKind } from '../lib/records.ts';
import {
  ASSERTIONS_MAX,
  Assertion,
  Claim,
  COPY_TYPES_MAX,
  CopySchedule,
  CopyType,
  GroupCut,
  Hooks,
  LeaseTerms,
  LimitWindow,
  RetentionPolicy,
  retentionOfOld,
  SignedStatement,
  Tenure,
  TpmCopy,
  Window,
} from '../recovery-point/index.ts';

const Time = Type.Integer({ minimum: 0 });
const Image = Type.Object({
  path: Type.String(),
  format: Type.Union([Type.Literal('qcow2'), Type.Literal('raw')]),
});

export const TargetPolicySchema = Type.Object({
  siteId: Type.String(),
  retention: RetentionPolicy,
  /** Bytes a second on the wire; absent: as fast as it goes. */
  bytesPerSecond: Type.Optional(Type.Integer({ minimum: 1024 })),
  /** Other limits for some hours of the week; the first window that holds the time counts. */
  limitWindows: Type.Optional(Type.Array(LimitWindow, { maxItems: 64 })),
  compression: Type.Boolean(),
  /** A copy is sent only if it was made so long after the last one that was; absent: every copy. */
  spacingMs: Type.Optional(Type.Integer({ minimum: 1 })),
});
/** What one target gets of a machine, and how. */
export type TargetPolicy = Type.Static<typeof TargetPolicySchema>;

/** A machine has no more targets; every one costs reading its changes once more. */
export const TARGETS_MAX = 8;

const ProtectionSchema = Type.Object({
  /** The first target; what it gets stands beside, so that a machine with one target reads as it always did. */
  targetSiteId: Type.String(),
  /** The others. */
  furtherTargets: Type.Optional(Type.Array(TargetPolicySchema, { maxItems: TARGETS_MAX - 1 })),
  schedules: Type.Array(CopySchedule, { maxItems: 16 }),
  /** Copy types of the machine's own. */
  copyTypes: Type.Optional(Type.Array(CopyType, { maxItems: COPY_TYPES_MAX })),
  /** Hours in which no copy is made by itself. */
  blackouts: Type.Optional(Type.Array(Window, { maxItems: 64 })),
  freezeLimitMs: Type.Integer({ minimum: 100, maximum: 10_000 }),
  ...Type.Omit(TargetPolicySchema, ['siteId']).properties,
});
/** How a machine is protected. */
export type Protection = Type.Static<typeof ProtectionSchema>;

/** What a NIC is connected to: a tap that exists, or a bridge that gets a tap of ours. */
export const NicPlug = Type.Union([
  Type.Object({ kind: Type.Literal('tap'), interfaceName: Type.String() }),
  Type.Object({ kind: Type.Literal('bridge'), bridge: Type.String() }),
]);

const MachineRecordSchema = Type.Object({
  machineId: Type.String(),
  name: Type.String(),
  /** Started by us, or by somebody else and attached to. */
  kind: Type.Union([Type.Literal('managed'), Type.Literal('attached')]),
  createdAtMs: Time,
  /** Of the copies that are made here. */
  epoch: Type.Integer({ minimum: 1 }),
  /** Where this site stands with its right to run the machine; absent: it holds it, in that epoch. */
  tenure: Type.Optional(Tenure),
  /** It was fenced while it was held here: what its disks hold that the other site does not have is a branch. */
  diverged: Type.Optional(
    Type.Object({
      branchId: Type.String(),
      name: Type.String(),
      /** By which it was held here. */
      lost: Claim,
      /** When this site heard of the higher claim. */
      fencedAtMs: Time,
      /** The newest of its points that the site held which made that claim: it has nothing that was written later. Absent: none is known. */
      from: Type.Optional(
        Type.Object({
          siteId: Type.String(),
          pointId: Type.String(),
          sequence: Type.Integer(),
          ordinal: Type.Integer(),
          cutAtMs: Type.Optional(Time),
        }),
      ),
    }),
  ),
  /** Sites that held it, or could have, when it was claimed here above them on somebody's word; `told`: they have answered to that. */
  superseded: Type.Optional(
    Type.Array(Type.Object({ siteId: Type.String(), told: Type.Optional(Type.Literal(true)) })),
  ),
  configuration: MachineConfiguration,
  sockets: Type.Object({ qmpPath: Type.String(), agentPath: Type.Optional(Type.String()) }),
  disks: Type.Array(
    Type.Object({
      diskId: Type.String(),
      /** The hypervisor's name of the device. */
      deviceName: Type.String(),
      /** The owner's own files, the oldest first; the last one, the origin, took the writes before the first cut. */
      chain: Type.Array(Image, { minItems: 1 }),
      /** Where its origin was before; cuts may name it so. */
      formerPaths: Type.Optional(Type.Array(Type.String())),
      /** When the machine was added; cuts tell what it has become since. */
      sizeBytes: Type.Integer({ minimum: 512 }),
      /** The first cut that has it, by its ordinal; absent: it was there from the beginning of the protection. */
      sinceOrdinal: Type.Optional(Type.Integer({ minimum: 1 })),
      /** No cut has it any more; its file is given back when no point that has it can be asked for again. */
      leaving: Type.Optional(
        Type.Object({
          /** The last cut that has it. */
          untilOrdinal: Type.Integer({ minimum: 0 }),
          /** Its layers above the owner's files, the tip last. They stay as they are until they are given back. */
          layers: Type.Array(Image),
        }),
      ),
    }),
    { minItems: 1 },
  ),
  /** Disks that were taken out of the protection: their ids are never used again, and nobody is told that they are not copied. */
  formerDisks: Type.Optional(
    Type.Array(Type.Object({ diskId: Type.String(), deviceName: Type.String(), path: Type.String() })),
  ),
  /** What it was called at cuts that there are still: up to that ordinal, in ascending order. */
  formerNames: Type.Optional(
    Type.Array(Type.Object({ name: Type.String(), untilOrdinal: Type.Integer({ minimum: 1 }) })),
  ),
  protection: Type.Union([ProtectionSchema, Type.Null()]),
  /**
   * The protection is being ended: whatever happens, that is finished first. `committing`: the guest runs on no owner's file but
   * those whose tip is called so. `pivoting`: the guest has been stopped for such a change, or may have been, and it may not be
   * said yet which disks have changed over. `removing`: the owner's files hold everything.
   */
  dissolving: Type.Optional(
    Type.Union([
      Type.Literal('committing'),
      Type.Literal('pivoting'),
      Type.Literal('removing'),
      Type.Literal('setting-aside'),
    ]),
  ),
  /** While it pivots: its guest stood still before, and is not to be continued. */
  stoodStill: Type.Optional(Type.Literal(true)),
  /**
   * Why the files below the tips may have been written by others: the machine was found running on something else. The
   * chain is left alone until their content has been compared with the digests of what was acknowledged.
   */
  suspect: Type.Optional(Type.String()),
  /** The doubt is about these disks alone, by id: they were not there. */
  gone: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
  /** Where its TPM has its state. */
  tpm: Type.Optional(Type.Object({ directory: Type.String() })),
  extraArguments: Type.Optional(Type.Array(Type.String())),
  /** What its NICs are connected to when this site starts it, by NIC id; the cable of one that is not named is unplugged. */
  networks: Type.Optional(Type.Record(Type.String(), NicPlug)),
  /** It runs by leases: for as long as one of these two sites lends it that (`recovery-point/lease.ts`). */
  lease: Type.Optional(LeaseTerms),
  /** It was a branch of its replica here, whose layers its disks lie upon. */
  adopted: Type.Optional(Type.Object({ branchId: Type.String(), pointId: Type.String() })),
});
/** `machine.json`: a machine of this site. */
export type MachineRecord = Type.Static<typeof MachineRecordSchema>;
export type ProtectedDisk = MachineRecord['disks'][number];
export const MACHINE_RECORD = recordKind('machine', 11, MachineRecordSchema, (value, version) =>
  version === 1 ? ofVersion1(value) : value,
);
const MACHINE_RECORD_10 = recordKind('machine', 10, MachineRecordSchema);
const MACHINE_RECORD_9 = recordKind('machine', 9, MachineRecordSchema);
const MACHINE_RECORD_8 = recordKind('machine', 8, MachineRecordSchema);
const MACHINE_RECORD_7 = recordKind('machine', 7, MachineRecordSchema);
const MACHINE_RECORD_6 = recordKind('machine', 6, MachineRecordSchema);
const MACHINE_RECORD_5 = recordKind('machine', 5, MachineRecordSchema);
const MACHINE_RECORD_4 = recordKind('machine', 4, MachineRecordSchema);
const MACHINE_RECORD_3 = recordKind('machine', 3, MachineRecordSchema);
const MACHINE_RECORD_2 = recordKind('machine', 2, MachineRecordSchema);

/**
 * A machine with copy types of its own must not be copied by a program that would not know what they ask for, nor one whose
 * cuts have different disks by a program that takes them for the same, nor one with several targets by one that would merge
 * what the others still need, nor one with a trigger, or with a disk that was moved, by one that would not know of that. One
 * whose disks may have been given back must not be ended by a program that would commit their layers once more, over what the
 * guest has written since. One that another site holds must not be started by a program that does not ask who holds it, nor
 * one that was a branch by a program that would plug no cable in, nor one that runs by leases by a program that asks for none, nor one
 * with a TPM by a program that would leave it out, nor one that another site may run as well by a program that would not tell that site.
 */
export function machineKind(record: MachineRecord): typeof MACHINE_RECORD {
  const { protection, disks, formerDisks, dissolving, tenure, adopted, networks, lease, tpm, superseded } =
    record;
  if (superseded?.some(({ told }) => !told)) return MACHINE_RECORD;
  if (tpm) return MACHINE_RECORD_10;
  if (lease) return MACHINE_RECORD_9;
  if (adopted || networks) return MACHINE_RECORD_8;
  if (tenure) return MACHINE_RECORD_7;
  if (dissolving === 'committing' || dissolving === 'pivoting') return MACHINE_RECORD_6;
  const isOfOneAge = disks.every(({ sinceOrdinal, leaving }) => sinceOrdinal === undefined && !leaving);
  const triggers = protection?.schedules.flatMap((schedule) => schedule.triggers) ?? [];
  const hasMoved = disks.some(({ formerPaths }) => formerPaths?.length);
  if (hasMoved || triggers.some(({ kind }) => kind === 'written')) return MACHINE_RECORD_5;
  if (!isOfOneAge || formerDisks?.length) return MACHINE_RECORD_4;
  if (protection?.furtherTargets?.length) return MACHINE_RECORD_4;
  return protection?.copyTypes?.length ? MACHINE_RECORD_3 : MACHINE_RECORD_2;
}

/** Version 1 knew intervals alone, and two copy types. */
function ofVersion1(value: object): unknown {
  const { protection } = value as { protection?: unknown };
  if (typeof protection !== 'object' || protection === null) return value;
  const { schedules, retention } = protection as { schedules?: unknown; retention?: unknown };
  if (!Value.Check(OldSchedules, schedules)) return value;
  const now = schedules.map(({ copyType, everyMs }) => ({
    copyType,
    triggers: [{ kind: 'interval', everyMs }],
  }));
  return { ...value, protection: { ...protection, schedules: now, retention: retentionOfOld(retention) } };
}

const OldSchedules = Type.Array(Type.Object({ copyType: Type.String(), everyMs: Type.Integer() }));

const ConsistencyName = Type.Union([
  Type.Literal('crash'),
  Type.Literal('file-system'),
  Type.Literal('application'),
]);

const HookReportSchema = Type.Object({
  hook: Type.Union([Type.Literal('before'), Type.Literal('after'), Type.Literal('onFailure')]),
  /** It ran, or nobody knows that it did not. */
  hasBegun: Type.Boolean(),
  tookMs: Time,
  exitCode: Type.Optional(Type.Integer()),
  /** The beginning of what it printed: a stranger's words. */
  output: Type.Optional(Type.String({ maxLength: 8192 })),
  /** Why it failed; absent if it did not. */
  failure: Type.Optional(Type.String()),
});
/** How one hook of a copy went. */
export type HookReport = Type.Static<typeof HookReportSchema>;

const OwedHooksSchema = Type.Object({
  /** The copy that they belong to. */
  cutId: Type.String(),
  ...Type.Pick(Hooks, ['after', 'onFailure']).properties,
});
/** `hooks.json`: hooks that must still run because a copy has begun whose end was never seen. */
export type OwedHooksRecord = Type.Static<typeof OwedHooksSchema>;
export const OWED_HOOKS_RECORD = recordKind('owed-hooks', 1, OwedHooksSchema);

const DiskSizes = Type.Record(Type.String(), Type.Integer({ minimum: 512 }));

const MissedCutSchema = Type.Object({
  pointId: Type.String(),
  copyType: Type.String(),
  cutAtMs: Time,
  reason: Type.String(),
});
/** A cut that a target never gets as a point of its own; its changes are part of the next one. */
export type MissedCut = Type.Static<typeof MissedCutSchema>;

const CutSchema = Type.Object({
  cutId: Type.String(),
  /** Counts the cuts of the machine. */
  ordinal: Type.Integer({ minimum: 1 }),
  /**
   * `intended`: its layers may or may not have become tips. `sealed`: it may be sent. `absorbing`: a younger layer is being
   * committed into its own, whose content is neither the one nor the other until that has ended.
   */
  state: Type.Union([Type.Literal('intended'), Type.Literal('sealed'), Type.Literal('absorbing')]),
  copyType: Type.String(),
  /** What its type strives for; absent for types that every machine has. */
  aim: Type.Optional(ConsistencyName),
  /** What its type claims of its points. */
  assertions: Type.Optional(Type.Array(Assertion, { maxItems: ASSERTIONS_MAX })),
  consistency: ConsistencyName,
  degraded: Type.Optional(Type.String()),
  cutAtMs: Time,
  pauseMs: Type.Number({ minimum: 0 }),
  frozenMs: Type.Optional(Type.Number({ minimum: 0 })),
  /** What the TPM of the machine held. */
  tpm: Type.Optional(TpmCopy),
  /** It was made at one instant with the cuts of other machines. */
  group: Type.Optional(GroupCut),
  /** How its hooks went, in their order. */
  hooks: Type.Optional(Type.Array(HookReportSchema, { maxItems: 3 })),
  /** By disk: the file whose content this cut sealed; it holds what changed since the cut before. */
  sealed: Type.Record(Type.String(), Image),
  /** By disk: the file that took the writes afterwards. */
  tips: Type.Record(Type.String(), Image),
  /** By disk: its size at the cut. Absent in records of old: as the machine's record has it. */
  sizes: Type.Optional(DiskSizes),
  /** Disks that grew in its very moment and whose tip could not be grown yet: the guest does not see their end. */
  short: Type.Optional(Type.Array(Type.String())),
  /** How much the layers that it sealed had grown since the cut before; absent where nobody has looked. */
  grownBytes: Type.Optional(Type.Integer({ minimum: 0 })),
  /** Disks that the machine had at the cut and that are none of its protected ones, as its hypervisor names them. */
  leftOut: Type.Optional(Type.Array(Type.String())),
  /** The sealed layer has been committed into the file below it and is gone. */
  merged: Type.Boolean(),
  /** It and those before it are being merged, or may have begun to be: the states before it are no more. */
  merging: Type.Optional(Type.Literal(true)),
  /** Layers whose content has been committed into `sealed` since; they are being removed. */
  leftovers: Type.Optional(Type.Array(Type.Record(Type.String(), Image))),
  /** Older cuts whose own state was given up for this one, the newest of them. */
  missed: Type.Array(MissedCutSchema),
  /** How many there are besides. */
  unlisted: Type.Optional(Type.Integer({ minimum: 1 })),
});
/** `cuts/<cut>.json`: one cut, from its intent until its layer has been merged and a younger one has its tip. */
export type CutRecord = Type.Static<typeof CutSchema>;
export const CUT_RECORD = recordKind('cut', 1, CutSchema);

const SeedSchema = Type.Union([
  /** Somebody wants it so: nothing is sent before a seed has been exported. */
  Type.Object({ state: Type.Literal('wanted') }),
  /** Exported, and not announced to the target yet. */
  Type.Object({ state: Type.Literal('exported'), cutId: Type.String(), signed: SignedStatement }),
  /** The target has put a stand-in under the points. `signed` is the point acknowledged last: another seed can be made of it. */
  Type.Object({ state: Type.Literal('awaited'), signed: SignedStatement }),
]);

const UnsureCutSchema = Type.Object({
  pointId: Type.String(),
  ordinal: Type.Integer(),
  cutAtMs: Time,
  sizes: Type.Optional(DiskSizes),
});
/** A cut of which it is not known whether a target has it. */
export type UnsureCut = Type.Static<typeof UnsureCutSchema>;

const OutrunSchema = Type.Object({
  /** Layers up to this cut, as far as the target has not acknowledged them, may have been merged away. */
  throughOrdinal: Type.Integer({ minimum: 1 }),
  /** By disk, offset and length in turns: every range that these layers held; more than that is harmless. */
  ranges: Type.Record(Type.String(), Type.Array(Type.Integer({ minimum: 0 }))),
  /** The cuts whose own state is gone with them, the newest of them. */
  missed: Type.Array(MissedCutSchema),
  /** How many there are besides. */
  unlisted: Type.Integer({ minimum: 0 }),
  /** A delta was on its way, and its point is merged too: the target may turn out to have it. */
  unsure: Type.Optional(UnsureCutSchema),
  /** Deltas that were on their way before that one, which may have arrived late; the newest last. */
  unsureBefore: Type.Optional(Type.Array(UnsureCutSchema)),
});
/** What changed since the acknowledged state of a target that the others have outrun, in the place of its layers. */
export type Outrun = Type.Static<typeof OutrunSchema>;

export const TargetSchema = Type.Object({
  siteId: Type.String(),
  /** The digests of what it acknowledged lie in a directory of its own. */
  ownLeaves: Type.Optional(Type.Literal(true)),
  /** Layers that it has not acknowledged were merged; absent again with the next acknowledgement. */
  outrun: Type.Optional(OutrunSchema),
  /** The newest point that the target holds verified; its layers may be merged here. */
  acknowledged: Type.Union([
    Type.Object({
      pointId: Type.String(),
      ordinal: Type.Integer(),
      sequence: Type.Integer(),
      statementDigest: Type.String(),
      atMs: Time,
      /** When it was cut: what is lost if everything here is lost now. Records of earlier versions lack it. */
      cutAtMs: Type.Optional(Time),
      /** By disk: its size at that cut. */
      sizes: Type.Optional(DiskSizes),
    }),
    Type.Null(),
  ]),
  /** The delta that was last begun, so that another process goes on with it. */
  session: Type.Union([
    Type.Object({
      session: Type.String(),
      cutId: Type.String(),
      /** Its pieces are whole blocks; a session keeps what it began with. */
      wholeBlocks: Type.Optional(Type.Boolean()),
      /** In which it was begun; absent: the first. */
      epoch: Type.Optional(Type.Integer({ minimum: 1 })),
      /** Names the ranges that it sends, where others might follow from what is there at another time. */
      ranges: Type.Optional(Type.String()),
    }),
    Type.Null(),
  ]),
  /** The base goes by courier; absent once the target has it, and where it has come over the wire. */
  seed: Type.Optional(SeedSchema),
});
/** `targets/<site>.json`: how far one target is. */
export type TargetRecord = Type.Static<typeof TargetSchema>;
export const TARGET_RECORD = recordKind('target', 2, TargetSchema);
const TARGET_RECORD_1 = recordKind('target', 1, TargetSchema);

/** A program that does not know of merged ranges would send the next delta without them: it is to refuse the record. */
export function targetKind({ outrun }: TargetRecord): typeof TARGET_RECORD {
  return outrun ? TARGET_RECORD : TARGET_RECORD_1;
}
