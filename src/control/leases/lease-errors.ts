import type { ErrorCatalogue } from '../../lib/errors.ts';

/** What can go wrong with leases; part of the errors of this folder. */
export const LEASE_ERRORS = {
  LEASE_SOUGHT: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Wait for the failover that asks for it (`warmsite job list`), or cancel that.',
  },
  LEASE_VOTE_STANDS: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'It is told again by itself. A failover that asks for the machine ends, or can be cancelled (`warmsite job list` there). If the site that has asked is gone for good, and neither it nor anybody else runs the machine by that, make the witness forget its vote, there: `warmsite vm lease VM --forget`.',
  },
  MACHINE_LEASED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'End that first: `warmsite vm lease VM --off`.',
  },
  LEASE_UNKNOWN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'A machine has a witness when somebody has given it one where it is at home (`warmsite vm lease`), and this site has heard of that. Else make sure that it is down, and confirm that: `--confirm-other-side-down`.',
  },
  LEASE_HELD: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'The machine runs, or may: hand it over instead (`warmsite failover cede` where it runs). If it must end there and cannot be reached, see to that yourself and confirm it: `--confirm-other-side-down`.',
  },
  LEASE_WITNESS_SILENT: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Without the witness nobody can know whether the other site still runs the machine. Try again, or make sure that it is down, and confirm that: `--confirm-other-side-down`.',
  },
  LEASE_NOT_LENT: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'It is asked for again by itself, and the guest goes on when one of the two sites lends it: see to the links to them (`warmsite site show`). If both are lost for good, `warmsite vm lease VM --off --confirm-other-side-down`.',
  },
  LEASE_LENT: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Whoever runs the machine by these leases is there, and ends them: `warmsite vm lease VM --off` where it is at home.',
  },
  LEASE_REFUSED: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Nothing has changed. See to the links to both sites (`warmsite site show`). One that knows of leases of this machine with other sites is told of their end where those were: `warmsite vm lease VM --off` there, if it still runs by them.',
  },
  LEASE_AT_RISK: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The machine runs by what the other site lends: see to the one that does not answer before that fails as well.',
  },
  LEASE_FURTHER_TARGET: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The witness hears nothing of a failover there: do not bring the machine up at that site on your word before you have made sure that the recovery site neither runs it nor asks the witness for it. Or let it get no copies: `warmsite vm target remove`.',
  },
  LEASE_PARTIES_DIFFER: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Who holds the machine tells the other sites of its lenders with its next lease: try again in a minute.',
  },
  LEASE_AMBIGUOUS: {
    kind: 'input',
    retry: 'never',
    remedy: 'Several machines have this name: say the id of the one that you mean, which the message tells.',
  },
  LEASE_NOT_YOURS: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The two sites that may run a machine speak of its leases. Of leases that neither of those two can end any more the witness is made to forget there: `warmsite vm lease VM --forget`.',
  },
  LEASE_REQUEST_INVALID: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'Both sites need versions that fit together; if they do, report it.',
  },
  LEASE_VOTE_UNREADABLE: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Nothing is granted for the machine by this site. While the site that runs the machine now reaches this one, and a former home of it does not: remove the file and start the site again. Who runs it writes it anew, with its next lease or within five minutes, and until then nobody gets the vote of this site.',
  },
  LEASE_IMPOSSIBLE: {
    kind: 'refused',
    retry: 'never',
    remedy: 'See docs/failover.md, «Leases and a witness», for what leases need.',
  },
} as const satisfies ErrorCatalogue;
