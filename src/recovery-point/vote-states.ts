import type { StateTable } from '../lib/state-table.ts';
import type { LeaseAsk, Vote } from './lease.ts';

/** Where a lender stands with one machine. */
export type VoteState = 'knows nothing' | 'lends' | 'has voted' | 'lends no more';

export function voteStateOf(vote: Vote | undefined): VoteState {
  if (!vote) return 'knows nothing';
  if (vote.term === 'leased') return 'lends';
  return vote.before ? 'has voted' : 'lends no more';
}

/** What each state of a lender promises about data, and all ways out of it: docs/failover.md draws it, and a test holds the functions to it. */
export const VOTE_STATES = {
  'knows nothing': {
    data: 'It has promised nothing, and votes for nobody: whoever holds the machine tells it first.',
    next: [
      { by: 'renew', to: 'lends', when: 'whoever holds the machine asks first' },
      { by: 'hold', to: 'lends no more', when: 'whoever holds the machine for good says so first' },
      {
        by: 'vote',
        to: 'lends no more',
        when: 'whoever asks first; a site without a record refuses before this',
      },
    ],
  },
  lends: {
    data: 'One site writes, for as long as it is lent the machine; while anything is lent nobody else is voted for.',
    next: [
      { by: 'renew', to: 'lends', when: 'a higher claim, and nothing is lent to another site' },
      { by: 'hold', to: 'lends no more', when: 'the holder, or a higher claim, says that it runs for good' },
      {
        by: 'vote',
        to: 'has voted',
        when: 'an epoch above all that was granted, and what was lent has run out',
      },
      { by: 'let go', to: 'lends', when: 'a claim that was never granted here: it never will be' },
    ],
  },
  'has voted': {
    data: 'Who held the machine is lent nothing, and stands still with all that it has written, until the vote is used or let go.',
    next: [
      { by: 'renew', to: 'lends', when: 'who was voted for, or a higher claim, runs by leases' },
      {
        by: 'hold',
        to: 'lends no more',
        when: 'who was voted for, or a higher claim, says that it runs for good',
      },
      { by: 'vote', to: 'has voted', when: 'the same site asks anew, and has not used its vote' },
      { by: 'let go', to: 'lends', when: 'the vote is not wanted any more: who held the machine goes on' },
      { by: 'let go', to: 'has voted', when: 'a claim of another site, or an older one' },
    ],
  },
  'lends no more': {
    data: 'One site writes for good, and no failure of this one ends that; nobody else is voted for.',
    next: [
      { by: 'renew', to: 'lends', when: 'the holder, or a higher claim, runs by leases' },
      { by: 'hold', to: 'lends no more', when: 'a higher claim' },
      { by: 'let go', to: 'lends no more', when: 'a claim that was never granted here: it never will be' },
    ],
  },
} as const satisfies StateTable<VoteState, LeaseAsk['kind'] | 'let go'>;
