import type { LimitWindow } from './bandwidth.ts';
import type { CopyPlan, Trigger } from './copy-schedule.ts';
import { BUILT_IN_TYPES, COPY_TYPE_CHARACTERS_MAX, type CopyType } from './copy-type.ts';
import { pointFailure } from './errors.ts';
import { FixedTimes } from './fixed-times.ts';
import {
  type Calendar,
  calendarPlaces,
  FLOOR_POINTS_MAX,
  POINTS_MAX,
  placesOf,
  type RetentionPolicy,
} from './retention-policy.ts';
import { endOfWindows } from './windows.ts';
import type { Zones } from './zones.ts';

/** All of a policy that can contradict itself. */
export interface CheckedPolicy extends CopyPlan {
  readonly retention: RetentionPolicy;
  readonly limitWindows?: readonly LimitWindow[] | undefined;
  /** The machine's own types. */
  readonly copyTypes?: readonly CopyType[] | undefined;
}

/**
 * Refuses a policy that cannot do what it says, before it is recorded: times that never come, windows that leave no time,
 * types that are not defined, copies of which none would stay. `nowMs` is the wall clock. Pure. Throws POLICY_* and COPY_TYPE_UNKNOWN.
 */
export function checkPolicy(policy: CheckedPolicy, nowMs: number, zones: Zones): void {
  const { schedules, blackouts = [], limitWindows = [], retention, copyTypes = [] } = policy;
  const windows = [...blackouts, ...limitWindows.map(({ window }) => window)];
  for (const { zone } of windows) zones.check(zone);
  checkRetention(retention, zones);
  checkTypes(policy, copyTypes);
  checkNames(schedules);
  for (const { copyType, triggers } of schedules) {
    for (const trigger of triggers) checkTrigger(copyType, trigger, nowMs, zones);
  }
  if (schedules.length > 0 && endOfWindows(blackouts, nowMs, zones) === undefined) {
    throw pointFailure('POLICY_NEVER', 'the blackout windows leave no minute of the week for a copy');
  }
  checkKeeps(policy);
}

/** Retention alone, as it may be tried out. Throws POLICY_ZONE_UNKNOWN, POLICY_TOO_DEEP. */
export function checkRetention(retention: RetentionPolicy, zones: Zones): void {
  if (retention.calendar) zones.check(retention.calendar.zone);
  const places = placesOf(retention);
  if (places > POINTS_MAX) {
    throw pointFailure(
      'POLICY_TOO_DEEP',
      `the policy could keep ${places} points; at most ${POINTS_MAX} are kept of a machine, because a disk is read through all layers below a point`,
      { context: { places, maximum: POINTS_MAX } },
    );
  }
}

/** The floor of a site that keeps points. Throws POLICY_ZONE_UNKNOWN, POLICY_TOO_DEEP. */
export function checkFloor(floor: Calendar, zones: Zones): void {
  zones.check(floor.zone);
  const places = placesOf({ types: {}, calendar: floor });
  if (places <= FLOOR_POINTS_MAX) return;
  throw pointFailure(
    'POLICY_TOO_DEEP',
    `the floor could keep ${places} points of each machine; at most ${FLOOR_POINTS_MAX} are kept so, beside those that its policy keeps`,
    { context: { places, maximum: FLOOR_POINTS_MAX } },
  );
}

/** What is copied or kept must be defined, and each name must mean one thing. */
function checkTypes({ schedules, retention }: CheckedPolicy, own: readonly CopyType[]): void {
  const names = [...BUILT_IN_TYPES, ...own].map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw pointFailure('POLICY_CONTRADICTS', `the copy type ${twice} would be defined twice`, {
      context: { copyType: twice },
    });
  }
  for (const type of own) checkType(type);
  const kept = Object.entries(retention.types).flatMap(([name, places]) => (places > 0 ? name : []));
  const used = [
    ...schedules.map(({ copyType }) => ({ copyType, by: 'a schedule makes copies' })),
    ...kept.map((copyType) => ({ copyType, by: 'retention keeps points' })),
  ];
  const unknown = used.find(({ copyType }) => !names.includes(copyType));
  if (!unknown) return;
  const { copyType, by } = unknown;
  throw pointFailure('COPY_TYPE_UNKNOWN', `${by} of type «${copyType}», and there is no such type`, {
    context: { type: copyType },
  });
}

function checkType(type: CopyType): void {
  const { name, assertions = [] } = type;
  const asserted = assertions.map((assertion) => assertion.name);
  const twice = asserted.find((one, index) => asserted.indexOf(one) !== index);
  if (twice !== undefined) {
    throw pointFailure('POLICY_CONTRADICTS', `the copy type ${name} has two assertions ${twice}`, {
      context: { copyType: name },
    });
  }
  const characters = JSON.stringify(type).length;
  if (characters <= COPY_TYPE_CHARACTERS_MAX) return;
  throw pointFailure('COPY_TYPE_TOO_LARGE', `the copy type ${name} has ${characters} characters`, {
    context: { copyType: name, characters, maximum: COPY_TYPE_CHARACTERS_MAX },
  });
}

function checkNames(schedules: CopyPlan['schedules']): void {
  const types = schedules.map(({ copyType }) => copyType);
  const twice = types.find((type, index) => types.indexOf(type) !== index);
  if (twice !== undefined) {
    throw pointFailure('POLICY_CONTRADICTS', `the policy has two schedules for copies of type ${twice}`);
  }
  const names = schedules.flatMap(({ triggers }) =>
    triggers.flatMap((trigger) => (trigger.kind === 'call' ? trigger.name : [])),
  );
  const called = names.find((name, index) => names.indexOf(name) !== index);
  if (called !== undefined) {
    throw pointFailure('POLICY_CONTRADICTS', `the policy has two triggers that are called ${called}`);
  }
}

function checkTrigger(copyType: string, trigger: Trigger, nowMs: number, zones: Zones): void {
  if (trigger.kind === 'variable' && trigger.minimumMs > trigger.maximumMs) {
    throw pointFailure(
      'POLICY_CONTRADICTS',
      `the variable interval of ${copyType} has a minimum above its maximum`,
      { context: { copyType, minimumMs: trigger.minimumMs, maximumMs: trigger.maximumMs } },
    );
  }
  if (trigger.kind !== 'fixed') return;
  const { cron, zone } = trigger;
  zones.check(zone);
  if (FixedTimes.parse(cron, zone).next(nowMs) !== undefined) return;
  throw pointFailure('POLICY_NEVER', `the time «${cron}» (${zone}) of ${copyType} never comes`, {
    context: { copyType, cron, zone },
  });
}

function checkKeeps({ schedules, retention }: CheckedPolicy): void {
  const keepsByTime = calendarPlaces(retention.calendar).some((places) => places > 0);
  for (const { copyType, triggers } of schedules) {
    if (triggers.length === 0 || keepsByTime || (retention.types[copyType] ?? 0) > 0) continue;
    throw pointFailure(
      'POLICY_KEEPS_NOTHING',
      `copies of type ${copyType} would be made on schedule, and retention would keep none of them`,
      { context: { copyType } },
    );
  }
}
