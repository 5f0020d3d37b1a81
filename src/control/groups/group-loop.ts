import type { GroupCutView } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { Mutex } from '../../lib/mutex.ts';
import type { CopySchedule, Zones } from '../../recovery-point/index.ts';
import type { GroupCutOutcome } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Wakeup } from '../base/wakeup.ts';
import { runWorker } from '../base/worker.ts';
import { controlFailure } from '../errors.ts';
import { CopyScheduler } from '../machines/copy-scheduler.ts';
import { type GroupRecord, schedulesOf } from './group-record.ts';

export interface GroupLoopTools {
  readonly clock: Clock;
  readonly zones: Zones;
  readonly log: Log;
  readonly alerts: AlertSink;
  /** Makes one cut of the group as it is now. */
  readonly cut: (record: GroupRecord, copyType: string) => Promise<GroupCutOutcome>;
}

/** Cuts one group when a cut is due, one at a time, and tells what became of it. */
export class GroupLoop {
  readonly #tools: GroupLoopTools;
  readonly #bell: Wakeup;
  readonly #stop = new AbortController();
  readonly #cutting = new Mutex();
  readonly #scheduler: CopyScheduler;
  #record: GroupRecord;
  #plan: { readonly schedules: CopySchedule[] };
  #lastCut: GroupCutView | undefined;
  #work: Promise<unknown> = Promise.resolve();

  constructor(record: GroupRecord, tools: GroupLoopTools) {
    this.#tools = tools;
    this.#record = record;
    this.#plan = { schedules: schedulesOf(record) };
    this.#bell = new Wakeup(tools.clock);
    this.#scheduler = new CopyScheduler({
      ...{ clock: tools.clock, zones: tools.zones },
      machine: {
        protection: () => this.#plan,
        lastCutAtMs: () => this.#lastCut?.atMs,
        hasCopy: () => this.#lastCut !== undefined,
        isAcknowledged: () => true,
      },
    });
  }

  get record(): GroupRecord {
    return this.#record;
  }

  /** The last cut of this process. */
  get lastCut(): GroupCutView | undefined {
    return this.#lastCut;
  }

  get nextDue(): { copyType: string; inMs: number } | undefined {
    const due = this.#scheduler.next();
    if (!due || !Number.isFinite(due.dueAtMs)) return undefined;
    return {
      copyType: due.copyType,
      inMs: Math.max(0, due.dueAtMs - this.#tools.clock.monotonicMs()),
    };
  }

  start(): void {
    const alert = `worker-group:${this.#record.groupId}`;
    const fields = () => ({ group: this.#record.name });
    const about = { alert, event: 'group.worker-broke', fields };
    const { signal } = this.#stop;
    this.#work = runWorker(this.#tools, about, () => this.#keepCutting(signal), signal);
  }

  /** A cut under way is waited for: no machine is left standing. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#work;
    await this.#cutting.run(async () => undefined);
  }

  change(record: GroupRecord): void {
    this.#record = record;
    this.#plan = { schedules: schedulesOf(record) };
    this.#bell.ring();
  }

  async #keepCutting(signal: AbortSignal): Promise<never> {
    for (;;) {
      const due = this.#scheduler.next();
      const inMs = due ? due.dueAtMs - this.#tools.clock.monotonicMs() : Number.POSITIVE_INFINITY;
      if (due && inMs <= 0 && !signal.aborted) {
        this.#scheduler.made(due.copyType);
        await this.cutNow(due.copyType);
      } else {
        await this.#bell.wait(Math.min(inMs, this.#scheduler.patienceMs), signal);
      }
    }
  }

  cutNow(copyType: string): Promise<GroupCutView> {
    return this.#cutting.run(async () => {
      const atMs = this.#tools.clock.wallMs();
      const outcome = await this.#tools.cut(this.#record, copyType);
      this.#lastCut = cutViewOf(outcome, copyType, atMs);
      this.#report(outcome);
      return this.#lastCut;
    });
  }

  #report({ cutId, apart, pauseMs }: GroupCutOutcome): void {
    const { groupId, name } = this.#record;
    const key = `group:${groupId}`;
    this.#tools.log.info('group.cut', { group: name, cutId, pauseMs, ...(apart ? { apart } : {}) });
    if (apart === undefined) this.#tools.alerts.clear(key);
    else this.#tools.alerts.raise(key, 'warning', controlFailure('GROUP_CUT_APART', `${name}: ${apart}`));
  }
}

function cutViewOf(outcome: GroupCutOutcome, copyType: string, atMs: number): GroupCutView {
  const { cutId, apart, pauseMs, members } = outcome;
  return {
    ...{ cutId, copyType, atMs, pauseMs, together: apart === undefined },
    ...(apart === undefined ? {} : { reason: apart }),
    members: members.map(({ machineId, name, cut, error }) => ({
      ...{ machineId, name },
      ...(cut ? { pointId: cut.cutId } : {}),
      ...(isFailure(error) ? { error: JSON.parse(JSON.stringify(error.toJSON())) } : {}),
    })),
  };
}
