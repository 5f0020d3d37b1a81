import { createHash } from 'node:crypto';
import Type from 'typebox';

/** Of a TPM 2.0 that libtpms emulates: its memory that outlives a loss of power has 128 KiB, and what holds it some more. */
export const TPM_STATE_BYTES_MAX = 256 * 1024;

const about = {
  captured: Type.Union([Type.Literal('paused'), Type.Literal('unchanged'), Type.Literal('stopped')]),
  /** How long the guest stood still for it. */
  pauseMs: Type.Number({ minimum: 0 }),
};

/** The file of the emulator, base64. */
export const TpmBytes = Type.String({ maxLength: Math.ceil(TPM_STATE_BYTES_MAX / 3) * 4 });

/**
 * What the TPM of a machine would hold after a loss of power at the instant of the cut. `paused`: copied while the guest stood still
 * for the cut. `unchanged`: the same before the cut and after it. `stopped`: the machine was off.
 */
export const TpmCopy = Type.Object({ ...about, state: TpmBytes });
export type TpmCopy = Type.Static<typeof TpmCopy>;

/** What is signed of it: not the state itself, which holds keys, and which whoever checks a signature need not have. */
export const TpmSaid = Type.Object({
  ...about,
  sizeBytes: Type.Integer({ minimum: 0, maximum: TPM_STATE_BYTES_MAX }),
  sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
});
export type TpmSaid = Type.Static<typeof TpmSaid>;

export function tpmSaid({ captured, pauseMs, state }: TpmCopy): TpmSaid {
  const bytes = Buffer.from(state, 'base64');
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { captured, pauseMs, sizeBytes: bytes.length, sha256 };
}
