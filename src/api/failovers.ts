import Type from 'typebox';
import { Bytes, ConsistencyName, Count, Id, WallTime } from './common.ts';
import { AssertionShape } from './policies.ts';

/** Names a file in the directory `programs` of a site. */
export const ProgramName = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' });
/** What an answer has to match; `^` and `$` stand at lines. */
const Pattern = Type.Optional(Type.String({ minLength: 1, maxLength: 1000 }));

/** From where a guest is asked over the network: of interest in isolation alone. */
const Asking = {
  /** The network at the protected site; the first NIC's if absent. */
  network: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
  /** The address with prefix length that the asking side takes there; the last free one of the host's /24 if absent. */
  from: Type.Optional(Type.String({ minLength: 9, maxLength: 18 })),
};

/** What a revived machine is asked for; each probe has `limitMs` to succeed. */
const ProbeRequest = Type.Union([
  Type.Object(
    { kind: Type.Literal('agent'), limitMs: Type.Optional(Type.Integer({ minimum: 1 })) },
    { additionalProperties: false },
  ),
  Type.Object(
    {
      kind: Type.Literal('serial'),
      pattern: Type.String({ minLength: 1, maxLength: 1000 }),
      limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
    },
    { additionalProperties: false },
  ),
  Type.Object(
    {
      kind: Type.Literal('tcp'),
      host: Type.String({ minLength: 1, maxLength: 253 }),
      port: Type.Integer({ minimum: 1, maximum: 65535 }),
      limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
      ...Asking,
    },
    { additionalProperties: false },
  ),
  Type.Object(
    {
      kind: Type.Literal('http'),
      /** Of a web server, with an IPv4 address for the host; certificates are not looked at. */
      url: Type.String({ minLength: 1, maxLength: 2000 }),
      /** The name that the server is asked for, where it has several. */
      name: Type.Optional(Type.String({ minLength: 1, maxLength: 253 })),
      /** Any from 200 to 399 if absent. */
      status: Type.Optional(Type.Integer({ minimum: 100, maximum: 599 })),
      pattern: Pattern,
      limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
      ...Asking,
    },
    { additionalProperties: false },
  ),
  /** A program of the guest, run by its agent without a shell. */
  Type.Object(
    {
      kind: Type.Literal('guest'),
      command: Type.String({ minLength: 1, maxLength: 4096 }),
      arguments: Type.Optional(Type.Array(Type.String({ maxLength: 8192 }), { maxItems: 64 })),
      pattern: Pattern,
      limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
    },
    { additionalProperties: false },
  ),
  /** A query, asked by the database's own client in the guest. */
  Type.Object(
    {
      kind: Type.Literal('sql'),
      system: Type.Union([
        Type.Literal('postgresql'),
        Type.Literal('mariadb'),
        Type.Literal('mysql'),
        Type.Literal('sqlite'),
      ]),
      query: Type.String({ minLength: 1, maxLength: 8192 }),
      /** Its name; for SQLite the path of its file, without which nothing is asked. */
      database: Type.Optional(Type.String({ minLength: 1, maxLength: 4096 })),
      pattern: Pattern,
      limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
    },
    { additionalProperties: false },
  ),
  /** A program that the operator of this site has put into its directory for such. */
  Type.Object(
    {
      kind: Type.Literal('script'),
      program: ProgramName,
      limitMs: Type.Optional(Type.Integer({ minimum: 1 })),
    },
    { additionalProperties: false },
  ),
]);
export type ProbeRequest = Type.Static<typeof ProbeRequest>;
export const Probes = Type.Array(ProbeRequest, { maxItems: 32 });

/**
 * A point by id, sequence number, `latest`, `latest-crash` (the same) or `latest-application`; or by the id of a group's cut, or
 * `latest-group`: this machine's point of it.
 */
const PointReference = Type.String({ minLength: 1, maxLength: 32 });

/** What a person calls a branch; it can stand for the id everywhere. No two branches of a machine have one name. */
const BranchName = Type.String({ pattern: '^[a-z][a-z0-9-]{0,31}$' });

