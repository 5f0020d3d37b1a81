import type { Command } from 'commander';
import type {
  ChangeTargetRequest,
  LimitWindowShape,
  MachineView,
  PolicyRequest,
  Retention,
  ScheduleShape,
  WindowShape,
} from '../api/index.ts';
import {
  orNone,
  parseAge,
  parseCalendar,
  parseKeep,
  parseLimitWindow,
  parseSchedule,
  parseWindow,
} from './policy-values.ts';
import { listed, named, parseCount, parseDuration, parseInterval, parseRate, parseWord } from './values.ts';

/** The options that say what a target gets, and how fast. */
export interface TargetOptions {
  readonly keep?: Retention['types'];
  readonly keepCrash?: number;
  readonly keepApp?: number;
  readonly keepCalendar?: NonNullable<Retention['calendar']> | 'none';
  readonly keepFor?: number | 'forever';
  readonly rate?: number | 'unlimited';
  readonly rateWindow?: readonly (LimitWindowShape | 'none')[];
  readonly compression?: string;
  readonly sendEvery?: number | 'copy';
}

/** The options of `vm protect` and `vm policy` that say when a machine is copied, what stays and how fast it is sent. */
export interface PolicyOptions extends TargetOptions {
  readonly crashEvery?: number | 'off';
  readonly appEvery?: number | 'off';
  readonly schedule?: readonly ScheduleShape[];
  readonly blackout?: readonly (WindowShape | 'none')[];
  readonly freezeLimit?: number;
}

export function withPolicyOptions(command: Command): Command {
  const withSchedules = command
    .option(
      '--crash-every <interval>',
      'crash-consistent copies, such as 10s; or off',
      named('--crash-every', parseInterval),
    )
    .option(
      '--app-every <interval>',
      'application-consistent copies, such as 10m; or off',
      named('--app-every', parseInterval),
    )
    .option(
      '--schedule <type=when>',
      "when copies of a type are made: 'app=at 0 2 * * * Europe/Berlin', 'crash=between 10s and 10m', 'crash=after 256M', 'app=on NAME', off; repeatable",
      listed('--schedule', parseSchedule),
    )
    .option(
      '--blackout <hours>',
      "hours without copies, such as 'Mon-Fri 08:00-18:00 Europe/Berlin'; or none; repeatable",
      listed('--blackout', orNone(parseWindow)),
    )
    .option(
      '--freeze-limit <duration>',
      'longest freeze of the guest, at most 10s',
      named('--freeze-limit', parseDuration),
    );
  return withTargetOptions(withSchedules);
}

export function withTargetOptions(command: Command): Command {
  const keep = (text: string) => parseCount(text, 0, 128);
  return command
    .option('--keep <numbers>', 'points to keep of each type: crash:4,app:2', named('--keep', parseKeep))
    .option('--keep-crash <number>', 'crash-consistent points to keep', named('--keep-crash', keep))
    .option('--keep-app <number>', 'application-consistent points to keep', named('--keep-app', keep))
    .option(
      '--keep-calendar <periods>',
      "the newest of so many hours, days, …: 'daily:7,weekly:4 Europe/Berlin'; or none",
      named('--keep-calendar', parseCalendar),
    )
    .option('--keep-for <age>', 'keep none longer, such as 90d; or forever', named('--keep-for', parseAge))
    .option(
      '--send-every <duration>',
      'send the target no more than one copy in this time, such as 1h; or copy, for all of them',
      named('--send-every', (text) => (text === 'copy' ? text : parseDuration(text))),
    )
    .option('--rate <rate>', 'such as 20M/s, 100Mbit/s or unlimited', named('--rate', parseRate))
    .option(
      '--rate-window <hours=rate>',
      "another rate in some hours, such as 'Mon-Fri 08:00-18:00 Europe/Berlin=2M/s'; or none; repeatable",
      listed('--rate-window', orNone(parseLimitWindow)),
    )
    .option(
      '--compression <on|off>',
      'compress what is sent',
      named('--compression', (text) => parseWord(text, ['on', 'off'])),
    );
}

