import type { StateTable } from '../lib/state-table.ts';
import type { Tenure } from './tenure.ts';

/** What moves a site from one tenure to another; the functions of `tenure.ts`, and those that call them on a person's word. */
export type TenureAct =
  | 'cede'
  | 'take'
  | 'give up'
  | 'hear'
  | 'promise'
  | 'seize'
  | 'set apart'
  | 'end the protection';

/** What each tenure promises about data, and all ways out of it: docs/failover.md draws it, and a test holds the functions to it. */
export const TENURE_STATES = {
  holds: {
    may: 'run the machine, replicate it, cede it',
    data: 'Its disks are the machine. What others acknowledged is part of them.',
    next: [
      {
        by: 'cede',
        to: 'cedes',
        when: 'the machine has ended, and its last state is verified at the other site',
      },
      { by: 'give up', to: 'follows', when: 'what a failover brought up here has ended, and is not adopted' },
      {
        by: 'seize',
        to: 'holds',
        when: 'what a failover brought up here has ended, and a person begins anew',
      },
      { by: 'hear', to: 'fenced', when: 'a higher claim' },
    ],
  },
  cedes: {
    may: 'nothing but repeat or withdraw the offer',
    data: 'Its disks and the last point at the other site are equal. Neither is written.',
    next: [
      { by: 'hear', to: 'follows', when: 'the offer was taken' },
      { by: 'hear', to: 'holds', when: 'the other site promises to follow the withdrawal' },
      { by: 'hear', to: 'fenced', when: 'a claim above the offer' },
      { by: 'seize', to: 'holds', when: 'somebody confirms that the other site is down' },
    ],
  },
  follows: {
    may: 'hold points, boot isolated tests, take an offer, ask for what was given up',
    data: 'Points as they were acknowledged; what was set apart stays, as a branch with a name.',
    next: [
      { by: 'take', to: 'holds', when: 'it is offered the machine, and knows of nothing higher' },
      { by: 'hear', to: 'follows', when: 'a higher claim' },
      { by: 'hear', to: 'holds', when: 'the site asked promises to follow a claim of this one' },
      {
        by: 'promise',
        to: 'follows',
        when: 'the holder withdraws, or the site asks for what was given up here',
      },
      { by: 'seize', to: 'holds', when: 'somebody confirms that the holder is down, or a vote is given' },
    ],
  },
  fenced: {
    may: 'end its machine, boot isolated tests of what it wrote when it has ended, ask for what was given up, and nothing else',
    data: 'Its disks hold writes that the holder does not have. They are kept, and are a branch with a name.',
    next: [
      {
        by: 'set apart',
        to: 'follows',
        when: 'the machine has ended, and that branch does not become the machine again',
      },
      { by: 'hear', to: 'fenced', when: 'a claim that is higher still' },
      { by: 'hear', to: 'holds', when: 'the site asked promises to follow a claim of this one' },
      { by: 'end the protection', to: 'holds', when: 'a person decides for what this site has' },
    ],
  },
} as const satisfies StateTable<Tenure['state'], TenureAct> &
  Readonly<Record<Tenure['state'], { readonly may: string }>>;
