/**
 * The contract of the control plane, as data.
 *
 * Nouns. A *route* is a method, a path and the schemas of what goes in and what comes out; `ROUTES` names them all and
 * server and clients are made from it. A *view* is what a site tells of a machine, point, branch, job, peer or alert at
 * one moment. An *event* says that a view has changed. A *reference* is what a person calls a thing by: its name or its
 * id.
 *
 * Promised: an answer of success has the shape that its route declares and status 200; every other answer is
 * `{ error }` with a code from docs/errors.md, a kind that fixes the status, and a sentence about what to do next. Every
 * answer carries the header `warmsite` with the version of the site. Fields may be added to answers within one prefix
 * (`/v1`), never removed or changed in meaning; requests with fields that the site does not know are refused, because an
 * option that is silently ignored is a lie.
 *
 * Numbers are plain: times in milliseconds since the Unix epoch on the clock of the site that answers, durations in
 * milliseconds, sizes in bytes; the unit stands last in the name. Texts that come from guests or other sites (names,
 * reasons) are a stranger's: show them as text, never as markup or terminal codes.
 *
 * How the certificate of a site is checked: the API shows a leaf of the site's own authority. A client on the same host
 * trusts `CLIENT_FILES.authority` and nothing else; for our own clients host names play no part, the name that counts is the
 * URI `warmsite:site:<siteId>`. The address that the API listens at and the advertised host stand beside it, for others.
 *
 * Data only: nothing here opens, waits or decides.
 */

export { ArrivalRule, type ArrivalRuleView } from './arrivals.ts';
export { CLIENT_FILES } from './client-files.ts';
export { ErrorAnswer } from './common.ts';
export {
  type DrillBudgetRequest,
  DrillBudgetShape,
  type DrillMachineView,
  type DrillNowRequest,
  DrillPolicyShape,
  type DrillPolicyView,
  type DrillStatusView,
  type DrillView,
} from './drills.ts';
export { SiteEvent } from './events.ts';
export type {
  AdoptRequest,
  BranchView,
  CedeRequest,
  ExportBranchRequest,
  FailoverRequest,
  FailoverRules,
  FailoverRulesRequest,
  ForwardRequest,
  MachineChanges,
  NicConnection,
  PrepareRequest,
  ProbeRequest,
  RestartRequest,
  SelectionWish,
  StopBranchRequest,
  TakeRequest,
  TestBranchRequest,
  TestFailoverRequest,
  UndoRequest,
  WithdrawRequest,
} from './failovers.ts';
export type { FencingProgram, FencingRequest, FencingRule } from './fencing.ts';
export type { GenerationView } from './generations.ts';
export type { FailOverGroupRequest, GroupJobs, TestGroupRequest } from './group-failovers.ts';
export type {
  ChangeGroupRequest,
  CreateGroupRequest,
  GroupCutView,
  GroupPointView,
  GroupView,
} from './groups.ts';
export type { LeaseEndRequest, LeaseRequest } from './leases.ts';
export type { MoveRequest } from './machine-identity.ts';
export type {
  AddDiskRequest,
  AddMachineRequest,
  AddTargetRequest,
  ChangeTargetRequest,
  HoldRequest,
  MachineView,
  PointView,
  PolicyRequest,
  ProtectRequest,
  UnprotectRequest,
} from './machines.ts';
export {
  type HookOutcome,
  type PlanCheck,
  PlanDocument,
  type PlanEstimate,
  type PlanFinding,
  type PlanHook,
  type PlanMode,
  PlanRun,
  PlanView,
  type RunPlanRequest,
  type RunPlanWish,
  type RunStep,
  type StartedRun,
} from './plans.ts';
export type {
  LimitWindowShape,
  PreviewAnswer,
  PreviewRequest,
  Retention,
  ScheduleShape,
  TriggerShape,
  WindowShape,
} from './policies.ts';
export { CopyTypeShape } from './policies.ts';
export {
  RehearsalPatience,
  RehearsalTimes,
  type RehearsalView,
  type RehearseRequest,
} from './rehearsals.ts';
export type { FloorRequest, FloorView, ForwardReplicaRequest, OriginView } from './replicas.ts';
export type { ReplicationView, TargetReplicationView } from './replication-view.ts';
export {
  Report,
  type ReportedAttempt,
  type ReportedPoint,
  type ReportKind,
  type ReportList,
  type ReportPolicy,
  type ReportPolicyRequest,
  type ReportSummary,
  type ReportVerdict,
  SignedReport,
  type SiteKey,
  type TimelineEntry,
} from './reports.ts';
export {
  API_PREFIX,
  EVENTS_PATH,
  REQUEST_BYTES_MAX,
  ROUTES,
  type RouteAnswer,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteQuery,
  TRIGGER_PATH,
  VERSION_HEADER,
  WAIT_MS_MAX,
} from './routes.ts';
export type { OfferOlderCopyRequest, OlderCopyView } from './seeds.ts';
export type {
  AlertView,
  AuditView,
  DoctorCheck,
  DoctorReport,
  JobView,
  PeerView,
  Progress,
  RebuildReport,
  SiteView,
  StartCheckView,
} from './site.ts';
export type { CreateTriggerRequest, TriggerView } from './triggers.ts';
