import Type from 'typebox';
import { CopyTypeName, Count, Id, WallTime } from './common.ts';

const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' });
const Duration = Type.Number({ minimum: 0 });
/** A public Ed25519 key, SubjectPublicKeyInfo PEM. */
const PublicKey = Type.String({ maxLength: 400 });
/** Of people, guests and other sites: shown as text, never as markup. */
const Said = Type.String({ maxLength: 4000 });
/** A record that a site has signed, as it was stored beside the point. */
const Signed = { keyId: Type.String({ maxLength: 64 }), signature: Type.String({ maxLength: 200 }) };

/** What a report is about. `drill`: a test that the site did by itself, or for a person, to prove a point. `restart`: a branch that was booted again; `forward`: one that went forward to a later point; `undo`: a failover that was ended and given up. */
export const ReportKind = Type.Union([
  Type.Literal('test'),
  Type.Literal('drill'),
  Type.Literal('unplanned'),
  Type.Literal('take'),
  Type.Literal('cede'),
  Type.Literal('restart'),
  Type.Literal('forward'),
  Type.Literal('adopt'),
  Type.Literal('undo'),
  Type.Literal('plan'),
]);
export type ReportKind = Type.Static<typeof ReportKind>;

/**
 * `passed`: all that was asked for is so, and what a guest was asked it has answered. `unproven`: nothing was asked of the guest. `partly`: of a
 * plan, some machines are up. `failed`, `cancelled` and `interrupted` (the site ended while it was under way): `failure` says why.
 */
export const ReportVerdict = Type.Union([
  Type.Literal('passed'),
  Type.Literal('unproven'),
  Type.Literal('partly'),
  Type.Literal('failed'),
  Type.Literal('cancelled'),
  Type.Literal('interrupted'),
]);
export type ReportVerdict = Type.Static<typeof ReportVerdict>;

/** Somebody's word upon which something was done. */
const Confirmation = Type.Object({
  what: Type.Union([
    /** That the other site is down. */
    Type.Literal('other-side-down'),
    /** In its place: two of three sites have voted that the machine may run here. */
    Type.Literal('votes'),
    /** In its place: the fencing program of the site has ended well, for who asked for that. */
    Type.Literal('fenced'),
    /** That the guest's power may be cut. */
    Type.Literal('power-off'),
    /** What a plan asks before a machine starts. */
    Type.Literal('approval'),
  ]),
  by: Said,
  /** Absent where no time was recorded. */
  atMs: Type.Optional(WallTime),
  machine: Type.Optional(Type.String()),
  question: Type.Optional(Said),
  /** What has fenced, and the end of what it printed. */
  program: Type.Optional(Said),
  output: Type.Optional(Said),
});

const TimelineEntry = Type.Object({
  name: Said,
  /** On this site's wall clock. */
  beganAtMs: WallTime,
  durationMs: Duration,
  /** The attempt that it belongs to, from 1. */
  attempt: Type.Optional(Type.Integer({ minimum: 1 })),
});
export type TimelineEntry = Type.Static<typeof TimelineEntry>;

const ReportedPoint = Type.Object({
  pointId: Id,
  sequence: Count,
  copyType: CopyTypeName,
  consistency: Type.String(),
  /** On the clock of the site that wrote the report: the cutting site's time corrected by the skew that was measured when it arrived. */
  cutAtMs: WallTime,
  /** As its statement says, on the clock of the site that cut it; absent with `skewMs` if the point is no longer there. */
  cutAtSourceMs: Type.Optional(WallTime),
  /** The cutting site's clock minus this one's, when the point arrived. */
  skewMs: Type.Optional(Type.Number()),
  /** Digest of its signed statement. */
  statementDigest: Type.Optional(Hash),
});
export type ReportedPoint = Type.Static<typeof ReportedPoint>;

