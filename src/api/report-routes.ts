import Type from 'typebox';
import { Id } from './common.ts';
import { ReportFile, ReportList, SiteKey } from './reports.ts';
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
  'site.keys': { ...plain, method: 'GET', path: '/site/keys', answer: Type.Array(SiteKey) },
} as const satisfies Readonly<Record<string, Route>>;
