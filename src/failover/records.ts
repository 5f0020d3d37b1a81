import Type from 'typebox';
import { recordKind } from '../lib/records.ts';

const Time = Type.Integer({ minimum: 0 });
const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' });

const BranchStateSchema = Type.Object({
  /**
   * Written before the act that it names: `network` before the network is made, `started` before the process is. `probed`
   * and `failed` tell how the probes ended, `stopped` that the machine has ended since, `prepared` that it has ended for good and
   * that others may start from what it has left.
   */
  phase: Type.Union([
    Type.Literal('created'),
    Type.Literal('network'),
    Type.Literal('started'),
    Type.Literal('probed'),
    Type.Literal('failed'),
    Type.Literal('stopped'),
    Type.Literal('prepared'),
  ]),
  /** A test that stays until it is cleaned up. */
  keep: Type.Boolean(),
  /** It is being booted again, on files that hold somebody's work. */
  hasRun: Type.Optional(Type.Boolean()),
  changedAtMs: Time,
  /** Why, where it failed. */
  reason: Type.Optional(Type.String()),
});
/** `branches/<branch>/state.json`: how far a branch has been brought to life. */
export type BranchState = Type.Static<typeof BranchStateSchema>;
export type BranchPhase = BranchState['phase'];
export const BRANCH_STATE = recordKind('branch-state', 1, BranchStateSchema);

const BootProofSchema = Type.Object({
  proof: Type.Object({
    pointId: Type.String(),
    /** Digest of the signed statement of the point that was booted. */
    statementDigest: Hash,
    verdict: Type.Union([Type.Literal('passed'), Type.Literal('failed')]),
    /** Why it failed; empty if it passed. */
    reasons: Type.Array(Type.String()),
    startedAtMs: Time,
    /** From the command to the last probe that passed. */
    rtoMs: Type.Union([Type.Number({ minimum: 0 }), Type.Null()]),
    accelerator: Type.Union([Type.Literal('kvm'), Type.Literal('tcg')]),
    network: Type.Union([Type.Literal('isolated'), Type.Literal('unplugged')]),
    /** Probes as they were asked, each with how long it took since the guest's CPUs ran. */
    probes: Type.Array(
      Type.Object({
        probe: Type.Unknown(),
        passed: Type.Boolean(),
        durationMs: Type.Number({ minimum: 0 }),
        reason: Type.Optional(Type.String()),
      }),
    ),
    /** Whether a fresh random word that the guest was asked to draw was read off its screen. */
    nonce: Type.Union([Type.Literal('read'), Type.Literal('not-read'), Type.Literal('not-drawn')]),
    /** The console picture beside the proof; null if none could be taken. */
    picture: Type.Union([Type.Object({ name: Type.String(), sha256: Hash }), Type.Null()]),
    /** The program that wrote it, so that the head of the record cannot be changed either; earlier ones do not say it. */
    warmsite: Type.Optional(Type.String({ maxLength: 64 })),
  }),
  keyId: Type.String({ maxLength: 64 }),
  /** Ed25519 over `bootProofBytes`, base64. */
  signature: Type.String({ maxLength: 200 }),
});
/** `proofs/<point>/boot.json`: how the last isolated boot of a point went. */
export type SignedBootProof = Type.Static<typeof BootProofSchema>;
export type BootProof = SignedBootProof['proof'];
export const BOOT_PROOF = recordKind('boot-proof', 1, BootProofSchema);

const ApplicationProofSchema = Type.Object({
  proof: Type.Object({
    pointId: Type.String(),
    /** Digest of the signed statement of the point that was booted; the assertions stand in it. */
    statementDigest: Hash,
    verdict: Type.Union([Type.Literal('held'), Type.Literal('failed')]),
    startedAtMs: Time,
    /** How each assertion ended, in their order. */
    assertions: Type.Array(
      Type.Object({
        name: Type.String(),
        outcome: Type.Union([Type.Literal('held'), Type.Literal('failed'), Type.Literal('not-run')]),
        tookMs: Type.Number({ minimum: 0 }),
        exitCode: Type.Optional(Type.Integer()),
        output: Type.Optional(Type.String()),
        reason: Type.Optional(Type.String()),
      }),
      { minItems: 1 },
    ),
    /** The program that wrote it, so that the head of the record cannot be changed either; earlier ones do not say it. */
    warmsite: Type.Optional(Type.String({ maxLength: 64 })),
  }),
  keyId: Type.String({ maxLength: 64 }),
  /** Ed25519 over `applicationProofBytes`, base64. */
  signature: Type.String({ maxLength: 200 }),
});
/** `proofs/<point>/application.json`: what the assertions of a point said when it was last booted in isolation. */
export type SignedApplicationProof = Type.Static<typeof ApplicationProofSchema>;
export type ApplicationProof = SignedApplicationProof['proof'];
export const APPLICATION_PROOF = recordKind('application-proof', 1, ApplicationProofSchema);
