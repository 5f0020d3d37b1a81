import Type from 'typebox';

/** The machine is to run by leases. */
export const LeaseRequest = Type.Object(
  {
    /** Name or id of a third site, which need not have anything of the machine. */
    witness: Type.String({ minLength: 1, maxLength: 64 }),
    /** Name or id of the other site that may run it; its first target if absent. */
    recovery: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
    /** Half a minute if absent: so long is waited for a site that is silent, and at most so long the guest runs without any. */
    leaseMs: Type.Optional(Type.Integer({ minimum: 5_000, maximum: 600_000 })),
  },
  { additionalProperties: false },
);
export type LeaseRequest = Type.Static<typeof LeaseRequest>;

export const LeaseEndRequest = Type.Object(
  {
    /** The word of a person that the other site is down and does not run the machine: it is not asked. */
    confirmOtherSideDown: Type.Optional(Type.Literal(true)),
  },
  { additionalProperties: false },
);
export type LeaseEndRequest = Type.Static<typeof LeaseEndRequest>;

export const LeaseForgetRequest = Type.Object(
  {
    /** The word of a person: neither of the two sites that are known here for these leases runs the machine. */
    confirmNotRun: Type.Literal(true),
  },
  { additionalProperties: false },
);

/** By whom a machine is lent, and for how much longer: it runs for as long as one of the two does. */
export const LeaseView = Type.Object({
  leaseMs: Type.Number(),
  lenders: Type.Array(
    Type.Object({
      siteId: Type.String(),
      name: Type.Optional(Type.String()),
      role: Type.Union([Type.Literal('witness'), Type.Literal('recovery')]),
      /** How much longer it lends the machine; 0: it does not. */
      lentMs: Type.Number(),
    }),
  ),
  /** What its guard has done to the guest; absent while it is off. */
  guest: Type.Optional(Type.Union([Type.Literal('runs'), Type.Literal('stopped')])),
});
