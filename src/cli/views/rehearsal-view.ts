import type { RehearsalView } from '../../api/index.ts';
import { formatAge, formatDuration, formatTime } from '../format.ts';
import type { Page } from '../page.ts';

export function printRehearsals(page: Page, rehearsals: readonly RehearsalView[], nowMs: number): void {
  if (rehearsals.length === 0) {
    page.line('Nothing is rehearsed here by itself: warmsite plan rehearse PLAN --daily 02:00');
    return;
  }
  page.table(
    [
      { head: 'PLAN' },
      { head: 'WHEN' },
      { head: 'STATE' },
      { head: 'NEXT' },
      { head: 'LAST PASSED' },
      { head: 'LAST RUN' },
      { head: 'WHY' },
    ],
    rehearsals.map((one) => [
      one.plan,
      timesOf(one),
      { text: stateOf(one), tone: one.isFailing ? 'bad' : one.isOverdue ? 'warning' : 'plain' },
      one.nextAtMs === undefined ? 'never' : formatTime(one.nextAtMs),
      one.lastPassedAtMs === undefined ? 'never' : formatAge(one.lastPassedAtMs, nowMs),
      one.lastRunId ?? '',
      one.reason ?? '',
    ]),
  );
}

function timesOf({ times }: RehearsalView): string {
  return times.kind === 'interval' ? `every ${formatDuration(times.everyMs)}` : `${times.cron} ${times.zone}`;
}

function stateOf({ state, isFailing, isOverdue }: RehearsalView): string {
  return [state, ...(isFailing ? ['failing'] : []), ...(isOverdue ? ['overdue'] : [])].join(', ');
}