/** What a test may take of the host that it runs on; what is not named is as at the protected machine, or not limited. */
const TestLimits = Type.Object(
  {
    memoryBytes: Type.Optional(Type.Integer({ minimum: 16 * 1024 * 1024, maximum: 2 ** 46 })),
    cpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 1024 })),
    /** Of the time of one CPU of the host; 200 are two. */
    cpuPercent: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
    /** Share of the CPUs while others want them too; 100 is what everybody has. */
    cpuWeight: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    /** Of all its disks together, reads and writes. */
    diskBytesPerSecond: Type.Optional(Type.Integer({ minimum: 4096, maximum: 2 ** 52 })),
    diskOperationsPerSecond: Type.Optional(Type.Integer({ minimum: 1, maximum: 2 ** 32 })),
  },
  { additionalProperties: false },
);

const LifetimeMs = Type.Integer({ minimum: 1000, maximum: 366 * 24 * 3_600_000 });
const MostRunning = Type.Integer({ minimum: 0, maximum: 10_000 });

/** What the tests of a site may take together. */
export const FailoverRules = Type.Object({
  /** So many run at once. */
  mostRunning: MostRunning,
  /** With less free space than this below the data directory no test starts, and those that run stand still; failovers never do. */
  freeFloorBytes: Bytes,
  /** After this time a test is cleaned up by itself unless it was given another; never, if absent. */
  lifetimeMs: Type.Optional(LifetimeMs),
});
export type FailoverRules = Type.Static<typeof FailoverRules>;

/** What is not named stays as it is. */
export const FailoverRulesRequest = Type.Object(
  {
    mostRunning: Type.Optional(MostRunning),
    freeFloorBytes: Type.Optional(Bytes),
    lifetimeMs: Type.Optional(Type.Union([LifetimeMs, Type.Null()])),
  },
  { additionalProperties: false },
);
export type FailoverRulesRequest = Type.Static<typeof FailoverRulesRequest>;

const IPV4 =
  '((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const Ipv4 = Type.String({ pattern: `^${IPV4}$` });

/** What a NIC is to have in the guest. */
const NicAddresses = Type.Object(
  {
    /** With prefix length; the first one is the one that gates ask. */
    addresses: Type.Array(Type.String({ pattern: `^${IPV4}/([1-9]|[12][0-9]|3[0-2])$` }), {
      minItems: 1,
      maxItems: 8,
    }),
    gateway: Type.Optional(Ipv4),
    dns: Type.Optional(Type.Array(Ipv4, { minItems: 1, maxItems: 3 })),
  },
  { additionalProperties: false },
);
const Policy = Type.Optional(Type.Union([Type.Literal('keep'), Type.Literal('new')]));
const Resources = {
  memoryBytes: Type.Optional(Type.Integer({ minimum: 16 * 1024 * 1024, maximum: 2 ** 46 })),
  cpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 1024 })),
};

/** How a machine that comes up differs from the one that its point describes; what is not said stays as it is. */
const changes = {
  /** By NIC id: set through the guest agent before the guest is asked its probes. */
  addresses: Type.Optional(Type.Record(Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,23}$' }), NicAddresses)),
  /** A program of the guest that sets them, in the place of `ip`: it gets interface, addresses, gateway and resolvers. */
  addressTool: Type.Optional(Type.String({ minLength: 1, maxLength: 4096 })),
  ...Resources,
  mac: Policy,
  uuid: Policy,
};
export const MachineChanges = Type.Object(changes, { additionalProperties: false });
export type MachineChanges = Type.Static<typeof MachineChanges>;
/** The same at one site of a plan. */
export const ChangesAtSite = Type.Object(
  { ...changes, inTest: Type.Optional(Type.Object(Resources, { additionalProperties: false })) },
  { additionalProperties: false },
);

/** Which point is the best: how much older one may be for what it is worth. docs/consistency.md, «Which point a failover takes». */
export const SelectionWish = Type.Object(
  {
    /** Only points of at least this consistency. */
    atLeast: Type.Optional(ConsistencyName),
    /** How much older an application-consistent point may be and still be preferred; ten seconds if absent, 0: it counts for nothing. */
    applicationWorthMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 45 })),
    /** The same for one whose boot is proven; thirty seconds if absent. */
    provenWorthMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 45 })),
    /** No others than those whose last isolated boot passed. */
    provenOnly: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type SelectionWish = Type.Static<typeof SelectionWish>;

