import type { MachineView, ReplicationView, TargetReplicationView } from '../../api/index.ts';
import { formatAge, formatBytes, formatDuration, formatRate, formatTime, olderWords } from '../format.ts';
import type { Cell, Page, Tone } from '../page.ts';
import { skewCell } from './point-view.ts';
import { limitWords, retentionLine, scheduleLine, windowWords } from './policy-view.ts';

type Presence = NonNullable<MachineView['protected']>['presence'];
type Rpo = ReplicationView['rpo'];
type ReplicaState = NonNullable<MachineView['replica']>['state'];

const PRESENCE_TONES: Readonly<Record<Presence['state'], Tone>> = {
  running: 'good',
  stopped: 'plain',
  stale: 'bad',
  unreachable: 'bad',
};

const REPLICA_TONES: Readonly<Record<ReplicaState, Tone>> = {
  seeding: 'plain',
  standby: 'good',
  'failed-over': 'warning',
  broken: 'bad',
};

type Standstill = NonNullable<Presence['standstill']>;

const STANDSTILLS: Readonly<Record<Standstill['why'], Exclude<Cell, string>>> = {
  paused: { text: 'paused', tone: 'warning' },
  'no-space': { text: 'no space', tone: 'bad' },
  'io-error': { text: 'I/O error', tone: 'bad' },
  'shut-down': { text: 'shut down', tone: 'plain' },
  crashed: { text: 'crashed', tone: 'bad' },
};

function presenceCell({ state, standstill }: Presence): Cell {
  return standstill ? STANDSTILLS[standstill.why] : { text: state, tone: PRESENCE_TONES[state] };
}

function standstillCell({ why, disks }: Standstill): Cell {
  const { text, tone } = STANDSTILLS[why];
  return { tone, text: `stands still: ${text}${disks.length === 0 ? '' : ` (${disks.join(', ')})`}` };
}

export function printMachines(page: Page, machines: readonly MachineView[], nowMs: number): void {
  if (machines.length === 0) {
    page.line('No machines. Add one of this host with warmsite vm add; replicas appear by themselves.');
    return;
  }
  page.table(
    [
      { head: 'NAME' },
      { head: 'ROLE' },
      { head: 'STATE' },
      { head: 'REPLICATION' },
      { head: 'NEWEST POINT' },
      { head: 'RPO', align: 'right' },
      { head: 'TARGET', align: 'right' },
      { head: 'ID' },
    ],
    machines.map((machine) => rowOf(machine, nowMs)),
  );
}

type HeldBy = NonNullable<NonNullable<MachineView['protected']>['heldBy']>;

const HELD: Readonly<
  Record<HeldBy['how'], { readonly word: string; readonly tone: 'bad' | 'warning' | 'good' }>
> = {
  fenced: { word: 'fenced', tone: 'bad' },
  offered: { word: 'offered', tone: 'warning' },
  'handed-over': { word: 'handed over', tone: 'good' },
};

function heldCell(presence: string, how: HeldBy['how']): Cell {
  const { word, tone } = HELD[how];
  return { text: `${presence}, ${word}`, tone: presence === 'running' ? 'bad' : tone };
}

function rowOf(machine: MachineView, nowMs: number): (Cell | undefined)[] {
  const { name, role, machineId, protected: atHome, replica } = machine;
  if (atHome) {
    const { presence, heldBy, replication } = atHome;
    const newest = replication?.acknowledged;
    return [
      name,
      role,
      heldBy ? heldCell(presence.state, heldBy.how) : presenceCell(presence),
      heldBy?.how === 'handed-over' ? '' : replication ? phaseOf(replication) : 'not protected',
      newest ? `${newest.sequence}, ${formatAge(newest.cutAtMs ?? newest.atMs, nowMs)}` : '',
      ...rpoCells(replication?.rpo),
      machineId,
    ];
  }
  const { newest } = replica ?? {};
  return [
    name,
    role,
    replica && { text: replica.state, tone: REPLICA_TONES[replica.state] },
    replica?.incoming ? 'receiving' : replica?.forwards ? worstForward(replica.forwards) : '',
    newest ? `${newest.sequence}, ${formatAge(newest.cutAtMs, nowMs)}` : '',
    ...rpoCells(replica?.rpo),
    machineId,
  ];
}

