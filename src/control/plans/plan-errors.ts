import type { ErrorCatalogue } from '../../lib/errors.ts';

/** Of recovery plans; part of `CONTROL_ERRORS`. */
export const PLAN_ERRORS = {
  PLAN_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy:
      'List the plans of this site with `warmsite plan list`; store one with `warmsite plan put FILE`; paired sites are told.',
  },
  PLAN_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Correct the file and look again: `warmsite plan check FILE`. Nothing has been changed.',
  },
  PLAN_CHANGED_TWICE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Look at both with `warmsite plan show PLAN` at either site, and put the one that is to hold, at one of them: `warmsite plan put FILE`.',
  },
  PLAN_UNCONFIRMED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The machines may still run at the other site, and would then run at both: two running copies diverge. Make sure that they do not, then say so (`--confirm-other-side-down`), or have a fencing program make sure (`--fence`). Machines with a witness need neither: `--ask-witness`.',
  },
  PLAN_CUT_MISSING: {
    kind: 'missing',
    retry: 'never',
    remedy:
      'See which cuts of the group are whole here with `warmsite group points`; ask for a lower consistency, or take the group out of `oneCut` and put the plan again.',
  },
  PLAN_CUT_LOST: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Look with `warmsite failover list` at what is up. End it (`warmsite failover cleanup`) to bring all machines of the group up from one cut, or take the group out of `oneCut` and put the plan again.',
  },
  PLAN_TOO_LARGE: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Let more tests run at once (`warmsite failover rules --most-tests`), if this host can carry them, or make two plans of it.',
  },
  PLAN_RUNS_ALREADY: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Look how far it is with `warmsite plan runs`; end it with `warmsite job cancel` if it is not to go on.',
  },
  PLAN_HELD_AT_BOTH: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Say what this site is to do: `warmsite plan run PLAN --cede` hands over those that are here, `--take` takes over those that are not.',
  },
  PLAN_REHEARSAL_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Look at the run with `warmsite plan runs RUN` and at its report; mend the machine or the plan, and rehearse it at once: `warmsite plan run PLAN --test`. The alert goes with the next rehearsal that passes.',
  },
  PLAN_UNPROVEN: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'See with `warmsite plan rehearse PLAN` what hinders it, rehearse it at once with `warmsite plan run PLAN --test`, or allow more time with `warmsite plan rehearse PLAN --within`.',
  },
  PLAN_RUN_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the runs of plans with `warmsite plan runs`.',
  },
  PLAN_NOT_ASKED: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Look what the run waits for: `warmsite plan runs RUN`.',
  },
} as const satisfies ErrorCatalogue;
