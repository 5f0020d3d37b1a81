import type { LoopMachine } from '../../../src/control/machines/replication-loop.ts';
import type { MachineEvent } from '../../../src/hypervisor/index.ts';
import { Failure } from '../../../src/lib/errors.ts';
import type {
  CutRecord,
  GuestStandstill,
  MachinePresence,
  MachineRecord,
  Protection,
  ReplicateOutcome,
  ReplicationTarget,
  TargetProgress,
  TargetRecord,
} from '../../../src/replication/index.ts';

export const MACHINE_ID = '01hzzzzzzzzzzzzzzzzzzzzzzz';
export const SITE_ID = '01hyyyyyyyyyyyyyyyyyyyyyyy';

/** A protected machine without disks: cuts and acknowledgements are counted, and fail as told. */
export class FakeMachine implements LoopMachine {
  presence: MachinePresence = { state: 'running', processId: 1 };
  /** What the next `look` finds. */
  found: MachinePresence = this.presence;
  record: MachineRecord;
  cuts: CutRecord[] = [];
  target: TargetRecord = { siteId: SITE_ID, acknowledged: null, session: null };
  sending: TargetProgress['sending'];
  hasChanges = false;
  changeChecks = 0;
  looks = 0;
  sendAttempts = 0;
  cutFailure: Failure | undefined;
  /** Thrown by `replicate` until it is taken away. */
  sendFailure: Error | undefined;
  readonly made: string[] = [];
  running: LoopMachine['running'];
  continued = 0;
  right: LoopMachine['right'] = { untold: [], tellSuperseded: async () => true };
  readonly #wallMs: () => number;
  readonly #listeners = new Set<(event: MachineEvent) => void>();

  constructor(protection: Partial<Protection>, wallMs: () => number) {
    this.#wallMs = wallMs;
    this.record = {
      machineId: MACHINE_ID,
      name: 'box',
      disks: [{ diskId: 'disk0', deviceName: 'dev', chain: [], sizeBytes: 512 }],
      protection: {
        targetSiteId: SITE_ID,
        schedules: [],
        retention: { types: { crash: 1, app: 1 } },
        freezeLimitMs: 1000,
        compression: false,
        ...protection,
      },
    } as unknown as MachineRecord;
  }

  get targets(): readonly TargetProgress[] {
    return [{ siteId: SITE_ID, record: this.target, unsent: this.unsent, sending: this.sending }];
  }

  get unsent(): readonly CutRecord[] {
    return this.cuts.filter(({ ordinal }) => ordinal > (this.target.acknowledged?.ordinal ?? 0));
  }

  chain() {
    return [{ path: '/tip', format: 'qcow2' as const }];
  }

  async look(): Promise<MachinePresence> {
    this.looks += 1;
    this.presence = this.found;
    return this.presence;
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Its guest stops: `disk0` is what failed, if something has. */
  stop(why: GuestStandstill['why']): void {
    const diskIds = why === 'no-space' || why === 'io-error' ? ['disk0'] : [];
    this.found = { state: 'running', processId: 1, standstill: { why, diskIds } };
    this.tell({ name: 'STOP', data: {} });
  }

  /** Its guest goes on. */
  resume(): void {
    this.presence = { state: 'running', processId: 1 };
    this.found = this.presence;
    this.tell({ name: 'RESUME', data: {} });
  }

  async continueGuest(): Promise<boolean> {
    if (this.found.state !== 'running' || this.found.standstill?.why !== 'no-space') return false;
    this.continued += 1;
    this.resume();
    return true;
  }

  /** The process of the machine ends. */
  end(): void {
    this.presence = { state: 'stopped' };
    this.found = this.presence;
    this.tell({ name: 'WARMSITE_GONE', data: {} });
  }

  tell(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  async cut(copyType: string): Promise<CutRecord> {
    if (this.cutFailure) throw this.cutFailure;
    const ordinal = this.cuts.length + 1;
    const cut = {
      ...{ cutId: `cut-${ordinal}`, ordinal, state: 'sealed', copyType, consistency: 'crash' },
      ...{
        cutAtMs: this.#wallMs(),
        pauseMs: 1,
        sealed: {},
        tips: { disk0: this.chain()[0] },
        merged: false,
        missed: [],
      },
    } as CutRecord;
    this.cuts = [...this.cuts, cut];
    this.made.push(copyType);
    this.hasChanges = false;
    return cut;
  }

  async hasUncutChanges(): Promise<boolean> {
    this.changeChecks += 1;
    return this.hasChanges;
  }

  async replicate(_target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    this.sendAttempts += 1;
    signal?.throwIfAborted();
    if (this.sendFailure) throw this.sendFailure;
    const next = this.unsent[0];
    if (!next) return { kind: 'nothing' };
    const { cutId: pointId, ordinal } = next;
    const acknowledgement = {
      ...{ level: 'verified' as const, pointId, sequence: ordinal, statementDigest: '' },
      publishedAtMs: this.#wallMs(),
    };
    const { sequence, statementDigest } = acknowledgement;
    const { cutAtMs } = next;
    const acknowledged = { pointId, ordinal, sequence, statementDigest, atMs: this.#wallMs(), cutAtMs };
    this.target = { ...this.target, acknowledged };
    return { kind: 'sent', acknowledgement, wireBytes: 1 };
  }
}

export function failure(code: string, retry: 'never' | 'later'): Failure {
  return new Failure(
    code,
    { kind: retry === 'never' ? 'refused' : 'unavailable', retry, remedy: 'Wait.' },
    code,
  );
}