/** Of the sites that a replica is forwarded to, the one that a person must look at first. */
function worstForward(forwards: readonly TargetReplicationView[]): Cell {
  const order: readonly TargetReplicationView['phase'][] = ['blocked', 'retrying', 'sending', 'idle'];
  const [worst] = [...forwards].sort((a, b) => order.indexOf(a.phase) - order.indexOf(b.phase));
  const { unsentCuts } = worst!;
  const cell = phaseOf(worst!);
  const { text, tone } = typeof cell === 'string' ? { text: cell, tone: 'plain' as const } : cell;
  return { tone, text: `forwarding ${text}${unsentCuts === 0 ? '' : `, lacks ${copies(unsentCuts)}`}` };
}

function rpoCells(rpo: Rpo | undefined): [Cell, Cell] {
  return [rpoCell(rpo) ?? '', rpo?.targetMs === undefined ? '' : formatDuration(rpo.targetMs)];
}

/** Twice the interval leaves room for the transfer; beyond it copies are being missed. */
function rpoCell(rpo: Rpo | undefined): Cell | undefined {
  if (rpo?.actualMs === undefined) return undefined;
  const isLate = rpo.targetMs !== undefined && rpo.actualMs > 2 * rpo.targetMs;
  return { text: formatDuration(rpo.actualMs), tone: isLate ? 'bad' : 'plain' };
}

function phaseOf({ phase, transfer }: Pick<ReplicationView, 'phase' | 'transfer'>): Cell {
  if (phase === 'sending' && transfer) {
    const percent =
      transfer.bytesTotal === 0 ? 100 : Math.floor((100 * transfer.bytesDone) / transfer.bytesTotal);
    return `${transfer.complete ? 'seeding' : 'sending'} ${percent} %`;
  }
  const tones: Readonly<Record<ReplicationView['phase'], Tone>> = {
    idle: 'plain',
    cutting: 'plain',
    sending: 'plain',
    retrying: 'warning',
    blocked: 'bad',
  };
  return { text: phase, tone: tones[phase] };
}

export function printMachine(page: Page, machine: MachineView, nowMs: number): void {
  page.title(machine.name).fields([
    ['id', machine.machineId],
    ['role', machine.role === 'protected' ? 'at home here' : 'replica of a machine of another site'],
    ['epoch', String(machine.epoch)],
  ]);
  if (machine.protected) printProtected(page, machine.protected, nowMs);
  if (machine.replica) printReplica(page, machine.replica, nowMs);
}

type Lease = NonNullable<NonNullable<MachineView['protected']>['lease']>;

function leaseCell({ lenders, guest }: Lease): Cell {
  const said = lenders.map(({ name, siteId, role, lentMs }) => {
    const left = lentMs > 0 ? `for ${formatDuration(lentMs)} more` : 'not';
    return `${name ?? siteId}${role === 'witness' ? ' (witness)' : ''} ${left}`;
  });
  const missing = lenders.filter(({ lentMs }) => lentMs === 0).length;
  const tone = missing === 0 ? 'good' : missing === lenders.length ? 'bad' : 'warning';
  // Of a machine that is off nobody is asked.
  return guest === undefined
    ? 'lent when it starts'
    : { tone, text: `${guest === 'stopped' ? 'stands still; ' : ''}${said.join(', ')}` };
}

