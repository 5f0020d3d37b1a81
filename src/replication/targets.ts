import { assert } from '../lib/assert.ts';
import { replicationFailure } from './errors.ts';
import { type MachineRecord, type Protection, TARGETS_MAX, type TargetPolicy } from './records.ts';

/** The targets of a machine as plain data; pure. */

/** Throws PROTECTION_EXISTS. */
export function checkUnprotected({ protection, name }: MachineRecord): void {
  if (!protection) return;
  throw replicationFailure('PROTECTION_EXISTS', `${name} is protected already`, {
    hint: 'Change its policy, or unprotect it first.',
  });
}

/** Throws PROTECTION_NOT_PROTECTED. */
export function protectionOf(record: MachineRecord): Protection {
  checkNotEnding(record);
  if (record.protection) return record.protection;
  throw replicationFailure('PROTECTION_NOT_PROTECTED', `${record.name} is not protected`);
}

/** The end of a protection comes before everything else: its layers must not get company. Throws PROTECTION_NOT_PROTECTED. */
export function checkNotEnding({ dissolving, name }: MachineRecord): void {
  if (!dissolving) return;
  throw replicationFailure('PROTECTION_NOT_PROTECTED', `the protection of ${name} is being ended`, {
    hint: 'Unprotect it again, or start the site process again: that brings it to its end.',
  });
}

/** Every target with what it gets, the first one first. */
export function targetsOf(protection: Protection): readonly TargetPolicy[] {
  const { targetSiteId, furtherTargets = [], retention, compression } = protection;
  const { bytesPerSecond, limitWindows, spacingMs } = protection;
  const first: TargetPolicy = {
    ...{ siteId: targetSiteId, retention, compression },
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    ...(limitWindows ? { limitWindows } : {}),
    ...(spacingMs === undefined ? {} : { spacingMs }),
  };
  return [first, ...furtherTargets];
}

export function targetOf(protection: Protection, siteId: string): TargetPolicy | undefined {
  return targetsOf(protection).find((target) => target.siteId === siteId);
}

/** What of a target may be changed. Undefined takes a limit away. */
export type TargetChange = { [K in keyof Omit<TargetPolicy, 'siteId'>]?: TargetPolicy[K] | undefined };

/** Throws PROTECTION_TARGET_EXISTS, PROTECTION_TARGETS_TOO_MANY. */
export function withTarget(protection: Protection, policy: TargetPolicy): Protection {
  const { siteId } = policy;
  const targets = targetsOf(protection);
  const context = { siteId, targets: targets.length };
  if (targetOf(protection, siteId)) {
    throw replicationFailure('PROTECTION_TARGET_EXISTS', `it is replicated to site ${siteId} already`, {
      context,
    });
  }
  if (targets.length >= TARGETS_MAX) {
    throw replicationFailure('PROTECTION_TARGETS_TOO_MANY', `it has ${targets.length} targets already`, {
      context,
    });
  }
  return withTargets(protection, [...targets, policy]);
}

/** Throws PROTECTION_TARGET_UNKNOWN, PROTECTION_TARGET_LAST. */
export function withoutTarget(protection: Protection, siteId: string): Protection {
  checkTarget(protection, siteId);
  const left = targetsOf(protection).filter((target) => target.siteId !== siteId);
  if (left.length > 0) return withTargets(protection, left);
  throw replicationFailure('PROTECTION_TARGET_LAST', 'it is replicated nowhere else', {
    context: { siteId },
  });
}

/** Throws PROTECTION_TARGET_UNKNOWN. */
export function withTargetChanged(protection: Protection, siteId: string, change: TargetChange): Protection {
  checkTarget(protection, siteId);
  const changed = targetsOf(protection).map((target) =>
    target.siteId === siteId ? ({ ...target, ...change } as TargetPolicy) : target,
  );
  return withTargets(protection, changed);
}

function checkTarget(protection: Protection, siteId: string): void {
  if (targetOf(protection, siteId)) return;
  throw replicationFailure('PROTECTION_TARGET_UNKNOWN', `it is not replicated to site ${siteId}`, {
    context: { siteId },
  });
}

/** The same protection of these targets. There is one at the least. */
function withTargets(protection: Protection, [first, ...others]: readonly TargetPolicy[]): Protection {
  assert(first !== undefined, 'a protected machine has a target');
  const {
    targetSiteId: _site,
    furtherTargets: _others,
    retention: _retention,
    compression: _compression,
    bytesPerSecond: _rate,
    limitWindows: _windows,
    spacingMs: _spacing,
    ...ofMachine
  } = protection;
  const { siteId, ...policy } = first;
  return {
    ...ofMachine,
    ...policy,
    targetSiteId: siteId,
    ...(others.length > 0 ? { furtherTargets: others } : {}),
  };
}
