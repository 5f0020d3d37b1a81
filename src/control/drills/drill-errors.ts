import type { ErrorCatalogue } from '../../lib/errors.ts';

/** What is told of points that are to be proven. */
export const DRILL_ERRORS = {
  DRILL_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Look at the console picture of the point (`warmsite point show`), and into the guest with `warmsite failover test --keep`. A failover takes this point last; it is proven again by the next point that comes up.',
  },
  POINT_UNPROVEN: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'See with `warmsite drill status` what hinders it: more memory or less quiet hours with `warmsite drill budget`, a drill at once with `warmsite drill now`, another limit with `warmsite drill policy --within`.',
  },
  DRILL_IMPOSSIBLE: {
    kind: 'environment',
    retry: 'never',
    remedy:
      'Allow drills more memory (`warmsite drill budget --memory`) or boot this machine with less (`warmsite drill policy VM --memory`); say what is to be asked of a guest without an agent (`--probe`).',
  },
  DRILL_NO_POINT: {
    kind: 'missing',
    retry: 'later',
    remedy: 'Wait for the first point of the machine, or look with `warmsite point list` what there is.',
  },
} as const satisfies ErrorCatalogue;