type Before = NonNullable<NonNullable<MachineView['protected']>['protection']>;

/** The site takes schedules and retention as wholes: what is not named is filled in from before. */
export function policyOf(o: PolicyOptions, before: Before | undefined): PolicyRequest {
  const schedules = schedulesOf(o, before?.schedules ?? []);
  return {
    ...(schedules ? { schedules } : {}),
    ...(o.blackout ? { blackouts: o.blackout.filter((window) => window !== 'none') } : {}),
    ...(o.freezeLimit === undefined ? {} : { freezeLimitMs: o.freezeLimit }),
    ...targetChangeOf(o, before?.retention),
  };
}

/** What is not named of its retention is filled in from before. */
export function targetChangeOf(o: TargetOptions, before: Retention | undefined): ChangeTargetRequest {
  const retention = policyRetentionOf(o, before);
  return {
    ...(retention ? { retention } : {}),
    ...(o.sendEvery === undefined ? {} : { spacingMs: o.sendEvery === 'copy' ? null : o.sendEvery }),
    ...(o.rate === undefined ? {} : { bytesPerSecond: o.rate === 'unlimited' ? null : o.rate }),
    ...(o.rateWindow ? { limitWindows: o.rateWindow.filter((window) => window !== 'none') } : {}),
    ...(o.compression === undefined ? {} : { compression: o.compression === 'on' }),
  };
}

/** The same for a target that is new: what would take a limit away says nothing. */
export function newTargetOf<T extends ChangeTargetRequest>(change: T) {
  const { bytesPerSecond, spacingMs, ...rest } = change;
  return {
    ...rest,
    ...(typeof bytesPerSecond === 'number' ? { bytesPerSecond } : {}),
    ...(typeof spacingMs === 'number' ? { spacingMs } : {}),
  };
}

/** What is named for a type takes the place of all that was said of it. */
function schedulesOf(o: PolicyOptions, before: readonly ScheduleShape[]): ScheduleShape[] | undefined {
  const named = [
    ...intervalOf('crash', o.crashEvery),
    ...intervalOf('app', o.appEvery),
    ...(o.schedule ?? []),
  ];
  if (named.length === 0) return undefined;
  const triggers = new Map(before.map((schedule) => [schedule.copyType, [...schedule.triggers]]));
  for (const { copyType } of named) triggers.set(copyType, []);
  for (const schedule of named) triggers.get(schedule.copyType)!.push(...schedule.triggers);
  return [...triggers]
    .filter(([, list]) => list.length > 0)
    .map(([copyType, list]) => ({ copyType, triggers: list }));
}

function intervalOf(copyType: string, every: number | 'off' | undefined): ScheduleShape[] {
  if (every === undefined) return [];
  return [{ copyType, triggers: every === 'off' ? [] : [{ kind: 'interval', everyMs: every }] }];
}

/** Undefined if nothing is said of retention; what is not named stays as it was. */
export function policyRetentionOf(o: TargetOptions, before: Retention | undefined): Retention | undefined {
  const isNamed = [o.keep, o.keepCrash, o.keepApp, o.keepCalendar, o.keepFor].some(
    (one) => one !== undefined,
  );
  if (!isNamed) return undefined;
  const calendar = o.keepCalendar ?? before?.calendar ?? 'none';
  const maximumAgeMs = o.keepFor ?? before?.maximumAgeMs ?? 'forever';
  return {
    types: {
      ...(o.keep ?? before?.types ?? {}),
      ...(o.keepCrash === undefined ? {} : { crash: o.keepCrash }),
      ...(o.keepApp === undefined ? {} : { app: o.keepApp }),
    },
    ...(calendar === 'none' ? {} : { calendar }),
    ...(maximumAgeMs === 'forever' ? {} : { maximumAgeMs }),
  };
}
