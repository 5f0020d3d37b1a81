import Type from 'typebox';
import { ofMachine, plain, type Route } from './route-shape.ts';
import { ExportSeedRequest, OfferOlderCopyRequest, OlderCopyView, SeedRequest } from './seeds.ts';
import { JobView } from './site.ts';

/** How the first, large copy of a machine comes to its recovery site other than over the wire. */
export const SEED_ROUTES = {
  'seed.export': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/seeds',
    body: ExportSeedRequest,
    answer: JobView,
  },
  /** The machine is told by the seed. */
  'seed.import': { ...plain, method: 'POST', path: '/seeds', body: SeedRequest, answer: JobView },
  /** At the recovery site, which need not know the machine yet. */
  'seed.offer': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/older-copy',
    body: OfferOlderCopyRequest,
    answer: OlderCopyView,
  },
  'seed.withdraw': {
    ...ofMachine,
    method: 'DELETE',
    path: '/machines/:machine/older-copy',
    answer: OlderCopyView,
  },
  'seed.offers': { ...plain, method: 'GET', path: '/older-copies', answer: Type.Array(OlderCopyView) },
} as const satisfies Readonly<Record<string, Route>>;
