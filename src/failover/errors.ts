import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const FAILOVER_ERRORS = {
  FAILOVER_BRANCH_DIVERGED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Boot it in isolation (`warmsite failover test VM --branch NAME`), or write its disks to files (`warmsite failover export`). To have the machine run here as it was: `warmsite failover withdraw`.',
  },
  FAILOVER_NOT_OFFERED: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Hand the machine over at the site where it runs: `warmsite failover cede`. If that site is down, `warmsite failover start` brings it up here without its help.',
  },
  FAILOVER_TAKEN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'See whether it runs with `warmsite failover list`; `warmsite failover restart` boots its branch again.',
  },
  FAILOVER_ADOPTED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The machine is at home here: start and stop it with `warmsite vm start` and `vm stop`. Its points can still be tested. There is no way back to before it was brought up: have it replicated to where it was (`warmsite vm protect`) and hand it over with `warmsite failover cede`.',
  },
  FAILOVER_NOT_AT_WORK: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Only what a failover has brought up can become the machine: `warmsite failover list` shows the branches. One that did not come up is booted again with `warmsite failover restart`.',
  },
  FAILOVER_FENCED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'What was written in the branch is kept: look at it in a test (`warmsite failover test`). If the other site is down, `warmsite failover start` brings the machine up here.',
  },
  FAILOVER_GIVEN_UP: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Take it back where it was: `warmsite failover withdraw` there. If it is to run here after all, `warmsite failover start` brings it up from a point, and what was written in a branch before can be booted after that (`warmsite failover restart`).',
  },
  FAILOVER_NOT_BEGUN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Look where the machine is with `warmsite vm show`; only the site that has brought it up undoes that.',
  },
  FAILOVER_NOT_DIRECT: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The site where the machine was does not talk to this one, and could not ask for it. Adopt the machine here (`warmsite failover adopt`) and have it replicated there, or end it (`warmsite failover stop`).',
  },
  FAILOVER_UNCONFIRMED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The machine may still run at the other site, and would then run at both: two running copies diverge. Make sure that it does not, then say so (`--confirm-other-side-down`), have the fencing program of this site make sure (`--fence`), or ask its witness (`--ask-witness`).',
  },
  FAILOVER_GROUND_UNCLEAR: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Say one of them: `--confirm-other-side-down` is your word, `--fence` runs the fencing program. Beside `--ask-witness` either is for the machines of a plan that have no witness, and nothing of a single one.',
  },
  FAILOVER_WITNESS_DECIDES: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Ask it: `--ask-witness`, which no program takes the place of. If it does not answer either, see for yourself that the machine is down, and confirm that: `--confirm-other-side-down`.',
  },
  FAILOVER_NO_FENCING: {
    kind: 'missing',
    retry: 'never',
    remedy:
      'Put a program into the directory `programs` of the data directory and name it (`warmsite failover fencing --program NAME`), or in the plan (docs/failover.md, «Fencing»). Without one, make sure that the other side is down, and confirm that: `--confirm-other-side-down`.',
  },
  FAILOVER_NOT_FENCED: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Nothing has been taken: this site runs nothing of the machine, and the other side may, or may be off in part. Mend what the program says and try again, which runs it once more; or see for yourself that the other side is down, and confirm that: `--confirm-other-side-down`. If it is not, both run.',
  },
  FAILOVER_RUNS_ALREADY: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Clean up the branch that runs, then start on another point.',
  },
  FAILOVER_WOULD_NOT_START: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Nothing has been changed. See to what is missing here (`warmsite failover check`), or take a point whose machine would start.',
  },
  FAILOVER_NETWORK_MISSING: {
    kind: 'missing',
    retry: 'later',
    remedy:
      'Nothing has been changed. Make the bridge or the tap (`ip link add NAME type bridge`), or name another one with `--connect`.',
  },
  FAILOVER_NO_POINT: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Ask for a lower consistency, or look with `warmsite point list` whether any point has arrived.',
  },
  FAILOVER_BRANCH_BUSY: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'An act on this branch is under way: wait for its end, or cancel its job.',
  },
  FAILOVER_GAVE_WAY: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Nothing to do: failovers come first, and the point is drilled when they are over.',
  },
  FAILOVER_BRANCH_PREPARED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Test or fail over its point: that starts from it. Clean it up to start from the point as it was cut.',
  },
  FAILOVER_NETWORK_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name an existing tap or bridge of this host; `ip link` lists them.',
  },
  FAILOVER_NIC_UNKNOWN: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name the NICs by the ids that the message lists; nothing has been changed.',
  },
  FAILOVER_NO_AGENT: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Leave the addresses out and set them in the guest; or, before the next copy, run qemu-guest-agent in the guest and give the machine its channel. Nothing has been changed.',
  },
  FAILOVER_ADDRESS_TAKEN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Connect the NIC to another bridge, or end the machine or clean up the branch that has its address there; nothing has been changed.',
  },
  FAILOVER_ADDRESS_TWICE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Connect one of the two to another bridge or tap, or leave it unplugged and give it another address in its guest; nothing has been changed.',
  },
  FAILOVER_NOT_FORWARD: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Name a point that is later than the one of the branch; `warmsite point list` shows them in order. To go back, start a branch on the earlier point.',
  },
  FAILOVER_LIMIT_UNAVAILABLE: {
    kind: 'environment',
    retry: 'never',
    remedy:
      'Give control groups with the CPU controller to the process of the site (as root, or delegated), or test without a limit of CPU time.',
  },
  FAILOVER_TESTS_TOO_MANY: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Stop or clean up a test (`warmsite failover list`), or allow more with `warmsite failover rules --most-tests`.',
  },
  FAILOVER_TEST_OVER: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Carry the plan out once more: `warmsite plan run PLAN --test`.',
  },
  FAILOVER_NO_SPACE: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Free space on the file system of the data directory: the machines go on by themselves when there is a tenth more than the floor (`warmsite failover rules`), and nothing that they wrote is lost.',
  },
  FAILOVER_SPACE_LOW: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Free space on the file system of the data directory, clean up tests, or change the floor with `warmsite failover rules --free-floor`.',
  },
  FAILOVER_PROGRAM_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy:
      'Put the program into the directory `programs` of the data directory, at each site that is to run it (docs/plans.md).',
  },
  FAILOVER_PROGRAM_UNSAFE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Let root, or the user of the site, own the program and its directory, let nobody else write to them, and let it be executable: `chown root`, `chmod 755`.',
  },
  FAILOVER_PROBE_FAILED: {
    kind: 'unavailable',
    retry: 'never',
    remedy:
      'Look at the console picture, which shows how far the guest came; test with `--keep` to look into the guest itself.',
  },
} as const satisfies ErrorCatalogue;

export const failoverFailure = failuresOf(FAILOVER_ERRORS);