function printProtected(page: Page, atHome: NonNullable<MachineView['protected']>, nowMs: number): void {
  const { kind, presence, heldBy, lease, qmpPath, agentPath, disks, protection, replication } = atHome;
  page.title('Process').fields([
    ['kind', kind === 'managed' ? 'started by this site' : 'started by somebody else, attached'],
    ['state', { text: presence.state, tone: PRESENCE_TONES[presence.state] }],
    ['guest', presence.standstill && standstillCell(presence.standstill)],
    ['reason', presence.reason],
    [
      heldBy?.how === 'offered' ? 'offered to' : 'held by',
      heldBy && {
        text: `${heldBy.name ?? heldBy.siteId}, in epoch ${heldBy.epoch}`,
        tone: HELD[heldBy.how].tone,
      },
    ],
    ['lent by', lease && leaseCell(lease)],
    ['process', presence.processId === undefined ? undefined : String(presence.processId)],
    ['QMP socket', qmpPath],
    ['agent socket', agentPath],
  ]);
  page.title('Disks (files from oldest to tip; a machine starts from the tip)');
  page.table(
    [{ head: 'DISK' }, { head: 'SIZE', align: 'right' }, { head: 'FORMAT' }, { head: 'FILE' }],
    disks.flatMap(({ diskId, sizeBytes, isNew, isLeaving, chain }) =>
      chain.map(({ path, format }, index) => [
        index === 0 ? `${diskId}${isNew ? ' (from the next copy on)' : isLeaving ? ' (leaving)' : ''}` : '',
        index === 0 ? formatBytes(sizeBytes) : '',
        format,
        index === chain.length - 1 ? { text: path, tone: 'strong' as const } : path,
      ]),
    ),
  );
  page.title('Protection');
  if (!protection) {
    page.line('None: warmsite vm protect begins one.');
    return;
  }
  const { schedules, blackouts, targets } = protection;
  const [first] = targets;
  const isOne = targets.length === 1 && first !== undefined;
  page.fields([
    ['target', isOne ? (first.name ?? first.siteId) : undefined],
    ...schedules.map((schedule): [string, string] => [
      `copies: ${schedule.copyType}`,
      scheduleLine(schedule),
    ]),
    ...blackouts.map((window): [string, string] => ['no copies', windowWords(window)]),
    ['freeze limit', formatDuration(protection.freezeLimitMs)],
    ...(isOne ? targetFields(first) : []),
  ]);
  if (!isOne) {
    for (const target of targets) {
      page.title(`Target ${target.name ?? target.siteId}`).fields(targetFields(target));
    }
  }
  if (!replication) return;
  printReplication(page, replication, nowMs);
  if (!isOne) printTargets(page, replication.targets, nowMs);
}

type Target = NonNullable<NonNullable<MachineView['protected']>['protection']>['targets'][number];

function targetFields(target: Target): [string, string | undefined][] {
  const { retention, bytesPerSecond, limitWindows, limitNow, compression, spacingMs } = target;
  return [
    ['keep', retentionLine(retention)],
    ['sent', spacingMs === undefined ? undefined : `one copy in ${formatDuration(spacingMs)} at the most`],
    ['rate', bytesPerSecond === undefined ? 'unlimited' : formatRate(bytesPerSecond)],
    ...limitWindows.map((limit): [string, string] => ['rate in these hours', limitWords(limit)]),
    [
      'rate now',
      limitWindows.length === 0 ? undefined : limitNow === undefined ? 'unlimited' : formatRate(limitNow),
    ],
    ['compression', compression ? 'on' : 'off'],
  ];
}

/** One row a target, the worst first. */
function printTargets(page: Page, targets: readonly TargetReplicationView[], nowMs: number): void {
  page.title('Targets').table(
    [
      { head: 'SITE' },
      { head: 'REPLICATION' },
      { head: 'NEWEST POINT' },
      { head: 'RPO', align: 'right' },
      { head: 'TARGET', align: 'right' },
      { head: 'LACKS', align: 'right' },
      { head: 'WHY' },
    ],
    targets.map((target) => {
      const { acknowledged, unsentCuts, failure, outrun, seed } = target;
      const why = failure?.message ?? (seed && SEED_STATES[seed]);
      return [
        target.name ?? target.siteId,
        outrun && target.phase !== 'sending'
          ? { text: `${target.phase}, left behind`, tone: 'warning' }
          : phaseOf(target),
        acknowledged
          ? `${acknowledged.sequence}, ${formatAge(acknowledged.cutAtMs ?? acknowledged.atMs, nowMs)}`
          : 'nothing yet',
        ...rpoCells(target.rpo),
        unsentCuts === 0 ? '' : copies(unsentCuts),
        why,
      ];
    }),
  );
}

function copies(count: number): string {
  return `${count} ${count === 1 ? 'copy' : 'copies'}`;
}

function printReplication(page: Page, replication: ReplicationView, nowMs: number): void {
  const {
    acknowledged,
    transfer,
    nextDue,
    written = [],
    lastSkip,
    failure,
    retryInMs,
    rpo,
    unsentCuts,
    seed,
  } = replication;
  page
    .title('Replication')
    .fields([
      ['phase', phaseOf(replication)],
      ['transfer', transfer && transferLine(transfer)],
      [
        seed === 'awaited' ? 'held there' : 'verified there',
        acknowledged
          ? `point ${acknowledged.sequence}, ${formatTime(acknowledged.atMs)} (${formatAge(acknowledged.atMs, nowMs)})`
          : 'nothing yet',
      ],
      ['seed', seed && { text: SEED_STATES[seed], tone: 'warning' }],
      ['not sent yet', unsentCuts === 0 ? undefined : copies(unsentCuts)],
      ['next copy', nextDue && `${nextDue.copyType}, in ${formatDuration(Math.max(0, nextDue.inMs))}`],
      ...written.map(({ copyType, writtenBytes, dueBytes }): [string, string] => [
        `written: ${copyType}`,
        `${formatBytes(writtenBytes)} of ${formatBytes(dueBytes)} since the last copy`,
      ]),
      ['last skipped', lastSkip && `${formatAge(lastSkip.atMs, nowMs)}: ${lastSkip.reason}`],
      ['RPO', rpoLine(rpo)],
      ['failure', failure && { text: `${failure.message} (${failure.code})`, tone: 'bad' }],
      ['what to do', failure?.hint],
      ['tried again', retryInMs === undefined ? undefined : `in ${formatDuration(Math.max(0, retryInMs))}`],
    ]);
}

