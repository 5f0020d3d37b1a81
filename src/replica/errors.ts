import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const REPLICA_ERRORS = {
  REPLICA_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the machines of this site with `warmsite vm list`.',
  },
  REPLICA_SESSION_UNKNOWN: {
    kind: 'missing',
    retry: 'later',
    remedy: 'The sender offers the delta again by itself; nothing to do.',
  },
  REPLICA_SESSION_BUSY: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'An earlier connection still delivers this delta; it ends or is given up by itself.',
  },
  REPLICA_SESSION_OUTDATED: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'The sender asks how far the delta has come and goes on from there by itself; nothing to do.',
  },
  REPLICA_DELTA_REFUSED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'The sender broke its own offer: compare the versions of both sites and report it.',
  },
  REPLICA_CONTENT_DIFFERS: {
    kind: 'corrupt',
    retry: 'later',
    remedy:
      'The delta was thrown away and is sent again. If it repeats, check memory and disks of both sites.',
  },
  REPLICA_SIGNATURE_INVALID: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'The statement was not signed by the paired site: pair the sites anew if its key was changed on purpose.',
  },
  REPLICA_LAYER_MISSING: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Points above the missing layer cannot be used; older ones can. Restore the file or protect the machine anew.',
  },
  REPLICA_LAYER_DAMAGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'The named blocks differ from what was signed: fail over to a point that verifies, and check the disk.',
  },
  REPLICA_CHAIN_BROKEN: {
    kind: 'corrupt',
    retry: 'never',
    remedy: 'Points do not follow each other: keep the directory as it is and look for the named manifest.',
  },
  REPLICA_IN_USE: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'A branch or a verification reads the oldest layer; the merge follows when it ends.',
  },
  REPLICA_NEEDED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'End what the message names: `warmsite failover cleanup` for branches, the end of tests and verifications, `warmsite vm unprotect` at the other site for copies. Then remove the replica again.',
  },
  REPLICA_TOO_DEEP: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Release points that need not be held any more (`warmsite point release`), clean up branches (`warmsite failover list`, `warmsite failover cleanup`), or keep fewer points by policy (`warmsite vm policy --keep`).',
  },
  REPLICA_DEEP: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Nothing is deleted because of that, and failovers go on being possible; every read takes longer, though. Release points, clean up branches that are not needed any more, or keep fewer points by policy: `warmsite point list` says what each one stays for.',
  },
  REPLICA_REMOVED: {
    kind: 'missing',
    retry: 'later',
    remedy: 'A person has removed this replica: protect the machine anew if it is to be held here.',
  },
  REPLICA_AWAITING_SEED: {
    kind: 'unavailable',
    retry: 'later',
    remedy:
      'The base of this machine comes by courier: bring it in with `warmsite seed import`. If it is lost, export another one at the other site with `warmsite seed export`.',
  },
  REPLICA_SEED_DAMAGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Nothing was taken in. Copy the file from the medium again; if that does not help, export the seed again.',
  },
  REPLICA_SEED_REFUSED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Nothing was taken in. Bring the seed that `warmsite seed export` wrote last for this machine, or export it again.',
  },
  REPLICA_SEED_FOREIGN: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Nothing was taken in: the seed was not signed by the site that replicates this machine here. Look where the medium comes from.',
  },
  REPLICA_OLDER_COPY_UNFIT: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name a whole image with its true format: `--disk ID=PATH:qcow2` or `ID=PATH:raw`.',
  },
  REPLICA_OLDER_COPY_CHANGED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'The sender goes on by itself with the older copies that there are now; nothing to do.',
  },
  BRANCH_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the branches with `warmsite failover list`.',
  },
  BRANCH_NEEDED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Clean up the branches that the message names first.',
  },
  BRANCH_NAME_TAKEN: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Choose another name; `warmsite failover list` shows those that are taken.',
  },
} as const satisfies ErrorCatalogue;

export const replicaFailure = failuresOf(REPLICA_ERRORS);
