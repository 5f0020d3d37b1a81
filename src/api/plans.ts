import Type from 'typebox';
import { ConsistencyName, Count, Id, WallTime } from './common.ts';
import { ChangesAtSite, Networks, NicConnection, Probes, ProgramName, SelectionWish } from './failovers.ts';
import { FencingProgram } from './fencing.ts';
import { JobView } from './site.ts';

/** What people call a plan; it names a file of theirs. */
const PlanName = Type.String({ pattern: '^[a-z][a-z0-9-]{0,31}$' });
const GroupName = Type.String({ minLength: 1, maxLength: 64 });
/** A machine by its name, which both sites know. */
const MachineName = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' });

/**
 * `test`: all in isolation, where they see each other, and thrown away. `unplanned`: brought up here without the other site. `take`: taken over as
 * it is offered. `cede`: handed over to another site, the last ones first.
 */
export const PlanMode = Type.Union([
  Type.Literal('test'),
  Type.Literal('unplanned'),
  Type.Literal('take'),
  Type.Literal('cede'),
]);
export type PlanMode = Type.Static<typeof PlanMode>;

/** A program that the operator has put into the directory `programs` of the site that carries the plan out. */
const PlanHook = Type.Object(
  {
    program: ProgramName,
    arguments: Type.Optional(Type.Array(Type.String({ maxLength: 1024 }), { maxItems: 32 })),
    /** It is killed then; a minute if absent. */
    limitMs: Type.Optional(Type.Integer({ minimum: 100, maximum: 3_600_000 })),
    /** That it fails is told, and no more. */
    optional: Type.Optional(Type.Boolean()),
    /** In which runs; `unplanned` and `take` if absent. */
    on: Type.Optional(Type.Array(PlanMode, { minItems: 1, maxItems: 4 })),
  },
  { additionalProperties: false },
);
export type PlanHook = Type.Static<typeof PlanHook>;

/** Run one after the other before and after a machine, or a run. */
const PlanHooks = Type.Object(
  {
    before: Type.Optional(Type.Array(PlanHook, { maxItems: 8 })),
    after: Type.Optional(Type.Array(PlanHook, { maxItems: 8 })),
  },
  { additionalProperties: false },
);

/** One machine of a plan. */
const PlannedMachine = Type.Object(
  {
    /** Machines of a lower tier are up before; 1 if absent. */
    tier: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
    /** Further machines that are up before it. */
    after: Type.Optional(Type.Array(MachineName, { maxItems: 64 })),
    /** Counts as up when its guest has answered all of these; the agent, where there is one, if absent. */
    gates: Type.Optional(Probes),
    /** What its NICs are connected to, by NIC id, in the place of what the networks of the plan say. */
    networks: Type.Optional(Networks),
    /** What is different about it, by name of the site where it comes up. */
    at: Type.Optional(Type.Record(Type.String({ minLength: 1, maxLength: 64 }), ChangesAtSite)),
    /** Which of its points is the best, in the place of what the plan says. */
    points: Type.Optional(SelectionWish),
    /** Only points of at least this consistency. */
    atLeast: Type.Optional(ConsistencyName),
    /** What is run before it is begun, and when it has passed its gates. */
    hooks: Type.Optional(PlanHooks),
    /** What makes sure that it is down at the other site, in the place of what the plan says. */
    fencing: Type.Optional(FencingProgram),
    /** What a person has to say yes to before it starts. */
    approval: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    /** How long its guest may take to shut down when it is handed over. */
    graceMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 3_600_000 })),
  },
  { additionalProperties: false },
);

