import Type from 'typebox';

export interface Route {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Below API_PREFIX; `:name` stands for a parameter, percent-encoded as one path segment. */
  readonly path: string;
  readonly params: Type.TSchema;
  readonly query: Type.TSchema;
  /** The JSON body; an empty object may be left out. */
  readonly body: Type.TSchema;
  readonly answer: Type.TSchema;
}

const Nothing = Type.Object({}, { additionalProperties: false });
const Machine = Type.Object({ machine: Type.String({ minLength: 1, maxLength: 64 }) });
/** A machine and a site that it is replicated to, by name or id. */
const MachineTarget = Type.Object({
  machine: Type.String({ minLength: 1, maxLength: 64 }),
  target: Type.String({ minLength: 1, maxLength: 64 }),
});

const MachinePoint = Type.Object({
  machine: Type.String({ minLength: 1, maxLength: 64 }),
  point: Type.String({ minLength: 1, maxLength: 32 }),
});

export const plain = { params: Nothing, query: Nothing, body: Nothing };
export const ofMachine = { ...plain, params: Machine };
export const ofTarget = { ...plain, params: MachineTarget };
export const ofPoint = { ...plain, params: MachinePoint };
