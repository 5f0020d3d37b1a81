import Type from 'typebox';
import { pointFailure } from './errors.ts';

/** What a recovered guest can rely on: as after power loss, file systems flushed, applications flushed. */
export type Consistency = 'crash' | 'file-system' | 'application';

/** What a copy type, and with it a point, may be called. */
export const COPY_TYPE_NAME = '^[a-z][a-z0-9-]{0,31}$';

/** A program of the guest, run by its agent without a shell. */
const GuestProgram = Type.Object({
  command: Type.String({ pattern: '^[^\\0]+$', maxLength: 4096 }),
  arguments: Type.Array(Type.String({ pattern: '^[^\\0]*$', maxLength: 8192 }), { maxItems: 64 }),
  /** What it reads from its standard input, such as a script. */
  input: Type.Optional(Type.String({ maxLength: 16_384 })),
  limitMs: Type.Integer({ minimum: 100, maximum: 300_000 }),
});
export type GuestProgram = Type.Static<typeof GuestProgram>;

/** What is run in the guest around a cut. docs/consistency.md, «Hooks». */
export const Hooks = Type.Object({
  before: Type.Optional(GuestProgram),
  after: Type.Optional(GuestProgram),
  onFailure: Type.Optional(GuestProgram),
});
export type Hooks = Type.Static<typeof Hooks>;

/** What must hold in a guest that is booted from a point: the program ends with exit code 0. docs/consistency.md, «Assertions». */
export const Assertion = Type.Object({
  name: Type.String({ pattern: COPY_TYPE_NAME }),
  ...GuestProgram.properties,
});
export type Assertion = Type.Static<typeof Assertion>;
export const ASSERTIONS_MAX = 8;

/** Definition of a type, as JSON: its assertions are part of every statement of its points. */
export const COPY_TYPE_CHARACTERS_MAX = 65_536;

/** A class of copy: one of the two that every machine has, or one of its own. docs/consistency.md, «Copy types». */
export const CopyType = Type.Object({
  name: Type.String({ pattern: COPY_TYPE_NAME }),
  /** What a copy of this type strives for; what it reached stands on the point. */
  aim: Type.Union([Type.Literal('crash'), Type.Literal('application')]),
  /** For people. */
  description: Type.Optional(Type.String({ maxLength: 200 })),
  hooks: Type.Optional(Hooks),
  assertions: Type.Optional(Type.Array(Assertion, { maxItems: ASSERTIONS_MAX })),
});
export type CopyType = Type.Static<typeof CopyType>;

/** More types of its own no machine has. */
export const COPY_TYPES_MAX = 16;

export const BUILT_IN_TYPES: readonly CopyType[] = [
  { name: 'crash', aim: 'crash', description: 'Disks as they were at one instant; the guest is not told' },
  {
    name: 'app',
    aim: 'application',
    description: 'Guest agent flushes and freezes file systems and applications first',
  },
];

/** The type of this name, of those that every machine has and its own ones. Throws COPY_TYPE_UNKNOWN. */
export function copyTypeOf(name: string, own: readonly CopyType[]): CopyType {
  const type = [...BUILT_IN_TYPES, ...own].find((candidate) => candidate.name === name);
  if (!type)
    throw pointFailure('COPY_TYPE_UNKNOWN', `there is no copy type «${name}»`, { context: { type: name } });
  return type;
}

/** What a copy strove for: as it says itself, or else by the name of its type. Only types of a machine's own say it. */
export function aimOf({
  copyType,
  aim,
}: {
  readonly copyType: string;
  readonly aim?: Consistency;
}): Consistency {
  return aim ?? BUILT_IN_TYPES.find(({ name }) => name === copyType)?.aim ?? 'crash';
}

const RANK: Readonly<Record<Consistency, number>> = { crash: 0, 'file-system': 1, application: 2 };

/** A point of higher consistency counts also as one of every lower (an application-consistent one as crash-consistent). */
export function satisfies(has: Consistency, wanted: Consistency): boolean {
  return RANK[has] >= RANK[wanted];
}
