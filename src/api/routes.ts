import Type from 'typebox';
import { ArrivalRule, ArrivalRuleView } from './arrivals.ts';
import { Done } from './common.ts';
import { DRILL_ROUTES } from './drill-routes.ts';
import {
  BranchView,
  ExportBranchRequest,
  FailoverRequest,
  FailoverRules,
  FailoverRulesRequest,
  ForwardRequest,
  PrepareRequest,
  RestartRequest,
  StopBranchRequest,
  TestBranchRequest,
  TestFailoverRequest,
} from './failovers.ts';
import { FENCING_ROUTES } from './fencing.ts';
import { GENERATION_ROUTES } from './generations.ts';
import { FailOverGroupRequest, GroupJobs, TestGroupRequest } from './group-failovers.ts';
import {
  ChangeGroupRequest,
  CreateGroupRequest,
  CutGroupRequest,
  GroupCutView,
  GroupPointView,
  GroupView,
} from './groups.ts';
import { HANDOVER_ROUTES } from './handover-routes.ts';
import { LEASE_ROUTES } from './lease-routes.ts';
import { MoveRequest, RenameRequest } from './machine-identity.ts';
import {
  AddDiskRequest,
  AddMachineRequest,
  AddTargetRequest,
  ChangeTargetRequest,
  CreatePointRequest,
  HoldRequest,
  MachineView,
  PointView,
  PolicyRequest,
  ProtectRequest,
  StartStopRequest,
  UnprotectRequest,
} from './machines.ts';
import { PLAN_ROUTES } from './plan-routes.ts';
import { PreviewAnswer, PreviewRequest, TriggerAnswer } from './policies.ts';
import { REPLICA_ROUTES } from './replica-routes.ts';
import { REPORT_ROUTES } from './report-routes.ts';
import { ofMachine, ofPoint, ofTarget, plain, type Route } from './route-shape.ts';
import { SEED_ROUTES } from './seed-routes.ts';
import {
  AlertView,
  AuditAnswer,
  DoctorReport,
  JobView,
  PairRequest,
  PeerAddressRequest,
  PeerView,
  RebuildReport,
  RemovePeerRequest,
  SiteView,
  StartCheckView,
  TokenRequest,
  TokenView,
} from './site.ts';
import { CreateTriggerRequest, IssuedTrigger, TriggerView } from './triggers.ts';

/** All routes stand below this; another major contract would get another one. */
export const API_PREFIX = '/v1';

/** Header of every answer: the program version that gave it. */
export const VERSION_HEADER = 'warmsite';

/** No request body is larger. */
export const REQUEST_BYTES_MAX = 1024 * 1024;

/** The longest time that a long poll is held open. */
export const WAIT_MS_MAX = 60_000;

const MachineDisk = Type.Object({
  machine: Type.String({ minLength: 1, maxLength: 64 }),
  disk: Type.String({ minLength: 1, maxLength: 24 }),
});
const MachineBranch = Type.Object({
  machine: Type.String({ minLength: 1, maxLength: 64 }),
  /** Name or id. */
  branch: Type.String({ minLength: 1, maxLength: 32 }),
});
const MachineTrigger = Type.Object({
  machine: Type.String({ minLength: 1, maxLength: 64 }),
  trigger: Type.String({ minLength: 1, maxLength: 32 }),
});
/** A trigger with a token of its own, by its id. */
const Trigger = Type.Object({ trigger: Type.String({ minLength: 26, maxLength: 26 }) });
/** A group by name or id. */
const Group = Type.Object({ group: Type.String({ minLength: 1, maxLength: 64 }) });
/** A paired site by name or id. */
const Peer = Type.Object({ peer: Type.String({ minLength: 1, maxLength: 64 }) });
const Job = Type.Object({ job: Type.String({ minLength: 26, maxLength: 26 }) });
/** A number in a query arrives as text. */
const NumberText = Type.String({ pattern: '^\\d{1,9}$' });

