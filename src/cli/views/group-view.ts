import type { GroupCutView, GroupPointView, GroupView } from '../../api/index.ts';
import { formatAge, formatDuration, formatTime } from '../format.ts';
import type { Page } from '../page.ts';

export function printGroups(page: Page, groups: readonly GroupView[], nowMs: number): void {
  if (groups.length === 0) {
    page.line('No groups. Make one of protected machines with warmsite group create.');
    return;
  }
  page.table(
    [
      { head: 'NAME' },
      { head: 'ROLE' },
      { head: 'MACHINES' },
      { head: 'EVERY' },
      { head: 'LAST CUT' },
      { head: 'PAUSE', align: 'right' },
      { head: 'ID' },
    ],
    groups.map((group) => [
      group.name,
      group.role,
      group.members.map(({ name }) => name).join(', '),
      everyOf(group) ?? '',
      lastOf(group, nowMs) ?? '',
      pauseOf(group) ?? '',
      group.groupId,
    ]),
  );
}

function everyOf({ every = {} }: GroupView): string | undefined {
  const words = Object.entries(every).map(([type, everyMs]) => `${type} every ${formatDuration(everyMs)}`);
  return words.length === 0 ? undefined : words.join(', ');
}

function lastOf({ lastCut, newest }: GroupView, nowMs: number): string | undefined {
  if (lastCut) return `${formatAge(lastCut.atMs, nowMs)}${lastCut.together ? '' : ', not together'}`;
  return newest && formatAge(newest.cutAtMs, nowMs);
}

function pauseOf({ lastCut, newest }: GroupView): string | undefined {
  const pauseMs = lastCut?.pauseMs ?? newest?.pauseMs;
  return pauseMs === undefined ? undefined : formatDuration(pauseMs);
}

export function printGroup(page: Page, group: GroupView, nowMs: number): void {
  page.title(`Group ${group.name}`).fields([
    ['id', group.groupId],
    ['role', group.role],
    ['machines', group.members.map(({ name }) => name).join(', ')],
    ['target', group.targetName ?? group.targetSiteId],
    ['cut', group.role === 'replica' ? undefined : (everyOf(group) ?? 'on somebody\u2019s word alone')],
    ['limit', group.limitMs === undefined ? undefined : formatDuration(group.limitMs)],
    ['next', group.nextDue && `${group.nextDue.copyType} in ${formatDuration(group.nextDue.inMs)}`],
    ['whole cuts', group.points === undefined ? undefined : String(group.points)],
    ['last cut', lastOf(group, nowMs)],
  ]);
  if (group.lastCut) printCut(page, group.lastCut);
  if (group.newest) printGroupPoints(page, [group.newest], nowMs);
}

export function printCut(page: Page, cut: GroupCutView): void {
  page.title(`Cut ${cut.cutId}`);
  if (cut.together) {
    page.line(
      { text: 'One instant of all machines', tone: 'good' },
      `; they stood still for ${formatDuration(cut.pauseMs)}.`,
    );
  } else {
    page.line({ text: 'Each machine by itself: ', tone: 'warning' }, cut.reason ?? '');
  }
  page.table(
    [{ head: 'MACHINE' }, { head: 'POINT' }, { head: 'WHY NOT' }],
    cut.members.map(({ name, pointId, error }) => [name, pointId ?? '\u2013', error?.message ?? '']),
  );
}

export function printGroupPoints(page: Page, points: readonly GroupPointView[], nowMs: number): void {
  if (points.length === 0) {
    page.line('No whole cut of this group is here yet.');
    return;
  }
  page.table(
    [
      { head: 'CUT' },
      { head: 'WHEN' },
      { head: 'AGE', align: 'right' },
      { head: 'TYPE' },
      { head: 'CONSISTENCY' },
      { head: 'PAUSE', align: 'right' },
      { head: 'POINTS' },
    ],
    points.map((point) => [
      point.cutId,
      formatTime(point.cutAtMs),
      formatDuration(Math.max(0, nowMs - point.cutAtMs)),
      point.copyType,
      point.consistency,
      formatDuration(point.pauseMs),
      point.members.map(({ name, sequence }) => `${name} ${sequence}`).join(', '),
    ]),
  );
}
