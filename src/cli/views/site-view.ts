import type {
  AlertView,
  AuditView,
  DoctorCheck,
  DoctorReport,
  PeerView,
  RouteAnswer,
  SiteView,
} from '../../api/index.ts';
import { hostPort } from '../../lib/host-port.ts';
import { formatAge, formatDuration, formatTime } from '../format.ts';
import type { Cell, Page, Tone } from '../page.ts';

export function printSite(page: Page, site: SiteView, nowMs: number): void {
  const { protected: atHome, replicas, broken } = site.machines;
  page.title(`Site ${site.name}`).fields([
    ['id', site.siteId],
    ['version', site.version],
    ['data', site.dataDirectory],
    ['API', hostPort(site.apiAddress)],
    ['peer port', hostPort(site.peerAddress)],
    ['key', site.keyId],
    ['up since', `${formatTime(site.startedAtMs)} (${formatAge(site.startedAtMs, nowMs)})`],
    ['machines', `${atHome} at home here, ${replicas} replicated here`],
    ['broken', broken > 0 ? { text: `${broken}; see warmsite vm list`, tone: 'bad' } : undefined],
    ['alerts', site.alerts > 0 ? { text: `${site.alerts}; see warmsite alert list`, tone: 'bad' } : 'none'],
  ]);
  page.title('Peers');
  printPeers(page, site.peers, nowMs);
}

export function printPeers(page: Page, peers: readonly PeerView[], nowMs: number): void {
  if (peers.length === 0) {
    page.line(
      'None yet. Issue a token at one site (warmsite site token), use it at the other (warmsite site pair).',
    );
    return;
  }
  page.table(
    [
      { head: 'NAME' },
      { head: 'PRESENCE' },
      { head: 'ADDRESS' },
      { head: 'LAST SEEN' },
      { head: 'SKEW', align: 'right' },
      { head: 'VERSION' },
      { head: 'ID' },
    ],
    peers.map((peer) => [
      peer.name,
      presenceOf(peer),
      hostPort(peer.address),
      peer.lastSeenAtMs === undefined ? 'never' : formatAge(peer.lastSeenAtMs, nowMs),
      peer.skewMs === undefined ? '' : formatDuration(peer.skewMs),
      peer.version,
      peer.siteId,
    ]),
  );
}

function presenceOf({ presence, revokedAtMs }: PeerView): Cell {
  if (revokedAtMs !== undefined) return { text: 'revoked', tone: 'bad' };
  const tones: Readonly<Record<PeerView['presence'], Tone>> = {
    reachable: 'good',
    silent: 'bad',
    unknown: 'plain',
  };
  return { text: presence, tone: tones[presence] };
}

export function printAlerts(page: Page, alerts: readonly AlertView[], nowMs: number): void {
  if (alerts.length === 0) {
    page.line('No alerts.');
    return;
  }
  for (const alert of alerts) {
    const stands = alert.clearedAtMs === undefined;
    const tone: Tone = !stands ? 'faint' : alert.severity === 'critical' ? 'bad' : 'warning';
    const times =
      alert.count > 1 ? `, ${alert.count} times, last ${formatAge(alert.updatedAtMs, nowMs)}` : '';
    page.title(stands ? alert.severity : 'cleared');
    page.line({ text: alert.message, tone });
    page.fields([
      ['code', alert.code],
      ['since', `${formatTime(alert.raisedAtMs)} (${formatAge(alert.raisedAtMs, nowMs)}${times})`],
      ['cleared', alert.clearedAtMs === undefined ? undefined : formatTime(alert.clearedAtMs)],
      ['what to do', stands ? alert.remedy : undefined],
    ]);
  }
}

export function printAudit(page: Page, audit: RouteAnswer<'audit.list'>): void {
  page.table(
    [
      { head: 'NO', align: 'right' },
      { head: 'AT' },
      { head: 'WHO' },
      { head: 'ACT' },
      { head: 'PHASE' },
      { head: 'ON' },
      { head: 'DETAILS' },
    ],
    audit.entries.map((entry) => [
      String(entry.sequence),
      formatTime(entry.atMs),
      entry.actor,
      entry.act,
      phaseOf(entry),
      entry.subject,
      Object.keys(entry.details).length === 0 ? '' : JSON.stringify(entry.details),
    ]),
  );
  if (audit.chain.state === 'whole') return;
  page.line('').line({
    text: `The chain of hashes is broken at entry ${audit.chain.atSequence}: somebody changed the log, or the file is damaged.`,
    tone: 'bad',
  });
}

function phaseOf({ phase, intent }: AuditView): Cell {
  if (phase === 'intent') return 'intent';
  const text = intent === undefined ? phase : `${phase} (of ${intent})`;
  return { text, tone: phase === 'failed' ? 'bad' : 'plain' };
}

const VERDICT_TONES: Readonly<Record<DoctorCheck['verdict'], Tone>> = {
  ok: 'good',
  warning: 'warning',
  failed: 'bad',
};

export function printDoctor(page: Page, report: DoctorReport): void {
  page.table(
    [{ head: 'VERDICT' }, { head: 'CHECK' }, { head: 'FOUND' }],
    report.checks.map(({ verdict, check, found }) => [
      { text: verdict, tone: VERDICT_TONES[verdict] },
      check,
      found,
    ]),
  );
  for (const { check, verdict, remedy } of report.checks) {
    if (remedy !== undefined)
      page.line('').line({ text: `${check}: `, tone: VERDICT_TONES[verdict] }, remedy);
  }
}