const JobQuery = Type.Object({
  /** Hold the answer until the job has ended, at most this long. */
  waitMs: Type.Optional(NumberText),
});
const AlertQuery = Type.Object({
  /** `1`: alerts that were cleared, too. */
  all: Type.Optional(Type.Union([Type.Literal('0'), Type.Literal('1')])),
});
const AuditQuery = Type.Object({
  /** Only entries below this sequence number; newest first. */
  before: Type.Optional(NumberText),
  limit: Type.Optional(NumberText),
});

/** A created point: at once when it was cut, or as the job that waits until it is verified. */
const CreatedPoint = Type.Union([Type.Object({ point: PointView }), Type.Object({ job: JobView })]);

const ofGroup = { ...plain, params: Group };
const ofPeer = { ...plain, params: Peer };
const ofJob = { ...plain, params: Job };
const ofTrigger = { ...plain, params: Trigger };

/** Below API_PREFIX: where a trigger's own token is shown. */
export const TRIGGER_PATH = '/triggers/:trigger';

/**
 * Every route but the event stream. Answers of success have status 200 and exactly the shape `answer`; all others
 * have the status of the failure's kind and the body `ErrorAnswer`. Every request carries
 * `authorization: Bearer <operator token>`; that of `trigger.use` may carry the trigger's own token instead.
 */