/** A recovery plan as its owner writes it: the same for a rehearsal, a planned move and a disaster, and for both sites. */
export const PlanDocument = Type.Object(
  {
    plan: PlanName,
    description: Type.Optional(Type.String({ maxLength: 1000 })),
    /** By network of the protected site, then by name of the site where the machines come up. */
    networks: Type.Optional(
      Type.Record(
        Type.String({ minLength: 1, maxLength: 64 }),
        Type.Record(Type.String({ minLength: 1, maxLength: 64 }), NicConnection),
      ),
    ),
    /** Which points are the best, where a machine says nothing else. */
    points: Type.Optional(SelectionWish),
    /** Names of groups whose machines come up from points of one cut. */
    oneCut: Type.Optional(Type.Array(GroupName, { maxItems: 16 })),
    /** What is run before the first machine is begun, and when all have ended. */
    hooks: Type.Optional(PlanHooks),
    /** What makes sure that a machine is down at the other site, in the place of what the site says. */
    fencing: Type.Optional(FencingProgram),
    machines: Type.Record(MachineName, PlannedMachine, { minProperties: 1, maxProperties: 500 }),
  },
  { additionalProperties: false },
);
export type PlanDocument = Type.Static<typeof PlanDocument>;

/** Something that is wrong with a plan, or that its owner should know. */
const PlanFinding = Type.Object({
  severity: Type.Union([Type.Literal('error'), Type.Literal('warning')]),
  machine: Type.Optional(Type.String()),
  message: Type.String(),
});
export type PlanFinding = Type.Static<typeof PlanFinding>;

export const PlanCheck = Type.Object({
  plan: Type.String(),
  /** In the order in which they may begin; those of one list together. */
  order: Type.Array(Type.Array(Type.String())),
  findings: Type.Array(PlanFinding),
  /** What would change by storing it; absent if nothing of that name is stored. */
  changes: Type.Optional(Type.Array(Type.String())),
});
export type PlanCheck = Type.Static<typeof PlanCheck>;

export const PlanView = Type.Object({
  document: PlanDocument,
  storedAtMs: WallTime,
  /** One more with each change, wherever it was made. */
  counter: Count,
  /** Another site has changed it, too, without this one; what is here counts here until somebody puts it again. */
  conflict: Type.Optional(
    Type.Object({
      siteId: Id,
      storedAtMs: WallTime,
      /** From what is here to what is there. */
      changes: Type.Array(Type.String()),
    }),
  ),
});
export type PlanView = Type.Static<typeof PlanView>;

export const PlanEstimate = Type.Object({
  plan: Type.String(),
  /** From the first command to the last machine that is up; null while one of them has never been measured. */
  totalMs: Type.Union([Type.Number(), Type.Null()]),
  machines: Type.Array(
    Type.Object({
      machine: Type.String(),
      /** What the newest isolated boot of a point of it took, from the command to the last answer; null: none has passed yet. */
      measuredMs: Type.Union([Type.Number(), Type.Null()]),
      beginsAtMs: Type.Union([Type.Number(), Type.Null()]),
      upAtMs: Type.Union([Type.Number(), Type.Null()]),
    }),
  ),
});
export type PlanEstimate = Type.Static<typeof PlanEstimate>;

export const RunPlanRequest = Type.Object(
  {
    mode: PlanMode,
    /** For `unplanned`: the word of a person that the machines no longer run at the other site. */
    confirmOtherSideDown: Type.Optional(Type.Literal(true)),
    /** For `unplanned`: the witness of each machine that has one is asked whether it may still run there; that word is for the others. */
    askWitness: Type.Optional(Type.Literal(true)),
    /** For `unplanned`: a fencing program makes sure, of each machine, that it is down; of those without a witness, beside `askWitness`. */
    fence: Type.Optional(Type.Literal(true)),
    /** For `take`: how long each offer is waited for; not at all if absent. */
    waitMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 30 * 24 * 3_600_000 })),
    /** For `cede`: name or id of the site; the first target of each machine if absent. */
    to: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
  },
  { additionalProperties: false },
);
export type RunPlanRequest = Type.Static<typeof RunPlanRequest>;

/** As a person asks for it. `planned`: `take` or `cede`, by who holds the machines; an offer is waited for an hour then, if `waitMs` is absent. */
export const RunPlanWish = Type.Object(
  { ...RunPlanRequest.properties, mode: Type.Union([PlanMode, Type.Literal('planned')]) },
  { additionalProperties: false },
);
export type RunPlanWish = Type.Static<typeof RunPlanWish>;

