import type { PointView } from '../../api/index.ts';
import { formatAge, formatBytes, formatDuration, formatTime } from '../format.ts';
import type { Cell, Column, Page } from '../page.ts';

const SKEW_SHOWN_MS = 1000;

/** By how much the clock of the source was wrong by the one here; undefined where it does not count. */
export function skewCell(skewMs = 0): Cell | undefined {
  if (Math.abs(skewMs) < SKEW_SHOWN_MS) return undefined;
  const way = skewMs > 0 ? 'ahead of' : 'behind';
  const text = `${formatDuration(Math.abs(skewMs))} ${way} the one here; times are by the one here`;
  return { text, tone: 'warning' };
}

function groupOf({ name, whole }: NonNullable<PointView['group']>): string {
  return whole === false ? `${name} (not whole)` : name;
}

const POINT_COLUMNS: readonly Column[] = [
  { head: 'NO', align: 'right' },
  { head: 'CUT AT' },
  { head: 'AGE', align: 'right' },
  { head: 'TYPE' },
  { head: 'CONSISTENCY' },
  { head: 'STATE' },
  { head: 'CHANGED', align: 'right' },
  { head: 'PROOFS' },
  { head: 'KEPT FOR' },
  { head: 'ID' },
];

export function printPoints(page: Page, points: readonly PointView[], nowMs: number): void {
  if (points.length === 0) {
    page.line('No points yet.');
    return;
  }
  page.table(
    POINT_COLUMNS,
    points.map((point) => [
      point.sequence === undefined ? '–' : String(point.sequence),
      formatTime(point.cutAtMs),
      formatDuration(Math.max(0, nowMs - point.cutAtMs)),
      point.group ? `${point.copyType}, ${groupOf(point.group)}` : point.copyType,
      consistencyOf(point),
      stateOf(point),
      point.changedBytes === undefined ? '' : formatBytes(point.changedBytes),
      proofsOf(point),
      point.keptFor?.join(', '),
      // A number is enough to name a published point; a copy that has none is named by its id.
      point.sequence === undefined ? point.pointId : '',
    ]),
  );
}

export function printPoint(page: Page, point: PointView, nowMs: number): void {
  const { proofs } = point;
  page
    .title(point.sequence === undefined ? 'Copy that is not published yet' : `Point ${point.sequence}`)
    .fields([
      ['id', point.pointId],
      ['state', stateOf(point)],
      ['type', point.copyType],
      ['consistency', consistencyOf(point)],
      ['degraded', point.degraded],
      ['cut', `${formatTime(point.cutAtMs)} (${formatAge(point.cutAtMs, nowMs)})`],
      ['clock there', skewCell(point.skewMs)],
      ['published', point.publishedAtMs === undefined ? undefined : formatTime(point.publishedAtMs)],
      ['group', point.group && `${groupOf(point.group)}, of ${point.group.machines} machines`],
      ['cut of the group', point.group?.cutId],
      ['pause of the group', point.group && formatDuration(point.group.pauseMs)],
      ['pause', formatDuration(point.pauseMs)],
      ['TPM', point.tpm && tpmLine(point.tpm)],
      ['frozen', point.frozenMs === undefined ? undefined : formatDuration(point.frozenMs)],
      ...(point.hooks ?? []).map((report): [string, Cell] => [`hook: ${report.hook}`, hookCell(report)]),
      ['changed', point.changedBytes === undefined ? undefined : formatBytes(point.changedBytes)],
      ['received', point.receivedBytes === undefined ? undefined : formatBytes(point.receivedBytes)],
      ['from the older copy', point.olderBytes === undefined ? undefined : formatBytes(point.olderBytes)],
      ['epoch', point.epoch === undefined ? undefined : String(point.epoch)],
      ['parent', point.parentPointId],
      ['statement', point.statementDigest],
      ['missed before it', point.missed === 0 ? undefined : String(point.missed)],
      ['content proof', proofs.content && formatTime(proofs.content.verifiedAtMs)],
      ['boot proof', proofs.boot && bootProofOf(proofs.boot)],
      ['claims', point.claims?.join(', ')],
      ['application proof', proofs.application && applicationProofOf(proofs.application)],
      ['held', point.hold && holdLine(point.hold)],
      ['kept for', point.keptFor && (point.keptFor.join(', ') || 'nothing: it may go')],
    ]);
  if (!point.disks) return;
  page.title('Disks').table(
    [
      { head: 'DISK' },
      { head: 'SIZE', align: 'right' },
      { head: 'CHANGED', align: 'right' },
      { head: 'ROOT' },
    ],
    point.disks.map((disk) => [
      disk.diskId,
      formatBytes(disk.sizeBytes),
      formatBytes(disk.changedBytes),
      disk.root,
    ]),
  );
}