const ReportedAttempt = Type.Object({
  point: ReportedPoint,
  /** Why this point. */
  reason: Said,
  branchId: Id,
  kept: Type.Boolean(),
  verdict: Type.Union([Type.Literal('passed'), Type.Literal('failed'), Type.Literal('unproven')]),
  reasons: Type.Array(Said),
  probes: Type.Array(
    Type.Object({
      /** As it was asked. */
      probe: Type.Unknown(),
      passed: Type.Boolean(),
      durationMs: Duration,
      reason: Type.Optional(Said),
    }),
  ),
  /** Whether a fresh random word that the guest was asked to draw was read off its screen. */
  nonce: Type.String(),
  assertions: Type.Array(
    Type.Object({
      name: Type.String(),
      outcome: Type.String(),
      tookMs: Duration,
      exitCode: Type.Optional(Type.Integer()),
      output: Type.Optional(Said),
      reason: Type.Optional(Said),
    }),
  ),
  network: Type.Unknown(),
  /** The console picture: digest of an attachment, or of a picture that was too large to be attached. */
  picture: Type.Optional(Type.Object({ sha256: Hash, sizeBytes: Count })),
  /** The boot proof of this very attempt, as it was signed. */
  bootProof: Type.Optional(Type.Object({ proof: Type.Unknown(), ...Signed })),
  applicationProof: Type.Optional(Type.Object({ proof: Type.Unknown(), ...Signed })),
  /** The statement of the point as its source has signed it; absent if it is too large, or gone. */
  statement: Type.Optional(Type.Object({ statement: Type.Unknown(), ...Signed })),
});
export type ReportedAttempt = Type.Static<typeof ReportedAttempt>;

const ReportedStep = Type.Object({
  machine: Type.String(),
  state: Type.String(),
  beganAtMs: Type.Optional(WallTime),
  endedAtMs: Type.Optional(WallTime),
  reason: Type.Optional(Said),
  sequence: Type.Optional(Count),
  branchId: Type.Optional(Id),
  /** The machine's own report, and the SHA-256 of the bytes that are signed in it. */
  report: Type.Optional(Type.Object({ reportId: Id, sha256: Hash })),
});

/** What an auditor asks of a failover, a test or a run of a plan. docs/format.md, «Report». */
export const Report = Type.Object({
  /** That of the job that it is about. */
  reportId: Id,
  kind: ReportKind,
  verdict: ReportVerdict,
  writtenAtMs: WallTime,
  /** Who wrote and signed it. */
  site: Type.Object({ siteId: Id, name: Type.String(), signingKey: PublicKey }),
  machine: Type.Optional(Type.Object({ machineId: Type.String(), name: Type.String() })),
  request: Type.Object({
    /** As the audit log names who asked; `plan:<run>` for what a run of a plan has begun. */
    actor: Said,
    /** The person behind a run of a plan. */
    onBehalfOf: Type.Optional(Said),
    planRunId: Type.Optional(Id),
    askedAtMs: WallTime,
    startedAtMs: Type.Optional(WallTime),
    endedAtMs: WallTime,
    /** What was asked for. */
    arguments: Type.Record(Type.String(), Type.Unknown()),
    /** The entry of the audit log by which it began, and the hash that the log chains it with. */
    audit: Type.Optional(Type.Object({ sequence: Count, hash: Hash })),
  }),
  confirmations: Type.Array(Confirmation),
  failure: Type.Optional(Type.Object({ code: Type.String(), message: Said, remedy: Type.Optional(Said) })),
  timeline: Type.Array(TimelineEntry),
  /** How much was lost at most, or would be: the age of the point that runs (or was tested) when the command was given. */
  rpo: Type.Optional(
    Type.Object({
      ms: Duration,
      /** `nothing-lost`: the machine had ended, and this point, upon which nothing was brought up before, is all that it wrote. `age`: of the point at the command. */
      basis: Type.Union([Type.Literal('age'), Type.Literal('nothing-lost')]),
      /** The difference of the clocks that was corrected for. */
      skewMs: Type.Optional(Type.Number()),
    }),
  ),
  /** From the command to the last probe that passed, all attempts included. */
  rtoMs: Type.Optional(Duration),
  chosenBy: Type.Optional(Type.Union([Type.Literal('person'), Type.Literal('selection')])),
  /** The branch that runs after it. */
  branchId: Type.Optional(Id),
  /** The right to run the machine, as this site knew it when it was over. */
  right: Type.Optional(
    Type.Object({ epoch: Count, state: Type.Optional(Type.String()), siteId: Type.Optional(Type.String()) }),
  ),
  attempts: Type.Array(ReportedAttempt),
  plan: Type.Optional(
    Type.Object({
      name: Type.String(),
      runId: Id,
      mode: Type.String(),
      /** SHA-256 of the canonical JSON of the plan as it was when the run began. */
      documentSha256: Hash,
      steps: Type.Array(ReportedStep),
    }),
  ),
  /** What a handover has come to, where there is no more to tell. */
  outcome: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  warnings: Type.Array(Said),
  /** What belongs into this report and could not be had. */
  missing: Type.Array(Said),
  /** The sites whose statements are in here, with the keys that this site had confirmed. */
  sources: Type.Array(Type.Object({ siteId: Id, signingKey: PublicKey })),
  versions: Type.Object({
    warmsite: Type.String(),
    node: Type.String(),
    /** The first line that it prints of itself; absent if it could not be asked. */
    hypervisor: Type.Optional(Type.String()),
    accelerator: Type.Optional(Type.String()),
    /** Kernel and architecture. */
    host: Type.String(),
  }),
  /** SHA-256 of each attachment. */
  attachments: Type.Array(Hash),
});
export type Report = Type.Static<typeof Report>;