/** How a hook ended. */
const HookOutcome = Type.Object({
  when: Type.Union([Type.Literal('before'), Type.Literal('after')]),
  /** Its place among those that are run there. */
  index: Count,
  program: Type.String(),
  /** `not-run`: there is no such program here, or it could not be started. */
  outcome: Type.Union([
    Type.Literal('passed'),
    Type.Literal('failed'),
    Type.Literal('out-of-time'),
    Type.Literal('not-run'),
  ]),
  exitCode: Type.Optional(Type.Integer()),
  /** The beginning of what it printed, or why it was not run. */
  output: Type.Optional(Type.String()),
  tookMs: Type.Number(),
});
export type HookOutcome = Type.Static<typeof HookOutcome>;

/** How far a run is with one machine. */
export const RunStep = Type.Object({
  machine: Type.String(),
  machineId: Type.String(),
  /**
   * `waiting` for others; `asking` a person; `starting`; then `done` or `failed`, or `blocked` by one that has failed.
   */
  state: Type.Union([
    Type.Literal('waiting'),
    Type.Literal('asking'),
    Type.Literal('starting'),
    Type.Literal('done'),
    Type.Literal('failed'),
    Type.Literal('blocked'),
  ]),
  jobId: Type.Optional(Id),
  /** Who said yes to what the plan asks. */
  approvedBy: Type.Optional(Type.String()),
  approvedAtMs: Type.Optional(WallTime),
  /** What has to be answered beside what the plan asks: the site was away in the middle of the run. */
  asks: Type.Optional(Type.String()),
  /** To what people have said yes, in that order; runs of earlier programs have none. */
  answers: Type.Optional(
    Type.Array(Type.Object({ question: Type.String(), by: Type.String(), atMs: WallTime })),
  ),
  beganAtMs: Type.Optional(WallTime),
  /** The branches of failovers that there were before its job was begun: those that are there beside them it has made. */
  formerBranchIds: Type.Optional(Type.Array(Id)),
  endedAtMs: Type.Optional(WallTime),
  /** Why it failed, or which machine blocks it, or what is asked. */
  reason: Type.Optional(Type.String()),
  /** Of what was brought up. */
  branchId: Type.Optional(Id),
  sequence: Type.Optional(Count),
  /** Decided when the run began: the point of the cut from which all machines of its group come up. */
  pointId: Type.Optional(Id),
  cutId: Type.Optional(Id),
  /** In the order in which they were run; one that was run again stands there again. */
  hooks: Type.Optional(Type.Array(HookOutcome)),
});
export type RunStep = Type.Static<typeof RunStep>;

export const PlanRun = Type.Object({
  runId: Id,
  jobId: Type.Optional(Id),
  actor: Type.String(),
  request: RunPlanRequest,
  /** The plan as it was when the run began. */
  document: PlanDocument,
  startedAtMs: WallTime,
  /** When something of it was recorded last. */
  touchedAtMs: Type.Optional(WallTime),
  /** In which start of its host that was, and how long after it: the clock on the wall may be another one by then. */
  touchedInBoot: Type.Optional(Type.Object({ bootId: Type.String(), sinceBootMs: Type.Number() })),
  endedAtMs: Type.Optional(WallTime),
  /** `partly`: some machines are up and others are not. */
  verdict: Type.Optional(
    Type.Union([
      Type.Literal('done'),
      Type.Literal('partly'),
      Type.Literal('failed'),
      Type.Literal('cancelled'),
    ]),
  ),
  steps: Type.Array(RunStep),
  /** Before and after all machines. */
  hooks: Type.Optional(Type.Array(HookOutcome)),
});
export type PlanRun = Type.Static<typeof PlanRun>;

export const StartedRun = Type.Object({ run: PlanRun, job: JobView });
export type StartedRun = Type.Static<typeof StartedRun>;
