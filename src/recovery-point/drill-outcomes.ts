import type { DrillOutcome } from './drill-policy.ts';

/** What is known of a point after one drill of it, for people; `again`: whether it is drilled again by itself. A test holds `nextDrill` to it. */
export const DRILL_OUTCOMES = {
  passed: {
    data: 'The point boots: the signed proof beside it says so.',
    again: 'never',
  },
  failed: {
    data: 'The point did not come up, and counts less for a failover than others; nothing of it is changed or removed.',
    again: 'once',
  },
  refuted: {
    data: 'The point boots, and is not what it claims: it counts as crash-consistent from now on.',
    again: 'once',
  },
  unproven: {
    data: 'The point was booted, and nothing was asked of it: nothing is known of it.',
    again: 'never',
  },
  hindered: {
    data: 'The site could not boot it: nothing is known of the point.',
    again: 'a few times',
  },
  interrupted: {
    data: 'The site ended in the middle, and nothing of the drill is left: nothing is known of the point.',
    again: 'a few times',
  },
  cancelled: {
    data: 'A person did not want it, and nothing of the drill is left: nothing is known of the point.',
    again: 'never',
  },
  'gave-way': {
    data: 'A failover needed the room, and nothing of the drill is left: nothing is known of the point.',
    again: 'always',
  },
} as const satisfies Readonly<
  Record<DrillOutcome, { data: string; again: 'never' | 'once' | 'a few times' | 'always' }>
>;
