import Type from 'typebox';
import { ProgramName } from './failovers.ts';
import { plain, type Route } from './route-shape.ts';

/** A program of the site that makes sure that the other side is down. */
export const FencingProgram = Type.Object(
  {
    program: ProgramName,
    arguments: Type.Optional(Type.Array(Type.String({ maxLength: 1024 }), { maxItems: 32 })),
    /** It is killed then, and has fenced nothing; two minutes if absent. */
    limitMs: Type.Optional(Type.Integer({ minimum: 100, maximum: 3_600_000 })),
  },
  { additionalProperties: false },
);
export type FencingProgram = Type.Static<typeof FencingProgram>;

/** What fences the other side where a plan names nothing else. */
export const FencingRule = Type.Object({
  /** Absent: nothing does. */
  fencing: Type.Optional(FencingProgram),
  /** Why the program could not be run here. */
  lack: Type.Optional(Type.String()),
});
export type FencingRule = Type.Static<typeof FencingRule>;

export const FencingRequest = Type.Object(
  {
    /** In the place of what there was; null: none. */
    fencing: Type.Union([FencingProgram, Type.Null()]),
  },
  { additionalProperties: false },
);
export type FencingRequest = Type.Static<typeof FencingRequest>;

export const FENCING_ROUTES = {
  'fencing.show': { ...plain, method: 'GET', path: '/fencing', answer: FencingRule },
  'fencing.change': {
    ...plain,
    method: 'PATCH',
    path: '/fencing',
    body: FencingRequest,
    answer: FencingRule,
  },
} as const satisfies Readonly<Record<string, Route>>;
