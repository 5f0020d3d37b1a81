import { pointFailure } from './errors.ts';

/** What a recovered guest can rely on: as after power loss, file systems flushed, applications flushed. */
export type Consistency = 'crash' | 'file-system' | 'application';

/** A class of copy. The list is open: user-defined types add hooks of their own to these two. */
export interface CopyType {
  readonly name: string;
  /** What a copy of this type strives for; what it reached stands on the point. */
  readonly aim: Consistency;
  readonly description: string;
}

const COPY_TYPES: readonly CopyType[] = [
  { name: 'crash', aim: 'crash', description: 'Disks as they were at one instant; the guest is not told' },
  {
    name: 'app',
    aim: 'application',
    description: 'Guest agent flushes and freezes file systems and applications first',
  },
];

export function copyTypeOf(name: string): CopyType {
  const type = COPY_TYPES.find((candidate) => candidate.name === name);
  if (!type)
    throw pointFailure('COPY_TYPE_UNKNOWN', `there is no copy type «${name}»`, { context: { type: name } });
  return type;
}

const RANK: Readonly<Record<Consistency, number>> = { crash: 0, 'file-system': 1, application: 2 };

/** A point of higher consistency counts also as one of every lower (an application-consistent one as crash-consistent). */
export function satisfies(has: Consistency, wanted: Consistency): boolean {
  return RANK[has] >= RANK[wanted];
}
