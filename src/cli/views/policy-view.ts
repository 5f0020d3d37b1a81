import type {
  LimitWindowShape,
  PreviewAnswer,
  Retention,
  ScheduleShape,
  TriggerShape,
  WindowShape,
} from '../../api/index.ts';
import { formatBytes, formatDuration, formatRate } from '../format.ts';
import type { Page } from '../page.ts';

/** What a retention policy would do with the points that there are. */
export function printPreview(page: Page, { retention, points }: PreviewAnswer, nowMs: number): void {
  const kept = points.filter(({ keptFor }) => keptFor.length > 0);
  page.line(
    `Keeping ${retentionLine(retention)}: of ${points.length} points `,
    { text: `these ${kept.length} would stay today`, tone: 'strong' },
    '; nothing has been changed.',
  );
  page.table(
    [{ head: 'NO', align: 'right' }, { head: 'AGE', align: 'right' }, { head: 'TYPE' }, { head: 'KEPT FOR' }],
    kept.map(({ sequence, cutAtMs, copyType, keptFor }) => [
      String(sequence),
      formatDuration(Math.max(0, nowMs - cutAtMs)),
      copyType,
      keptFor.join(', '),
    ]),
  );
}

/** Policies in the words in which people give them. */

export function scheduleLine({ triggers }: ScheduleShape): string {
  return triggers.length === 0 ? 'on demand' : triggers.map(triggerWords).join('; ');
}

function triggerWords(trigger: TriggerShape): string {
  switch (trigger.kind) {
    case 'interval':
      return `every ${formatDuration(trigger.everyMs)}`;
    case 'fixed':
      return `at ${trigger.cron} ${trigger.zone}`;
    case 'variable':
      return `between ${formatDuration(trigger.minimumMs)} and ${formatDuration(trigger.maximumMs)}`;
    case 'call':
      return `on ${trigger.name}`;
    case 'guest':
      return `when the guest opens port ${trigger.port}`;
    case 'written':
      return `after ${formatBytes(trigger.bytes)} written`;
  }
}

export function windowWords({ days, from, to, zone }: WindowShape): string {
  const named = days.length === 7 ? 'daily' : days.join(',');
  return `${named} ${from}-${to} ${zone}`;
}

export function limitWords({ window, bytesPerSecond }: LimitWindowShape): string {
  return `${windowWords(window)}: ${bytesPerSecond === null ? 'unlimited' : formatRate(bytesPerSecond)}`;
}

export function retentionLine({ types, calendar, maximumAgeMs }: Retention): string {
  const { zone, ...periods } = calendar ?? { zone: '' };
  const byType = Object.entries(types).map(([type, places]) => `${places} ${type}`);
  const byTime = Object.entries(periods).map(([period, places]) => `${places} ${period}`);
  return [
    byType.join(', '),
    ...(byTime.length > 0 ? [`${byTime.join(', ')} (${zone})`] : []),
    ...(maximumAgeMs === undefined ? [] : [`none older than ${formatDuration(maximumAgeMs)}`]),
  ]
    .filter((part) => part !== '')
    .join('; ');
}
