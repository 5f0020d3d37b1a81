import Type from 'typebox';

/** Of a TPM 2.0 that libtpms emulates: its memory that outlives a loss of power has 128 KiB, and what holds it some more. */
export const TPM_STATE_BYTES_MAX = 256 * 1024;

/**
 * What the TPM of a machine would hold after a loss of power at the instant of the cut. `paused`: copied while the guest stood still
 * for the cut. `unchanged`: the same before the cut and after it. `stopped`: the machine was off.
 */
export const TpmState = Type.Object({
  captured: Type.Union([Type.Literal('paused'), Type.Literal('unchanged'), Type.Literal('stopped')]),
  /** How long the guest stood still for it. */
  pauseMs: Type.Number({ minimum: 0 }),
  /** The file of the emulator, base64. */
  state: Type.String({ maxLength: Math.ceil(TPM_STATE_BYTES_MAX / 3) * 4 }),
});
export type TpmState = Type.Static<typeof TpmState>;
