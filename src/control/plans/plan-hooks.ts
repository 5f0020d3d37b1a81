import type { HookOutcome, PlanHook, PlanRun, RunStep } from '../../api/index.ts';
import type { SitePrograms } from '../../failover/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import { hooksOf } from '../../plan/index.ts';

/** What a hook is run around: a machine, or the whole run. */
export interface HookPlace {
  readonly when: HookOutcome['when'];
  /** The step of the machine; absent for the run. */
  readonly step?: RunStep;
}

const LIMIT_MS_DEFAULT = 60_000;

/** Runs the operator's programs that a plan names around its machines; each that has been run is told at once. */
export class PlanHooks {
  readonly #o: { programs: Pick<SitePrograms, 'run'>; clock: Clock; siteName: string };

  constructor(o: { programs: Pick<SitePrograms, 'run'>; clock: Clock; siteName: string }) {
    this.#o = o;
  }

  /**
   * Runs what is still to be run at a place, one after the other, until one fails that is not optional: why, or undefined. What has passed
   * already is not run again; what was being run when a site ended is. Rejects only when `signal` is aborted.
   */
  async run(
    run: PlanRun,
    place: HookPlace,
    told: (outcome: HookOutcome) => Promise<void>,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { when, step } = place;
    const before = (step ? step.hooks : run.hooks) ?? [];
    for (const [index, hook] of hooksOf(run.document, step?.machine, when, run.request.mode).entries()) {
      const has = before.some((one) => one.when === when && one.index === index && one.outcome === 'passed');
      if (has) continue;
      const outcome = await this.#runOne(run, place, hook, index, signal);
      await told(outcome);
      if (outcome.outcome !== 'passed' && !hook.optional) {
        return `the hook ${hook.program} ${when} ${step ? 'it' : 'the run'}: ${saidOf(outcome)}`;
      }
    }
    return undefined;
  }

  async #runOne(
    run: PlanRun,
    { when, step }: HookPlace,
    hook: PlanHook,
    index: number,
    signal: AbortSignal,
  ): Promise<HookOutcome> {
    const { programs, clock, siteName } = this.#o;
    const sinceMs = clock.monotonicMs();
    const took = () => Math.round(clock.monotonicMs() - sinceMs);
    const about = { when, index, program: hook.program };
    try {
      const { outcome, exitCode, output } = await programs.run(hook.program, {
        ...{ arguments: hook.arguments ?? [], limitMs: hook.limitMs ?? LIMIT_MS_DEFAULT, signal },
        environment: {
          ...{ WARMSITE_SITE: siteName, WARMSITE_PLAN: run.document.plan, WARMSITE_RUN: run.runId },
          ...{ WARMSITE_MODE: run.request.mode, WARMSITE_WHEN: when },
          ...(step ? { WARMSITE_MACHINE: step.machine, WARMSITE_MACHINE_ID: step.machineId } : {}),
          ...(step?.branchId ? { WARMSITE_BRANCH: step.branchId } : {}),
        },
      });
      const ended = outcome === 'out-of-time' ? outcome : exitCode === 0 ? 'passed' : 'failed';
      return { ...about, outcome: ended, exitCode, output, tookMs: took() };
    } catch (error) {
      if (signal.aborted || !isFailure(error)) throw error;
      return { ...about, outcome: 'not-run', output: error.message, tookMs: took() };
    }
  }
}

function saidOf({ outcome, exitCode, output = '', tookMs }: HookOutcome): string {
  const said = output.trim().slice(0, 300);
  switch (outcome) {
    case 'out-of-time':
      return `it had not ended after ${tookMs} ms, and was killed${said === '' ? '' : `: ${said}`}`;
    case 'failed':
      return `exit code ${exitCode}${said === '' ? '' : `: ${said}`}`;
    default:
      return said;
  }
}
