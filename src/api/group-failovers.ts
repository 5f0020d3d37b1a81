import Type from 'typebox';
import { FailureShape, Id, Reference } from './common.ts';
import { FailoverRequest, Networks, TestFailoverRequest } from './failovers.ts';
import { JobView } from './site.ts';

const strict = { additionalProperties: false };

/** Which cut of the group; the newest of which the points of all members are here if absent. */
const Cut = Type.Optional(Id);

/** All members of a group are booted in isolation, each in a network of its own, from their points of one cut. */
export const TestGroupRequest = Type.Object(
  {
    cut: Cut,
    name: TestFailoverRequest.properties.name,
    keep: TestFailoverRequest.properties.keep,
    probes: TestFailoverRequest.properties.probes,
  },
  strict,
);
export type TestGroupRequest = Type.Static<typeof TestGroupRequest>;

/** All members of a group are failed over, from their points of one cut. */
export const FailOverGroupRequest = Type.Object(
  {
    cut: Cut,
    name: FailoverRequest.properties.name,
    confirmOtherSideDown: FailoverRequest.properties.confirmOtherSideDown,
    askWitness: FailoverRequest.properties.askWitness,
    fence: FailoverRequest.properties.fence,
    probes: FailoverRequest.properties.probes,
    /** By machine, name or id: where its NICs are connected here. */
    networks: Type.Optional(Type.Record(Reference, Networks)),
  },
  strict,
);
export type FailOverGroupRequest = Type.Static<typeof FailOverGroupRequest>;

/** A job for each member that could be begun, in the order of their machines' ids. */
export const GroupJobs = Type.Object({
  cutId: Id,
  jobs: Type.Array(Type.Object({ machineId: Id, name: Type.String(), job: JobView })),
  /** Members of which no job was begun, and why; absent where there is none. If nothing was begun at all, the answer is an error. */
  failures: Type.Optional(
    Type.Array(Type.Object({ machineId: Id, name: Type.String(), failure: FailureShape })),
  ),
});
export type GroupJobs = Type.Static<typeof GroupJobs>;