function transferLine({
  bytesDone,
  bytesTotal,
  olderBytes,
  bytesPerSecond,
}: NonNullable<ReplicationView['transfer']>): string {
  return [
    `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`,
    ...(olderBytes === undefined ? [] : [olderWords(olderBytes)]),
    ...(bytesPerSecond === undefined ? [] : [formatRate(bytesPerSecond)]),
  ].join(', ');
}

const SEED_STATES: Readonly<Record<NonNullable<ReplicationView['seed']>, string>> = {
  wanted: 'nothing is sent before `warmsite seed export`',
  exported: 'exported; the other site has not been told yet',
  awaited: 'awaited: nothing can be recovered before `warmsite seed import` at the recovery site',
};

function rpoLine(rpo: Rpo): Cell | undefined {
  const actual = rpoCell(rpo);
  if (typeof actual !== 'object') return undefined;
  const target = rpo.targetMs === undefined ? '' : ` (target ${formatDuration(rpo.targetMs)})`;
  return { ...actual, text: actual.text + target };
}

const RIGHTS: Readonly<Record<NonNullable<NonNullable<MachineView['replica']>['right']>, Cell>> = {
  offered: {
    text: 'offered to this site: `warmsite failover take` starts the machine here',
    tone: 'warning',
  },
  held: { text: 'held here since a failover; `warmsite failover adopt` makes it at home here', tone: 'good' },
  'given-up': {
    text: 'given up here: `warmsite failover withdraw` takes it back where it was; nobody runs it until then',
    tone: 'warning',
  },
  adopted: { text: 'the machine is at home here: its disks lie upon these points', tone: 'good' },
};

function printReplica(page: Page, replica: NonNullable<MachineView['replica']>, nowMs: number): void {
  const { newest, incoming, broken, retention } = replica;
  page.title('Replica').fields([
    ['state', { text: replica.state, tone: REPLICA_TONES[replica.state] }],
    ['right', replica.right && RIGHTS[replica.right]],
    ['source', replica.sourceName ?? replica.sourceSiteId],
    ['by way of', replica.viaName ?? replica.viaSiteId],
    ['points', String(replica.points)],
    ['keep', retention && retentionLine(retention)],
    [
      'newest',
      newest &&
        `${newest.sequence}, ${newest.consistency}, ${formatTime(newest.cutAtMs)} (${formatAge(newest.cutAtMs, nowMs)})`,
    ],
    ['RPO', rpoLine(replica.rpo)],
    ['clock there', skewCell(newest?.skewMs)],
    ['seed', replica.awaitsSeed && { text: SEED_STATES.awaited, tone: 'warning' }],
    ['receiving', incoming && `${formatBytes(incoming.receivedBytes ?? 0)} so far`],
    ['branches', replica.branches === 0 ? undefined : `${replica.branches}; see warmsite failover list`],
    ['broken', broken && { text: `${broken.message} (${broken.code})`, tone: 'bad' }],
    ['what to do', broken?.hint],
  ]);
  if (!replica.forwards) return;
  page.title('Forwarded to');
  printTargets(page, replica.forwards, nowMs);
  for (const { name, siteId, retention: kept, copyTypes } of replica.forwards) {
    page.fields([[`keep at ${name ?? siteId}`, forwardLine(kept, copyTypes)]]);
  }
}

function forwardLine(kept: Parameters<typeof retentionLine>[0], copyTypes: readonly string[] | undefined) {
  return `${retentionLine(kept)}${copyTypes ? `; of the types ${copyTypes.join(', ')} alone` : ''}`;
}

/** Less than this is the way of the message as much as the clocks. */
