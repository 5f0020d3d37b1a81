import Type from 'typebox';
import { AbsolutePath, Reference, WallTime } from './common.ts';

/** A file or directory of the site's host. */
export const SeedRequest = Type.Object({ path: AbsolutePath }, { additionalProperties: false });

/** `target`: the site that the seed is for, by name or id; the first target if absent. */
export const ExportSeedRequest = Type.Object(
  { path: AbsolutePath, target: Type.Optional(Reference) },
  { additionalProperties: false },
);

/** A file of the site's host that is an older copy of a disk. */
const OlderDisk = {
  /** As the disk is called at the other site. */
  diskId: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,23}$' }),
  path: AbsolutePath,
  format: Type.Union([Type.Literal('qcow2'), Type.Literal('raw')]),
};

export const OfferOlderCopyRequest = Type.Object(
  {
    disks: Type.Array(Type.Object(OlderDisk, { additionalProperties: false }), {
      minItems: 1,
      maxItems: 64,
    }),
    /** The site where the machine is at home, by name or id; may be absent where only one is paired. */
    from: Type.Optional(Reference),
  },
  { additionalProperties: false },
);
export type OfferOlderCopyRequest = Type.Static<typeof OfferOlderCopyRequest>;

/** What the first copy of a machine need not bring, because an older copy of it is here. */
export const OlderCopyView = Type.Object({
  /** Name or id, as it was said. */
  machine: Type.String(),
  siteId: Type.String(),
  siteName: Type.Optional(Type.String()),
  offeredAtMs: WallTime,
  disks: Type.Array(
    Type.Object({
      ...OlderDisk,
      /** Why it is not used any more. */
      unfit: Type.Optional(Type.String()),
    }),
  ),
});
export type OlderCopyView = Type.Static<typeof OlderCopyView>;