export const ROUTES = {
  'site.show': { ...plain, method: 'GET', path: '/site', answer: SiteView },
  'site.token': {
    ...plain,
    method: 'POST',
    path: '/site/pairing-tokens',
    body: TokenRequest,
    answer: TokenView,
  },
  'site.pair': { ...plain, method: 'POST', path: '/site/peers', body: PairRequest, answer: PeerView },
  'site.peers': { ...plain, method: 'GET', path: '/site/peers', answer: Type.Array(PeerView) },
  'peer.remove': {
    ...ofPeer,
    method: 'DELETE',
    path: '/site/peers/:peer',
    body: RemovePeerRequest,
    answer: PeerView,
  },
  'peer.address': {
    ...ofPeer,
    method: 'PATCH',
    path: '/site/peers/:peer',
    body: PeerAddressRequest,
    answer: PeerView,
  },
  'site.rebuild': { ...plain, method: 'POST', path: '/site/rebuild', answer: RebuildReport },
  'vm.add': { ...plain, method: 'POST', path: '/machines', body: AddMachineRequest, answer: MachineView },
  'vm.list': { ...plain, method: 'GET', path: '/machines', answer: Type.Array(MachineView) },
  'vm.show': { ...ofMachine, method: 'GET', path: '/machines/:machine', answer: MachineView },
  'vm.rename': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/name',
    body: RenameRequest,
    answer: MachineView,
  },
  'vm.move': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/place',
    body: MoveRequest,
    answer: MachineView,
  },
  'vm.start': { ...ofMachine, method: 'POST', path: '/machines/:machine/start', answer: MachineView },
  'vm.stop': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/stop',
    body: StartStopRequest,
    answer: MachineView,
  },
  'vm.protect': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/protection',
    body: ProtectRequest,
    answer: MachineView,
  },
  'vm.disk.add': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/disks',
    body: AddDiskRequest,
    answer: MachineView,
  },
  'vm.disk.remove': {
    ...plain,
    method: 'DELETE',
    path: '/machines/:machine/disks/:disk',
    params: MachineDisk,
    answer: MachineView,
  },
  'vm.unprotect': {
    ...ofMachine,
    method: 'DELETE',
    path: '/machines/:machine/protection',
    body: UnprotectRequest,
    answer: MachineView,
  },
  'vm.policy': {
    ...ofMachine,
    method: 'PATCH',
    path: '/machines/:machine/protection',
    body: PolicyRequest,
    answer: MachineView,
  },
  'target.add': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/targets',
    body: AddTargetRequest,
    answer: MachineView,
  },
  'target.change': {
    ...ofTarget,
    method: 'PATCH',
    path: '/machines/:machine/targets/:target',
    body: ChangeTargetRequest,
    answer: MachineView,
  },
  /** The points there stay; what was kept for it here is let go of. */
  'target.remove': {
    ...ofTarget,
    method: 'DELETE',
    path: '/machines/:machine/targets/:target',
    answer: MachineView,
  },
  'trigger.call': {
    ...plain,
    method: 'POST',
    path: '/machines/:machine/triggers/:trigger',
    params: MachineTrigger,
    answer: TriggerAnswer,
  },
  'trigger.create': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/trigger-tokens',
    body: CreateTriggerRequest,
    answer: IssuedTrigger,
  },
  'trigger.list': { ...plain, method: 'GET', path: '/triggers', answer: Type.Array(TriggerView) },
  'trigger.revoke': { ...ofTrigger, method: 'DELETE', path: '/triggers/:trigger', answer: TriggerView },
  /**
   * The only route that a trigger's own token opens, and the only thing that it opens. Who calls may send along what it always
   * sends: the body is not looked at.
   */
  'trigger.use': {
    ...ofTrigger,
    method: 'POST',
    path: TRIGGER_PATH,
    body: Type.Unknown(),
    answer: TriggerAnswer,
  },
  'vm.remove': { ...ofMachine, method: 'DELETE', path: '/machines/:machine', answer: Done },
  'point.list': {
    ...ofMachine,
    method: 'GET',
    path: '/machines/:machine/points',
    answer: Type.Array(PointView),
  },
  'point.show': { ...ofPoint, method: 'GET', path: '/machines/:machine/points/:point', answer: PointView },
  'point.create': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/points',
    body: CreatePointRequest,
    answer: CreatedPoint,
  },
  'point.verify': {
    ...ofPoint,
    method: 'POST',
    path: '/machines/:machine/points/:point/verify',
    answer: JobView,
  },
  'point.hold': {
    ...ofPoint,
    method: 'POST',
    path: '/machines/:machine/points/:point/hold',
    body: HoldRequest,
    answer: PointView,
  },
  'point.release': {
    ...ofPoint,
    method: 'DELETE',
    path: '/machines/:machine/points/:point/hold',
    answer: PointView,
  },
  'retention.preview': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/retention/preview',
    body: PreviewRequest,
    answer: PreviewAnswer,
  },
  'group.create': {
    ...plain,
    method: 'POST',
    path: '/groups',
    body: CreateGroupRequest,
    answer: GroupView,
  },
  'group.list': { ...plain, method: 'GET', path: '/groups', answer: Type.Array(GroupView) },
  'group.show': { ...ofGroup, method: 'GET', path: '/groups/:group', answer: GroupView },
  'group.change': {
    ...ofGroup,
    method: 'PATCH',
    path: '/groups/:group',
    body: ChangeGroupRequest,
    answer: GroupView,
  },
  'group.remove': { ...ofGroup, method: 'DELETE', path: '/groups/:group', answer: Done },
  'group.cut': {
    ...ofGroup,
    method: 'POST',
    path: '/groups/:group/cuts',
    body: CutGroupRequest,
    answer: GroupCutView,
  },
  'group.test': {
    ...ofGroup,
    method: 'POST',
    path: '/groups/:group/failover-tests',
    body: TestGroupRequest,
    answer: GroupJobs,
  },
  'group.failover': {
    ...ofGroup,
    method: 'POST',
    path: '/groups/:group/failovers',
    body: FailOverGroupRequest,
    answer: GroupJobs,
  },
  /** At the recovery site; the oldest first. */
  'group.points': {
    ...ofGroup,
    method: 'GET',
    path: '/groups/:group/points',
    answer: Type.Array(GroupPointView),
  },
  ...REPLICA_ROUTES,
  ...HANDOVER_ROUTES,
  ...FENCING_ROUTES,
  ...GENERATION_ROUTES,
  'failover.test': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/failover-tests',
    body: TestFailoverRequest,
    answer: JobView,
  },
  'failover.prepare': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/preparations',
    body: PrepareRequest,
    answer: JobView,
  },
  'arrival.show': {
    ...ofMachine,
    method: 'GET',
    path: '/machines/:machine/arrival',
    answer: ArrivalRuleView,
  },
  'arrival.set': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/arrival',
    body: ArrivalRule,
    answer: ArrivalRuleView,
  },
  'arrival.clear': {
    ...ofMachine,
    method: 'DELETE',
    path: '/machines/:machine/arrival',
    answer: ArrivalRuleView,
  },
  'failover.check': {
    ...ofPoint,
    method: 'GET',
    path: '/machines/:machine/points/:point/start',
    answer: StartCheckView,
  },
  'failover.start': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/failovers',
    body: FailoverRequest,
    answer: JobView,
  },
  'failover.rules': { ...plain, method: 'GET', path: '/failover-rules', answer: FailoverRules },
  'failover.changeRules': {
    ...plain,
    method: 'PATCH',
    path: '/failover-rules',
    body: FailoverRulesRequest,
    answer: FailoverRules,
  },
  'failover.list': {
    ...ofMachine,
    method: 'GET',
    path: '/machines/:machine/branches',
    answer: Type.Array(BranchView),
  },
  'failover.restart': {
    ...plain,
    method: 'POST',
    path: '/machines/:machine/branches/:branch/start',
    params: MachineBranch,
    body: RestartRequest,
    answer: JobView,
  },
  /** Of a branch that diverged. */
  'failover.testBranch': {
    ...plain,
    method: 'POST',
    path: '/machines/:machine/branches/:branch/tests',
    params: MachineBranch,
    body: TestBranchRequest,
    answer: JobView,
  },
  'failover.export': {
    ...plain,
    method: 'POST',
    path: '/machines/:machine/branches/:branch/exports',
    params: MachineBranch,
    body: ExportBranchRequest,
    answer: JobView,
  },
  'failover.stop': {
    ...plain,
    method: 'POST',
    path: '/machines/:machine/branches/:branch/stop',
    params: MachineBranch,
    body: StopBranchRequest,
    answer: JobView,
  },
  'failover.forward': {
    ...plain,
    method: 'POST',
    path: '/machines/:machine/branches/:branch/forward',
    params: MachineBranch,
    body: ForwardRequest,
    answer: JobView,
  },
  'failover.cleanup': {
    ...plain,
    method: 'DELETE',
    path: '/machines/:machine/branches/:branch',
    params: MachineBranch,
    answer: JobView,
  },
  ...SEED_ROUTES,
  ...LEASE_ROUTES,
  ...PLAN_ROUTES,
  ...REPORT_ROUTES,
  ...DRILL_ROUTES,
  'job.list': { ...plain, method: 'GET', path: '/jobs', answer: Type.Array(JobView) },
  'job.show': { ...ofJob, method: 'GET', path: '/jobs/:job', query: JobQuery, answer: JobView },
  'job.cancel': { ...ofJob, method: 'POST', path: '/jobs/:job/cancel', answer: JobView },
  'alert.list': {
    ...plain,
    method: 'GET',
    path: '/alerts',
    query: AlertQuery,
    answer: Type.Array(AlertView),
  },
  'audit.list': { ...plain, method: 'GET', path: '/audit', query: AuditQuery, answer: AuditAnswer },
  doctor: { ...plain, method: 'GET', path: '/doctor', answer: DoctorReport },
} as const satisfies Readonly<Record<string, Route>>;

/** `GET /v1/events`: see `SiteEvent`. */
export const EVENTS_PATH = '/events';

export type RouteName = keyof typeof ROUTES;
export type RouteParams<N extends RouteName> = Type.Static<(typeof ROUTES)[N]['params']>;
export type RouteQuery<N extends RouteName> = Type.Static<(typeof ROUTES)[N]['query']>;
export type RouteBody<N extends RouteName> = Type.Static<(typeof ROUTES)[N]['body']>;
export type RouteAnswer<N extends RouteName> = Type.Static<(typeof ROUTES)[N]['answer']>;
