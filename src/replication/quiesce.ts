import type { GuestCommandReport, RunningMachine, Standstill } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { Consistency, CopyType, GuestProgram } from '../recovery-point/index.ts';
import type { OwedHooks } from './owed-hooks.ts';
import type { HookReport } from './records.ts';

/** A reason travels in the statement of the point, where it has at most 1000 characters. */
const REASON_MAX = 900;
/** Of what a hook printed, so much is part of the reason. */
const SAID_MAX = 300;

const STANDS_STILL: Readonly<Record<Standstill['why'], string>> = {
  paused: 'the guest stands still: it is paused',
  'no-space': 'the guest stands still: a disk of it has no space left to grow',
  'io-error': 'the guest stands still after an I/O error',
  'shut-down': 'the guest has shut down',
  crashed: 'the guest has crashed',
};

/** What a copy reached, and how its hooks went. */
export interface Quiesced<T> {
  readonly result: T;
  readonly consistency: Consistency;
  readonly degraded?: string;
  readonly frozenMs?: number;
  readonly hooks?: HookReport[];
}

/**
 * Does `work` as a copy type wants it: hooks, freeze, work, thaw, hooks, in the order and with the consequences that
 * docs/consistency.md gives («Hooks»). Whatever guest and agent do, `work` is done; only it can throw, and then the hooks
 * that are due run before this does.
 */
export async function quiesced<T>(o: {
  readonly running: Pick<RunningMachine, 'runInGuest' | 'whileFrozen' | 'standstill'>;
  readonly type: CopyType;
  readonly cutId: string;
  readonly freezeLimitMs: number;
  readonly owed: OwedHooks;
  readonly clock: Clock;
  readonly work: () => Promise<T>;
}): Promise<Quiesced<T>> {
  const { running, owed, work } = o;
  const hooks = o.type.hooks ?? {};
  const hasHooks = Object.keys(hooks).length > 0;
  if (hasHooks || o.type.aim !== 'crash') {
    // It would answer nobody, and do what it was told when it goes on: freeze, say, when nobody waits for it any more.
    const standstill = await running.standstill();
    if (standstill)
      return { result: await work(), consistency: 'crash', degraded: STANDS_STILL[standstill.why] };
  }
  if (!hasHooks) return sealed(o, work);
  const left = await owed.settle(running);
  if (left !== undefined) return { result: await work(), consistency: 'crash', degraded: clipped(left) };

  await owed.owe(o.cutId, hooks);
  const reports: HookReport[] = [];
  const run = async (hook: HookReport['hook'], program: GuestProgram): Promise<HookReport> => {
    const sinceMs = o.clock.monotonicMs();
    const ended = await running.runInGuest(program);
    const report = reportOf(hook, ended, Math.round(o.clock.monotonicMs() - sinceMs));
    reports.push(report);
    return report;
  };
  /** The other hooks, in their order. What could not even begin stays owed, if the first one has begun. */
  const runRest = async (hasBegun: boolean, hasFailed: boolean): Promise<void> => {
    const after = hasBegun && hooks.after ? await run('after', hooks.after) : undefined;
    const isDue = hasFailed || after?.failure !== undefined;
    const onFailure = isDue && hooks.onFailure ? await run('onFailure', hooks.onFailure) : undefined;
    await owed.owe(o.cutId, {
      ...(hasBegun && after?.hasBegun === false ? { after: hooks.after } : {}),
      ...(hasBegun && onFailure?.hasBegun === false ? { onFailure: hooks.onFailure } : {}),
    });
  };

  const before = hooks.before && (await run('before', hooks.before));
  const hasBegun = before?.hasBegun ?? true;
  let reached: Quiesced<T>;
  try {
    reached =
      before?.failure === undefined
        ? await sealed(o, work)
        : { result: await work(), consistency: 'crash', degraded: clipped(hookFailureOf(before)) };
  } catch (error) {
    await runRest(hasBegun, true);
    throw error;
  }
  await runRest(hasBegun, reached.degraded !== undefined);
  return { ...reached, hooks: reports };
}

/** The work as it is done by copies without hooks. */
async function sealed<T>(
  o: {
    readonly running: Pick<RunningMachine, 'runInGuest' | 'whileFrozen'>;
    readonly type: CopyType;
    readonly freezeLimitMs: number;
  },
  work: () => Promise<T>,
): Promise<Quiesced<T>> {
  if (o.type.aim === 'crash') return { result: await work(), consistency: 'crash' };
  const { result, consistent, reason, frozenMs } = await o.running.whileFrozen(o.freezeLimitMs, work);
  return {
    result,
    consistency: consistent ? o.type.aim : 'crash',
    ...(consistent ? {} : { degraded: clipped(reason ?? 'the guest was not frozen') }),
    ...(frozenMs === undefined ? {} : { frozenMs }),
  };
}

function reportOf(hook: HookReport['hook'], ended: GuestCommandReport, tookMs: number): HookReport {
  if (ended.outcome !== 'ended') {
    return { hook, tookMs, hasBegun: ended.outcome === 'lost', failure: ended.reason };
  }
  const { exitCode, output } = ended;
  return {
    ...{ hook, tookMs, hasBegun: true, exitCode, output },
    ...(exitCode === 0 ? {} : { failure: `it ended with exit code ${exitCode}` }),
  };
}

/** A failed hook as a sentence. */
export function hookFailureOf({ hook, failure, output = '' }: HookReport): string {
  const said = output.trim().slice(0, SAID_MAX).toWellFormed();
  return `the ${hook} hook failed: ${failure}${said === '' ? '' : `: ${said}`}`;
}

function clipped(reason: string): string {
  return reason.length <= REASON_MAX ? reason : `${reason.slice(0, REASON_MAX).toWellFormed()} …`;
}