function applicationProofOf({
  held,
  atMs,
  assertions,
}: NonNullable<PointView['proofs']['application']>): Cell {
  const failed = assertions
    .filter(({ outcome }) => outcome === 'failed')
    .map(({ name, exitCode, output = '', reason }) => {
      return `${name}: ${reason ?? `exit code ${exitCode}`}${output.trim() === '' ? '' : `, ${output.trim()}`}`;
    });
  const text = `${held ? 'held' : 'failed'} ${formatTime(atMs)}`;
  return { text: [text, ...failed].join('; '), tone: held ? 'good' : 'bad' };
}

function hookCell({ exitCode, output = '', failure, tookMs }: NonNullable<PointView['hooks']>[number]): Cell {
  const ended = failure ?? `exit code ${exitCode}`;
  const said = output.trim() === '' ? '' : `: ${output.trim()}`;
  return {
    text: `${formatDuration(tookMs)}, ${ended}${said}`,
    tone: failure === undefined ? 'plain' : 'warning',
  };
}

function bootProofOf({ passed, atMs, rtoMs }: NonNullable<PointView['proofs']['boot']>): Cell {
  const rto = rtoMs === undefined ? '' : `, RTO ${formatDuration(rtoMs)}`;
  return { text: `${passed ? 'passed' : 'failed'} ${formatTime(atMs)}${rto}`, tone: passed ? 'good' : 'bad' };
}

function holdLine({ reason, untilMs }: NonNullable<PointView['hold']>): string {
  return untilMs === undefined ? reason : `until ${formatTime(untilMs)}: ${reason}`;
}

function consistencyOf({ consistency, degraded, demoted }: PointView): Cell {
  if (demoted) return { text: `crash (${consistency} refuted)`, tone: 'bad' };
  return degraded === undefined ? consistency : { text: `${consistency} (degraded)`, tone: 'warning' };
}

function stateOf({ state }: PointView): Cell {
  if (state === 'awaiting-seed') return { text: 'awaiting seed', tone: 'warning' };
  return state === 'verified' ? { text: state, tone: 'good' } : state;
}

function proofsOf({ proofs }: PointView): Cell {
  const boot = proofs.boot && (proofs.boot.passed ? 'boot' : 'boot FAILED');
  const text = [proofs.content && 'content', boot].filter((proof) => proof !== undefined).join(', ');
  return proofs.boot?.passed === false ? { text, tone: 'bad' } : text;
}

const TPM_CAPTURED: Readonly<Record<NonNullable<PointView['tpm']>['captured'], string>> = {
  paused: 'taken while the guest stood still',
  unchanged: 'the same before and after the cut',
  stopped: 'taken while the machine was off',
};

function tpmLine({ captured, pauseMs, bytes }: NonNullable<PointView['tpm']>): string {
  const stood = captured === 'paused' ? ` for ${formatDuration(pauseMs)}` : '';
  return `${formatBytes(bytes)}, ${TPM_CAPTURED[captured]}${stood}`;
}
