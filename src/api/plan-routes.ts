import Type from 'typebox';
import { Done, Reference } from './common.ts';
import {
  PlanCheck,
  PlanDocument,
  PlanEstimate,
  PlanRun,
  PlanView,
  RunPlanWish,
  StartedRun,
} from './plans.ts';
import { RehearsalView, RehearseRequest } from './rehearsals.ts';
import { plain, type Route } from './route-shape.ts';

const ofPlan = { ...plain, params: Type.Object({ plan: Reference }) };
const ofRun = { ...plain, params: Type.Object({ run: Type.String({ minLength: 26, maxLength: 26 }) }) };

/** What a person does with recovery plans; part of `ROUTES`. */
export const PLAN_ROUTES = {
  'plan.list': { ...plain, method: 'GET', path: '/plans', answer: Type.Array(PlanView) },
  'plan.check': {
    ...plain,
    method: 'POST',
    path: '/plan-checks',
    body: PlanDocument,
    answer: PlanCheck,
  },
  'plan.put': { ...plain, method: 'POST', path: '/plans', body: PlanDocument, answer: PlanCheck },
  'plan.show': { ...ofPlan, method: 'GET', path: '/plans/:plan', answer: PlanView },
  'plan.remove': { ...ofPlan, method: 'DELETE', path: '/plans/:plan', answer: Done },
  'plan.estimate': { ...ofPlan, method: 'GET', path: '/plans/:plan/estimate', answer: PlanEstimate },
  'plan.run': {
    ...ofPlan,
    method: 'POST',
    path: '/plans/:plan/runs',
    body: RunPlanWish,
    answer: StartedRun,
  },
  'plan.runs': { ...plain, method: 'GET', path: '/plan-runs', answer: Type.Array(PlanRun) },
  'plan.showRun': { ...ofRun, method: 'GET', path: '/plan-runs/:run', answer: PlanRun },
  'plan.approve': {
    ...ofRun,
    method: 'POST',
    path: '/plan-runs/:run/approvals',
    body: Type.Object({ machine: Reference }, { additionalProperties: false }),
    answer: PlanRun,
  },
  'plan.rehearsals': {
    ...plain,
    method: 'GET',
    path: '/plan-rehearsals',
    answer: Type.Array(RehearsalView),
  },
  'plan.rehearse': {
    ...ofPlan,
    method: 'POST',
    path: '/plans/:plan/rehearsal',
    body: RehearseRequest,
    answer: Type.Array(RehearsalView),
  },
  'plan.rehearseNoMore': {
    ...ofPlan,
    method: 'DELETE',
    path: '/plans/:plan/rehearsal',
    answer: Type.Array(RehearsalView),
  },
} as const satisfies Readonly<Record<string, Route>>;