export const TestFailoverRequest = Type.Object(
  {
    limits: Type.Optional(TestLimits),
    /** After this time it is cleaned up by itself, by the wall clock of the site; its rule if absent. */
    lifetimeMs: Type.Optional(LifetimeMs),
    name: Type.Optional(BranchName),
    /** The best by selection if absent. */
    point: Type.Optional(PointReference),
    /** Leave the machine running after its probes, until `failover cleanup`. */
    keep: Type.Optional(Type.Boolean()),
    /** Where no point is named. */
    wish: Type.Optional(SelectionWish),
    probes: Type.Optional(Probes),
    changes: Type.Optional(MachineChanges),
  },
  { additionalProperties: false },
);
export type TestFailoverRequest = Type.Static<typeof TestFailoverRequest>;

/** As a test of a point, of a branch that diverged. */
export const TestBranchRequest = Type.Omit(TestFailoverRequest, ['point', 'wish'], {
  additionalProperties: false,
});
export type TestBranchRequest = Type.Static<typeof TestBranchRequest>;

/** Writes the disks of a branch to files, as its guest would find them. */
export const ExportBranchRequest = Type.Object(
  {
    /** A directory of the site's host; a directory of the branch is made in it. */
    path: Type.String({ minLength: 1, maxLength: 1024 }),
  },
  { additionalProperties: false },
);
export type ExportBranchRequest = Type.Static<typeof ExportBranchRequest>;

/** Does ahead what would else have to be done in the guest after a failover of a point. */
export const PrepareRequest = Type.Object(
  {
    point: PointReference,
    name: Type.Optional(BranchName),
    /** Run in the guest, in isolation, one after the other; each must end with exit code 0, and then it shuts down. */
    programs: Type.Array(AssertionShape, { minItems: 1, maxItems: 8 }),
    probes: Type.Optional(Probes),
    /** How long the guest may take to shut down; a minute if absent. */
    graceMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 3_600_000 })),
  },
  { additionalProperties: false },
);
export type PrepareRequest = Type.Static<typeof PrepareRequest>;

const InterfaceName = Type.String({ pattern: '^[A-Za-z0-9._-]{1,15}$' });

/** What a NIC is connected to here: a bridge, which gets a tap of ours, or a tap that exists. */
export const NicConnection = Type.Union([
  Type.Object({ kind: Type.Literal('bridge'), bridge: InterfaceName }, { additionalProperties: false }),
  Type.Object({ kind: Type.Literal('tap'), interfaceName: InterfaceName }, { additionalProperties: false }),
]);
export type NicConnection = Type.Static<typeof NicConnection>;

/** By NIC id; the cable of a NIC that is not named stays unplugged. */
export const Networks = Type.Record(Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,23}$' }), NicConnection);

export const FailoverRequest = Type.Object(
  {
    name: Type.Optional(BranchName),
    point: Type.Optional(PointReference),
    /** Where no point is named. */
    wish: Type.Optional(SelectionWish),
    /** The word of a person that the machine no longer runs at the other site; both would diverge. */
    confirmOtherSideDown: Type.Optional(Type.Literal(true)),
    /** In its place: the witness of the machine is asked whether it may still run there. */
    askWitness: Type.Optional(Type.Literal(true)),
    /** In its place: the fencing program of this site makes sure of it. Not for a machine with a witness. */
    fence: Type.Optional(Type.Literal(true)),
    probes: Type.Optional(Probes),
    networks: Type.Optional(Networks),
    changes: Type.Optional(MachineChanges),
  },
  { additionalProperties: false },
);
export type FailoverRequest = Type.Static<typeof FailoverRequest>;

/** Hands a machine over to a site that has its replica: it is shut down here, and its last state copied there. */
export const CedeRequest = Type.Object(
  {
    /** Name or id of the site; the first target if absent. */
    to: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
    /** How long the guest may take to shut down; two minutes if absent. One that does not stays, and is not handed over. */
    graceMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 3_600_000 })),
    /** The guest is not asked: its power is cut. */
    powerOff: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type CedeRequest = Type.Static<typeof CedeRequest>;

/** Ends what a failover has brought up, and gives it up: the site where the machine was may take it back as it was there. */
export const UndoRequest = Type.Object(
  {
    /** How long the guest may take to shut down before its power is cut; 0: at once. A minute if absent. */
    graceMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 3_600_000 })),
  },
  { additionalProperties: false },
);
export type UndoRequest = Type.Static<typeof UndoRequest>;

