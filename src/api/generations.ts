import Type from 'typebox';
import { Bytes, Done, Id, WallTime } from './common.ts';
import { plain, type Route } from './route-shape.ts';

/** What a site had of a machine before the newest turn of its replication. */
export const GenerationView = Type.Object({
  /** What it is named by: `machine.1`, `replica.3`. */
  generation: Type.String(),
  /** `machine`: it was at home here; `replica`: points of another site, with the branches that were made of them. */
  kind: Type.Union([Type.Literal('machine'), Type.Literal('replica')]),
  /** In which it began; 1 of the first one. */
  epoch: Type.Integer({ minimum: 1 }),
  directory: Type.String(),
  /** The space that it takes, holes not counted. */
  sizeBytes: Bytes,
  /** When the newest state in it was cut; absent where nothing tells that. */
  newestAtMs: Type.Optional(WallTime),
  /** Branches in it: what was written in them is nowhere else. */
  branches: Type.Array(Id),
  /** What lies upon its files, by the headers of the images, and keeps it from being removed. */
  needs: Type.Array(
    Type.Object({
      by: Type.Union([
        Type.Literal('machine'),
        Type.Literal('replica'),
        Type.Literal('branch'),
        Type.Literal('older-copy'),
        Type.Literal('generation'),
      ]),
      path: Type.String(),
    }),
  ),
  /** Why it is not known what lies upon it; it is not removed then. */
  unclear: Type.Optional(Type.String()),
});
export type GenerationView = Type.Static<typeof GenerationView>;

const Machine = { machine: Type.String({ minLength: 1, maxLength: 64 }) };

export const GENERATION_ROUTES = {
  'generation.list': {
    ...plain,
    params: Type.Object(Machine),
    method: 'GET',
    path: '/machines/:machine/generations',
    answer: Type.Array(GenerationView),
  },
  /** By its name, or by its epoch where no other one has that. */
  'generation.remove': {
    ...plain,
    params: Type.Object({ ...Machine, generation: Type.String({ minLength: 1, maxLength: 32 }) }),
    method: 'DELETE',
    path: '/machines/:machine/generations/:generation',
    answer: Done,
  },
} as const satisfies Readonly<Record<string, Route>>;
