import type { RunStep } from '../api/index.ts';
import type { StateTable } from '../lib/state-table.ts';

/** What moves the step of one machine in the run of a plan. */
export type StepAct = 'ask' | 'approve' | 'begin' | 'end' | 'block' | 'begin anew' | 'ask again';

const ANEW = { by: 'begin anew', to: 'waiting', when: 'a rehearsal whose site ended is done anew' } as const;
const AGAIN = {
  by: 'ask again',
  to: 'waiting',
  when: 'a run without the other site goes on after it was away: a person is asked first',
} as const;

/** What each state of a step promises about data, and all ways out of it: docs/failover.md draws it, and a test holds runs to it. */
export const STEP_STATES = {
  waiting: {
    data: 'The run has done nothing with the machine.',
    next: [
      { by: 'ask', to: 'asking', when: 'all that it waits for are up, and a person has to say yes' },
      { by: 'begin', to: 'starting', when: 'all that it waits for are up' },
      {
        by: 'block',
        to: 'blocked',
        when: 'one that it waits for has failed, or a hook before the run, or the run itself',
      },
      AGAIN,
    ],
  },
  asking: {
    data: 'The run has done nothing with the machine.',
    next: [
      { by: 'approve', to: 'waiting', when: 'a person says yes, which is on record' },
      { by: 'block', to: 'blocked', when: 'a hook before the run has failed, or the run itself' },
      AGAIN,
    ],
  },
  starting: {
    data: 'Its job does what that failover, hand-over or test promises, and no more.',
    next: [
      {
        by: 'end',
        to: 'done',
        when: 'its gates have been passed, or it has been handed over; also if that was so before',
      },
      {
        by: 'end',
        to: 'failed',
        when: 'its job has failed, or its guest does not pass its gates, or a hook of it, or the run itself has failed',
      },
      {
        by: 'block',
        to: 'blocked',
        when: 'a hook before the run has failed, or the run itself, and its job was not begun',
      },
      ANEW,
      AGAIN,
    ],
  },
  done: {
    data: 'It runs on its branch, or the last state of it is at the other site; of a rehearsal nothing is left at the end.',
    next: [ANEW],
  },
  failed: {
    data: 'Of a failover the files of each attempt are kept, and what runs is left running; the points are what they were.',
    next: [ANEW],
  },
  blocked: {
    data: 'The run has done nothing with the machine.',
    next: [ANEW],
  },
} as const satisfies StateTable<RunStep['state'], StepAct>;
