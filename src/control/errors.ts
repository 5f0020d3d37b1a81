import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';
import { DRILL_ERRORS } from './drills/drill-errors.ts';
import { LEASE_ERRORS } from './leases/lease-errors.ts';
import { PLAN_ERRORS } from './plans/plan-errors.ts';

export const CONTROL_ERRORS = {
  SITE_EXISTS: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Choose another data directory; an existing site is never initialised again.',
  },
  SITE_MISSING: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Create the site first: `warmsite site init`, or name its data directory with --data.',
  },
  SITE_PATH_UNSUITABLE: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Name the data directory by an absolute path of at most 64 bytes: the names of sockets below it are limited.',
  },
  SITE_LOCKED: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Another process serves this data directory: use it, or end it first.',
  },
  SITE_DATABASE_NEWER: {
    kind: 'refused',
    retry: 'never',
    remedy: 'The database was written by a newer Warmsite: upgrade this installation; nothing was changed.',
  },
  SITE_DATABASE_DAMAGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Stop the site, move site.db and its -wal and -shm files away, and start it: the index is rebuilt from the directories. History of jobs and audit is in the file that was moved.',
  },
  BRANCH_EXPORT_PATH: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Name a directory that is there, at the host of the site, and in which nothing has the name of the branch: an earlier export of it stays as it is.',
  },
  OLDER_COPY_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List what is offered with `warmsite seed offers`.',
  },
  OLDER_COPY_UNNEEDED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Nothing to do: from now on only what changes crosses the wire.',
  },
  OLDER_COPY_UNCLEAR: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name each disk once, and the site where the machine is at home: `--from SITE`.',
  },
  MACHINE_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the machines of this site with `warmsite vm list`.',
  },
  MACHINE_AMBIGUOUS: {
    kind: 'input',
    retry: 'never',
    remedy: 'Several machines have this name: use the id that `warmsite vm list` shows.',
  },
  MACHINE_EXISTS: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Choose another name, or remove the machine that has it.',
  },
  MACHINE_PLACE_OURS: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name only disks of it: `warmsite vm move VM --disk ID=PATH`.',
  },
  MACHINE_UUID_TAKEN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'If it is the same machine, it is here already; one that has moved is told by `warmsite vm move`. If it is a copy, start it with a UUID of its own (QEMU: -uuid) and add it then: guests, licences and networks know machines by it.',
  },
  MACHINE_UUID_TWICE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'One of the two is a copy, or the same machine was started twice. Stop it, or give it a UUID of its own (QEMU: -uuid). Both go on being copied, each from its own disks.',
  },
  MACHINE_UUID_CHANGED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Start the machine with its old UUID (QEMU: -uuid), or leave it: its disks go on being copied, and at the other site it is started with the UUID that its points have.',
  },
  MACHINE_DISK_UNSUITABLE: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name an existing qcow2 or raw file without a backing file, with its true format and size.',
  },
  MACHINE_NOT_AT_HOME: {
    kind: 'refused',
    retry: 'never',
    remedy: 'This site only holds a replica of the machine: do it at the site where the machine runs.',
  },
  MACHINE_NO_REPLICA: {
    kind: 'refused',
    retry: 'never',
    remedy: 'This site holds no replica of the machine: do it at the recovery site.',
  },
  MACHINE_NOT_MANAGED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Start the machine as you started it before, from the files that `warmsite vm show` names.',
  },
  MACHINE_CHANGING: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Wait until the change that is under way has ended.',
  },
  MACHINE_STILL_PROTECTED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'End its protection first: `warmsite vm unprotect`.',
  },
  MACHINE_STILL_RUNS: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Stop it first: `warmsite vm stop`.',
  },
  MACHINE_CLAIM_UNTOLD: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'The named site may run the machine, and hears from this one alone that it was taken back here. Wait until that site has answered (`warmsite site show`), and give the command again. If it is gone for good, end the trust in it: `warmsite site peer remove SITE --force`.',
  },
  MACHINE_LAYERS_KEPT: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'They hold what the machine had written when its protection was ended with `--keep-origin`, and it may be nowhere else. Move the named directories out of there as a whole if that is wanted, remove them if it is not, and give the command again.',
  },
  MACHINE_OUTDATED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The disks that this machine had here are older than the points that the other site has brought since. If that site is down, `warmsite failover start` brings the machine up from the newest of them. If you mean the old disks all the same, remove the replica first (`warmsite replica remove`).',
  },
  MACHINE_UNREACHABLE: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Nothing is copied meanwhile. See that no other program holds the QMP socket, and that the machine was started with it.',
  },
  MACHINE_NO_SPACE: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Free space there, or make the file system larger: the guest is continued by itself when a tenth of it or 256 MiB are free, and what it could not write is written then.',
  },
  MACHINE_IO_ERROR: {
    kind: 'environment',
    retry: 'never',
    remedy:
      'Mend the storage below the disk, then start the machine anew: `warmsite vm stop --force`, `warmsite vm start`; or continue the guest in a monitor of your own.',
  },
  MACHINE_TAKEN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The machine runs at the other site: have it replicated back (`warmsite failover adopt` and `vm protect` there) and handed over. To go back to before it was brought up there, without what was written there: `warmsite failover undo` there, then `warmsite failover withdraw` here.',
  },
  MACHINE_FORGOTTEN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The other site has no replica of the machine any more, and cannot promise to let go of it. Make sure there that nothing of the machine runs. Then take it back on your word of that: `warmsite failover withdraw VM --confirm-other-side-down`, or, if it is fenced, `warmsite vm unprotect VM --confirm-other-side-down`.',
  },
  ...PLAN_ERRORS,
  MACHINE_BRANCH_UNCLEAR: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name the branch: `warmsite failover list` shows them.',
  },
  MACHINE_NOT_THERE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Hand it over to a site that has all of it: `warmsite vm show` lists the targets and how far they are.',
  },
  MACHINE_NOT_OFFERED: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Hand the machine over at the site where it runs (`warmsite failover cede`), and take it again.',
  },
  SITE_PEER_OUTDATED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Upgrade the other site first.',
  },
  MACHINE_UNSETTLED: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Look at both sites where the machine stands (`warmsite vm show`), and begin again.',
  },
  MACHINE_STOP_TIMEOUT: {
    kind: 'timeout',
    retry: 'later',
    remedy:
      'The guest did not shut down: look at its console, or stop it with --force as if by pulling the plug.',
  },
  SITE_PEER_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Pair the sites first: `warmsite site token` at the other one, `warmsite site pair` here.',
  },
  SITE_PEER_UNCLEAR: {
    kind: 'input',
    retry: 'never',
    remedy: 'Say which recovery site is meant: name it as `warmsite site peers` shows it.',
  },
  SITE_PEER_IN_USE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'End the protection of those machines first: `warmsite vm unprotect`, at the site where they run. With --force the site is removed all the same: those copies stop; points that are there stay.',
  },
  SITE_PEER_SILENT: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Check that the other site runs and that its port is open from here; replication goes on by itself.',
  },
  SITE_CLOCK_SKEW: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Set the clocks of both hosts by NTP. Until then ages of points and the RPO are counted with the measured difference taken off, so they stay right; fixed times and blackouts go by the clock of the site that makes the copies.',
  },
  SITE_DATABASE_FULL: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Free space on the file system of the data directory, and try again: nothing was done.',
  },
  SITE_DISK_NEARLY_FULL: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Free space on the file system of the data directory, or shorten retention.',
  },
  SITE_TOKEN_REUSED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Somebody used a pairing token twice: look at `warmsite site peers` and end what you do not know with `warmsite site peer remove`.',
  },
  TRIGGER_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the triggers of the machine with `warmsite vm show`.',
  },
  TRIGGER_TOKEN_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the triggers that have a token with `warmsite vm trigger list`.',
  },
  TRIGGER_TOO_OFTEN: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Wait a minute. Copies that are wanted more often are for a schedule: `warmsite vm policy --schedule`.',
  },
  TRIGGERS_TOO_MANY: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Revoke triggers that nobody uses: `warmsite vm trigger list`, `warmsite vm trigger revoke`.',
  },
  COPY_NOT_DUE: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The other members of the group are copied each by itself, and the next cut takes this machine along by itself. A machine that is off and unchanged since its last copy needs none: start it if it should run. One that is left alone or does not answer: `warmsite vm show` and `warmsite alert list` say why and what to do.',
  },
  GROUP_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the groups with `warmsite group list`.',
  },
  GROUP_CUT_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy:
      'List the cuts that are whole here with `warmsite group points`; a single machine can be brought up without the others.',
  },
  GROUP_NOT_MEMBER: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Name machines of the group alone: `warmsite group points` lists them for each cut.',
  },
  GROUP_EXISTS: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Choose another name, or change the group that has it: `warmsite group change`.',
  },
  GROUP_MEMBER_UNSUITABLE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The members of a group are protected machines of this site with one and the same target, each in no other group.',
  },
  GROUP_TOO_DEEP: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Points of a cut are kept for the whole group as long as one member keeps its own: keep fewer points of the members, or make two groups.',
  },
  GROUP_TARGET_OUTDATED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Upgrade the recovery site first: it would not keep the points of a group together.',
  },
  TARGET_OUTRUN: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'See to that site and to the link. When it answers again it gets all that has changed meanwhile in one step, and never a whole copy; what it lacks now is missed there as points.',
  },
  GROUP_CUT_APART: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The copies of this occasion stand each by itself. See to the machine that is named; the next cut of the group is tried on schedule.',
  },
  MACHINE_IN_GROUP: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Take it out of the group first: `warmsite group change --members`, or `warmsite group remove`.',
  },
  MACHINE_TPM_UNCLEAR: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Name the directory that its emulator (swtpm) has as `--tpmstate dir=`: `warmsite vm add … --tpm DIRECTORY`; and no directory for a machine without a TPM.',
  },
  MACHINE_DISK_UNCLEAR: {
    kind: 'input',
    retry: 'never',
    remedy: 'Say which disk is meant: by its device, `--device NAME`, or by its file, `--disk ID=PATH`.',
  },
  MACHINE_DISK_LEFT_OUT: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Take the disk into the protection: `warmsite vm disk add`. Or unplug it.',
  },
  COPY_DEGRADED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Look whether the guest agent runs in the guest and answers, and what the hooks of the copy type say; the copy is crash-consistent only.',
  },
  COPY_HOOK_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'Look in the guest whether its applications were left as the hook before the copy had put them; `warmsite point show` has what the hooks printed.',
  },
  ...DRILL_ERRORS,
  ARRIVAL_FAILED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'See why with `warmsite job list` and `warmsite job show`; the next point is tried by itself. A point that does not boot or does not hold what it claims is one that a failover should not start from.',
  },
  JOB_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the jobs with `warmsite job list`.',
  },
  JOB_INTERRUPTED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The site process ended while the job ran: look at what stands (`warmsite failover list`), then start it again.',
  },
  FORWARD_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: '`warmsite replica show` lists the sites that a replica is forwarded to.',
  },
  FORWARD_TO_ORIGIN: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Name a third site: the one that makes the points has them, and so has the one that brings them.',
  },
  REPLICA_FORWARDED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'End that first: `warmsite replica forward VM --to SITE --stop`. What the other site has of it stays there.',
  },
  GENERATION_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy:
      '`warmsite generation list VM` shows the older generations of a machine, by what they are and their epoch.',
  },
  GENERATION_NEEDED: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Remove or turn first what lies upon it: an older generation with `warmsite generation remove`, a branch with `warmsite failover cleanup`, an older copy with `warmsite seed offer VM --withdraw`. What the machine itself lies upon stays until its replication has turned again.',
  },
  ORIGIN_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy:
      '`warmsite origin list` shows the sites that were told of, once a point of theirs has been offered.',
  },
  ORIGIN_UNCONFIRMED: {
    kind: 'refused',
    retry: 'later',
    remedy:
      'Compare the key in `warmsite origin list` with the one that `warmsite site show` shows at the site itself; if it is the same, `warmsite origin confirm`. The points come by themselves then.',
  },
  ORIGIN_KEY_WRONG: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Somebody gives a wrong key for that site: find out who before anything else. Points signed by another key than the confirmed one are not taken.',
  },
  ORIGIN_REFUSED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Points are forwarded from the replica of a site to a third one that trusts both. `warmsite origin forget` makes room for others.',
  },
  ORIGIN_IN_USE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Its points could be proven no more: remove those replicas first (`warmsite replica remove`), or keep it.',
  },
  ...LEASE_ERRORS,
  INTERNAL: {
    kind: 'environment',
    retry: 'later',
    remedy: 'This is an error in Warmsite: the log of the site has its details; please report it.',
  },
} as const satisfies ErrorCatalogue;

export const controlFailure = failuresOf(CONTROL_ERRORS);
