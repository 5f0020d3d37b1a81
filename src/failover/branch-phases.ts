import type { StateTable } from '../lib/state-table.ts';
import type { BranchPhase } from './records.ts';

export type BranchAct =
  | 'make'
  | 'plug in'
  | 'start'
  | 'come up'
  | 'fail'
  | 'end'
  | 'make ready'
  | 'remove'
  | 'recover';

/**
 * What each phase of a branch promises about data, and all ways out of it; `none`: there is no such branch. docs/failover.md draws it, and
 * a test holds what is stored to it.
 */
export const BRANCH_PHASES = {
  none: {
    data: 'The point alone, which no branch ever changes.',
    next: [{ by: 'make', to: 'created', when: 'a test, a failover or a preparation begins' }],
  },
  created: {
    data: 'An empty layer for each disk upon the point’s, which can neither change nor go; nobody has written anything.',
    next: [
      { by: 'plug in', to: 'network', when: 'before its network is made' },
      { by: 'fail', to: 'failed', when: 'of a failover: what it needs cannot be read' },
      { by: 'remove', to: 'none', when: 'of a test: what it needs cannot be read' },
      { by: 'recover', to: 'none', when: 'the site starts again' },
    ],
  },
  network: {
    data: 'As before: empty, or what its guest wrote when it ran earlier.',
    next: [
      { by: 'start', to: 'started', when: 'before its process starts' },
      {
        by: 'fail',
        to: 'failed',
        when: 'of a failover, or of what had run before: its network cannot be made, or somebody cancels it',
      },
      { by: 'remove', to: 'none', when: 'of a test: its network cannot be made, or somebody cancels it' },
      { by: 'recover', to: 'none', when: 'the site starts again, and it has never run' },
      { by: 'recover', to: 'stopped', when: 'the site starts again, and it had run before' },
    ],
  },
  started: {
    data: 'Its guest writes to layers of its own; that it has come up nobody has recorded, and people may be at work in a failover.',
    next: [
      { by: 'come up', to: 'probed', when: 'its probes have passed; of a test, only if it stays' },
      { by: 'fail', to: 'failed', when: 'it did not start, or its probes have not passed' },
      { by: 'make ready', to: 'prepared', when: 'its programs have run, and its guest has shut down' },
      { by: 'end', to: 'stopped', when: 'its machine has ended' },
      { by: 'remove', to: 'none', when: 'a test or a preparation is over that nobody keeps' },
      {
        by: 'recover',
        to: 'stopped',
        when: 'the site starts again, and its machine has ended; of a failover, or of what had run before',
      },
      { by: 'recover', to: 'none', when: 'the site starts again; of a test or a preparation' },
    ],
  },
  probed: {
    data: 'Its guest works, and writes to layers of its own; nothing else is ever written to them.',
    next: [
      { by: 'come up', to: 'probed', when: 'it is asked again, and answers' },
      { by: 'end', to: 'stopped', when: 'its machine has ended' },
      { by: 'recover', to: 'stopped', when: 'the site starts again, and its machine has ended' },
      {
        by: 'recover',
        to: 'none',
        when: 'the site starts again; of a test that was to stay for others only',
      },
    ],
  },
  failed: {
    data: 'What its guest wrote is kept, because a probe can be wrong; of a test only if it was to be kept.',
    next: [
      { by: 'plug in', to: 'network', when: 'a person boots it again' },
      { by: 'come up', to: 'probed', when: 'it runs on as a test, is asked again, and answers' },
      { by: 'end', to: 'failed', when: 'its machine has ended' },
    ],
  },
  stopped: {
    data: 'All that its guest wrote is kept, and nothing writes to it.',
    next: [
      { by: 'plug in', to: 'network', when: 'a person boots it again' },
      { by: 'recover', to: 'stopped', when: 'the site starts again' },
      { by: 'remove', to: 'none', when: 'a person discards what was written in it' },
    ],
  },
  prepared: {
    data: 'Its layers are read-only for good; tests and failovers of its point begin upon them, and it is never booted.',
    next: [{ by: 'remove', to: 'none', when: 'a person removes it, and no branch lies upon it' }],
  },
} as const satisfies StateTable<BranchPhase | 'none', BranchAct>;
