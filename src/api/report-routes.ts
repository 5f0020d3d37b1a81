import Type from 'typebox';
import { Done, Id } from './common.ts';
import { ReportFile, ReportList, ReportPolicy, ReportPolicyRequest, SiteKey } from './reports.ts';
import { plain, type Route } from './route-shape.ts';

/** Reports and the keys that they are verified with; part of `ROUTES`. */
export const REPORT_ROUTES = {
  'report.list': {
    ...plain,
    method: 'GET',
    path: '/reports',
    query: Type.Object({
      /** Only those before this one. */
      before: Type.Optional(Id),
      limit: Type.Optional(Type.String({ pattern: '^\\d{1,4}$' })),
    }),
    answer: ReportList,
  },
  'report.show': {
    ...plain,
    params: Type.Object({ report: Id }),
    method: 'GET',
    path: '/reports/:report',
    answer: ReportFile,
  },
  'report.remove': {
    ...plain,
    params: Type.Object({ report: Id }),
    method: 'DELETE',
    path: '/reports/:report',
    answer: Done,
  },
  'report.policy': { ...plain, method: 'GET', path: '/report-policy', answer: ReportPolicy },
  'report.changePolicy': {
    ...plain,
    method: 'PATCH',
    path: '/report-policy',
    body: ReportPolicyRequest,
    answer: ReportPolicy,
  },
  'site.keys': { ...plain, method: 'GET', path: '/site/keys', answer: Type.Array(SiteKey) },
} as const satisfies Readonly<Record<string, Route>>;