/** A report with its signature: the whole of a file, which is a record `report`. */
export const SignedReport = Type.Object({
  report: Report,
  ...Signed,
  /** By SHA-256: the bytes of PNG pictures, base64. */
  attachments: Type.Record(Type.String(), Type.String()),
});
export type SignedReport = Type.Static<typeof SignedReport>;

export const ReportSummary = Type.Object({
  reportId: Id,
  kind: ReportKind,
  verdict: ReportVerdict,
  /** The machine, or the plan. */
  about: Type.String(),
  actor: Type.String(),
  startedAtMs: WallTime,
  endedAtMs: WallTime,
  rtoMs: Type.Optional(Duration),
  rpoMs: Type.Optional(Duration),
  sizeBytes: Count,
});
export type ReportSummary = Type.Static<typeof ReportSummary>;

export const ReportList = Type.Object({
  /** The newest first. */
  reports: Type.Array(ReportSummary),
  /** Those of which nothing can be read, with the reason. */
  unreadable: Type.Array(Type.Object({ reportId: Id, reason: Type.String() })),
  /** How many there are in all. */
  total: Count,
});
export type ReportList = Type.Static<typeof ReportList>;

const DAY_MS = 86_400_000;
/** A mistyped unit must not take what an auditor will ask for next week. */
const KeepMs = Type.Integer({ minimum: DAY_MS, maximum: 100 * 366 * DAY_MS });

/** How long reports are kept. */
export const ReportPolicy = Type.Object({
  /** Those of tests, drills and rehearsals of plans; for good, if absent. All others are. */
  keepTestsMs: Type.Optional(KeepMs),
});
export type ReportPolicy = Type.Static<typeof ReportPolicy>;

export const ReportPolicyRequest = Type.Object(
  {
    /** null: for good. */
    keepTestsMs: Type.Union([KeepMs, Type.Null()]),
  },
  { additionalProperties: false },
);
export type ReportPolicyRequest = Type.Static<typeof ReportPolicyRequest>;

/** The bytes of a report as they are stored: what is signed is checked upon them. */
export const ReportFile = Type.Object({ reportId: Id, text: Type.String() });

/** A public key that a site signs with, or has confirmed of another. */
export const SiteKey = Type.Object({
  siteId: Id,
  name: Type.String(),
  whose: Type.Union([Type.Literal('own'), Type.Literal('peer')]),
  keyId: Type.String(),
  signingKey: PublicKey,
});
export type SiteKey = Type.Static<typeof SiteKey>;
