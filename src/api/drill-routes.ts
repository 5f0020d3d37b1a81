import Type from 'typebox';
import { Reference } from './common.ts';
import {
  DrillBudgetRequest,
  DrillNowRequest,
  DrillPolicyShape,
  DrillPolicyView,
  DrillStatusView,
  DrillView,
} from './drills.ts';
import { ofMachine, plain, type Route } from './route-shape.ts';
import { JobView } from './site.ts';

const PauseRequest = Type.Object(
  {
    isPaused: Type.Boolean(),
    /** This machine alone; all drills of the site if absent. */
    machine: Type.Optional(Reference),
  },
  { additionalProperties: false },
);

/** What a person does with drills; part of `ROUTES`. */
export const DRILL_ROUTES = {
  'drill.status': { ...plain, method: 'GET', path: '/drills', answer: DrillStatusView },
  'drill.budget': {
    ...plain,
    method: 'PATCH',
    path: '/drills/budget',
    body: DrillBudgetRequest,
    answer: DrillStatusView,
  },
  'drill.pause': {
    ...plain,
    method: 'POST',
    path: '/drills/pause',
    body: PauseRequest,
    answer: DrillStatusView,
  },
  /** The policy of machines that have none of their own. */
  'drill.setSitePolicy': {
    ...plain,
    method: 'POST',
    path: '/drills/policy',
    body: DrillPolicyShape,
    answer: DrillStatusView,
  },
  'drill.clearSitePolicy': { ...plain, method: 'DELETE', path: '/drills/policy', answer: DrillStatusView },
  'drill.list': {
    ...ofMachine,
    method: 'GET',
    path: '/machines/:machine/drills',
    answer: Type.Array(DrillView),
  },
  'drill.now': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/drills',
    body: DrillNowRequest,
    answer: JobView,
  },
  'drill.policy': {
    ...ofMachine,
    method: 'GET',
    path: '/machines/:machine/drill-policy',
    answer: DrillPolicyView,
  },
  /** null: points of this machine are not drilled, whatever holds for the others. */
  'drill.setPolicy': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/drill-policy',
    body: Type.Object(
      { policy: Type.Union([DrillPolicyShape, Type.Null()]) },
      { additionalProperties: false },
    ),
    answer: DrillPolicyView,
  },
  /** What holds for all machines holds for this one again. */
  'drill.clearPolicy': {
    ...ofMachine,
    method: 'DELETE',
    path: '/machines/:machine/drill-policy',
    answer: DrillPolicyView,
  },
} as const satisfies Readonly<Record<string, Route>>;
