import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const REPLICATION_ERRORS = {
  PROTECTION_MACHINE_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the machines of this site with `warmsite vm list`.',
  },
  PROTECTION_EXISTS: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Choose another name, or unprotect and remove the machine first.',
  },
  PROTECTION_NOT_PROTECTED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Protect the machine first: `warmsite vm protect`.',
  },
  PROTECTION_FENCED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The machine is at home at the other site now, and what was written here since is kept as a branch: `warmsite failover list` names it, `warmsite failover test VM --branch NAME` boots it in isolation. Run the machine there. To go back to before it was brought up there, without what was written there: `warmsite failover undo` at that site, then `warmsite failover withdraw` here, and the disks of this site are the machine again. If that site is lost for good, and the machine does not run there, `warmsite vm unprotect --confirm-other-side-down` here does so without it.',
  },
  PROTECTION_DIVERGED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Giving up the layers would leave of that branch what was there before. Write it to files first if it is wanted (`warmsite failover export`). `warmsite failover cleanup` removes it with the machine at this site, and your own files stay as they are; `warmsite vm unprotect` without `--keep-origin` puts what it holds into them.',
  },
  PROTECTION_CEDED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'What is offered is taken over at the other site (`warmsite failover take`), or withdrawn here (`warmsite failover withdraw`) as long as nobody has taken it; then it may run here again. If it was taken and that site is lost for good, `withdraw --confirm-other-side-down` takes it back without what was written there.',
  },
  PROTECTION_LEASED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Hand the machine over to the site that its leases name, or end them first (`warmsite vm lease VM --off`): the other one could have the witness’s vote while a third site runs it.',
  },
  PROTECTION_NOT_CEDED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Look where the machine is with `warmsite vm show`.',
  },
  PROTECTION_NOT_STILL: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Hand the machine over again (`warmsite failover cede`) when nothing starts it meanwhile.',
  },
  REPLICATION_SET_APART: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Both sites had brought the machine up, and the other one has the higher claim. Look at what was written here in a test of the branch, bring over what is wanted, and remove the branch: `warmsite failover cleanup --discard-writes`.',
  },
  REPLICATION_GIVEN_UP: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The failover was undone: take the machine back where it was with `warmsite failover withdraw`, and start it there. What was written here is kept in its branches (`warmsite failover list`). If it is to run here after all: `warmsite failover start`.',
  },
  REPLICATION_HELD_HERE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Look at both sites who holds the machine (`warmsite vm show`). It is handed over where it runs, by `warmsite failover cede`; what stands in the way of a machine that has been lost for good is removed by `warmsite vm remove` where it is not wanted.',
  },
  REPLICATION_NOT_ENDED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The copy begins by itself when that has ended at the site to which it goes: a machine that was brought up elsewhere is being ended there; branches that somebody has kept are removed by `warmsite failover cleanup`.',
  },
  PROTECTION_DISK_GONE: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'No copy is made, because a machine without this disk may be none, and every point stays. Plug the disk in again, as it was; if it was taken out for good, say so: `warmsite vm disk remove`. Then the copies go on without it.',
  },
  PROTECTION_DISK_LAST: {
    kind: 'refused',
    retry: 'never',
    remedy: 'End the protection of the machine instead: `warmsite vm unprotect`.',
  },
  PROTECTION_DISK_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Look at the disks of the machine with `warmsite vm show`.',
  },
  PROTECTION_MOVE_REFUSED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Nothing has been changed. See to what is said, then tell again where the machine is: `warmsite vm move`. What is not the same disk is another one: `warmsite vm disk remove`, `warmsite vm disk add`.',
  },
  PROTECTION_DISK_TAKEN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Look at the disks of the machine with `warmsite vm show`, and choose another id with `--disk`; one that was removed is not used again.',
  },
  PROTECTION_TARGET_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy:
      '`warmsite vm show` lists the sites that the machine is replicated to; `warmsite vm target add` adds one.',
  },
  PROTECTION_TARGET_EXISTS: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Change what the site gets with `warmsite vm target change`.',
  },
  PROTECTION_TARGETS_TOO_MANY: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Remove a target first: `warmsite vm target remove`.',
  },
  PROTECTION_TARGET_LAST: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Add another target first, or end the protection with `warmsite vm unprotect`.',
  },
  PROTECTION_DISK_SHRUNK: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'No copy is made, and every point stays. Grow the disk to its old size again; to replicate it at its new size, `warmsite vm unprotect` and `vm protect` the machine.',
  },
  PROTECTION_STALE_BASE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Stop the machine. If it has written nothing there, start it from the tip that `warmsite vm show` names; else decide: `warmsite vm unprotect --keep-origin` keeps what its files hold now, and the protected state is the newest point at the other site. Nothing is sent or merged meanwhile.',
  },
  PROTECTION_UNSENT: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Wait until every copy has been acknowledged, or ask to drop what was not sent.',
  },
  REPLICATION_CONFLICT: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Both states are kept. Look at `warmsite vm show` at both sites and decide which one is right.',
  },
  REPLICATION_ACK_WRONG: {
    kind: 'protocol',
    retry: 'later',
    remedy:
      'The other site acknowledged another point than was sent; nothing was released here. Look at its log.',
  },
  REPLICATION_DIGESTS_LOST: {
    kind: 'corrupt',
    retry: 'later',
    remedy: 'The digests are computed anew by reading the disk here; nothing crosses the wire for it.',
  },
  REPLICATION_SEED_NOT_NEEDED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The other site holds whole points of this machine: nothing is to be carried. A machine is seeded before its first copy is there: `warmsite vm protect --seed`.',
  },
  REPLICATION_SEED_PATH: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name a directory of the medium, or a file that is not there yet.',
  },
  REPLICATION_SEED_CHANGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Nothing was exported. Check the disk; then remove the replica at the other site (`warmsite replica remove`) and protect the machine anew.',
  },
  REPLICATION_SESSION_UNKNOWN: {
    kind: 'missing',
    retry: 'later',
    remedy: 'The sender offers the delta again by itself; nothing to do.',
  },
  REPLICATION_REQUEST_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'The two sites run versions that do not understand each other: upgrade the older one.',
  },
  REPLICATION_RETENTION_UNKNOWN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Upgrade the recovery site first; until then keep points by the numbers of `crash` and `app` alone. Nothing is sent meanwhile.',
  },
  REPLICATION_NOT_YOURS: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Machines are replicated by the site that owns them; look which sites are paired with `warmsite site show`.',
  },
  REPLICATION_COMES_FORWARDED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The points go on coming by that site. To replicate the machine there directly instead, end the forwarding (`warmsite replica forward VM --to SITE --stop`) and remove the replica at the site that is refused here (`warmsite replica remove`): it gets everything anew then.',
  },
  REPLICATION_FORWARD_UNKNOWN: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Upgrade the site that the points are forwarded to. Nothing is sent meanwhile.',
  },
  REPLICATION_FORWARD_DAMAGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'The replica here does not read as its source signed it, and nothing of it was forwarded. `warmsite point verify` tells where it is damaged; younger points may be whole.',
  },
} as const satisfies ErrorCatalogue;

export const replicationFailure = failuresOf(REPLICATION_ERRORS);