/** Takes back what was offered and not taken, or what the other site has brought up and given up. */
export const WithdrawRequest = Type.Object(
  {
    /** The word of a person that the other site is down and has not brought the machine up: it is not asked. */
    confirmOtherSideDown: Type.Optional(Type.Literal(true)),
  },
  { additionalProperties: false },
);
export type WithdrawRequest = Type.Static<typeof WithdrawRequest>;

/** Takes over a machine that was offered to this site, and starts it. */
export const TakeRequest = Type.Object(
  {
    /** Wait so long for the offer; it must be there if absent. */
    waitMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 86_400_000 })),
    name: Type.Optional(BranchName),
    probes: Type.Optional(Probes),
    networks: Type.Optional(Networks),
    changes: Type.Optional(MachineChanges),
  },
  { additionalProperties: false },
);
export type TakeRequest = Type.Static<typeof TakeRequest>;

/** Boots a branch that has ended on its own files again. */
export const RestartRequest = Type.Object(
  { probes: Type.Optional(Probes), networks: Type.Optional(Networks) },
  { additionalProperties: false },
);
export type RestartRequest = Type.Static<typeof RestartRequest>;

/** Ends the machine of a branch and keeps its files. */
export const StopBranchRequest = Type.Object(
  {
    /** How long the guest may take to shut down before its power is cut; 0: at once. A minute if absent. */
    graceMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 3_600_000 })),
  },
  { additionalProperties: false },
);
export type StopBranchRequest = Type.Static<typeof StopBranchRequest>;

/** Goes from the point of a branch forward to a later one, which gets a new branch. */
export const ForwardRequest = Type.Object(
  {
    /** The very next point if absent. */
    to: Type.Optional(PointReference),
    /**
     * Whether the old branch stays, stopped, beside the new one; `discard` removes it as soon as the new one has come up. A
     * test is discarded and a failover kept if absent.
     */
    oldBranch: Type.Optional(Type.Union([Type.Literal('keep'), Type.Literal('discard')])),
    /**
     * How long the old guest may take to shut down before its power is cut; 0: at once. If absent a minute where it is kept,
     * and no time where it is discarded.
     */
    graceMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 3_600_000 })),
    /** What the new branch is called. */
    name: Type.Optional(BranchName),
    probes: Type.Optional(Probes),
    networks: Type.Optional(Networks),
  },
  { additionalProperties: false },
);
export type ForwardRequest = Type.Static<typeof ForwardRequest>;

/** Makes what a failover has brought up the machine itself, at home here. */
export const AdoptRequest = Type.Object(
  {
    /** Name or id; the one that runs, or the only one of a failover, if absent. */
    branch: Type.Optional(Type.String({ minLength: 1, maxLength: 32 })),
    /** What its NICs are connected to when it is started from now on; as the failover connected them if absent. */
    networks: Type.Optional(Networks),
  },
  { additionalProperties: false },
);
export type AdoptRequest = Type.Static<typeof AdoptRequest>;

export const BranchView = Type.Object({
  branchId: Id,
  name: Type.Optional(Type.String()),
  machineId: Id,
  /** What it is a branch of; absent of one that diverged when no copy of its machine had been acknowledged. */
  pointId: Type.Optional(Id),
  sequence: Type.Optional(Count),
  /** Of a test of a branch that diverged: the id of that. */
  upon: Type.Optional(Id),
  /** Of one that diverged: when the point was cut that it begins at, as far as that is known. */
  divergedAtMs: Type.Optional(WallTime),
  /**
   * `prepared`: tests and failovers of its point start from it. `diverged`: what the machine wrote here that the site does not have which
   * has brought it up.
   */
  purpose: Type.Union([
    Type.Literal('test'),
    Type.Literal('failover'),
    Type.Literal('proof'),
    Type.Literal('prepared'),
    Type.Literal('diverged'),
  ]),
  createdAtMs: WallTime,
  /** Where it stands: `created`, `network`, `started`, `probed`, `failed`, `removing` … */
  state: Type.String(),
  running: Type.Boolean(),
  processId: Type.Optional(Type.Integer()),
  /** What its own writes take on the disk of this host. */
  ownBytes: Bytes,
  limits: TestLimits,
  /** When it is cleaned up by itself. */
  endsAtMs: Type.Optional(WallTime),
  /** It stands still, because the disk of the site is nearly full. */
  paused: Type.Boolean(),
  /** It is the disks of a machine that is at home at this site. */
  adopted: Type.Boolean(),
});
export type BranchView = Type.Static<typeof BranchView>;
