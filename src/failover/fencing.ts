import type { BoundedEnd } from '../lib/bounded-program.ts';
import type { Clock } from '../lib/clock.ts';
import { failoverFailure } from './errors.ts';
import type { SitePrograms } from './site-programs.ts';

/** A program of the operator that makes sure that the other side is down. */
export interface FencingProgram {
  readonly program: string;
  readonly arguments?: readonly string[];
  /** Two minutes if absent. */
  readonly limitMs?: number;
}

/** What must not run any more before the right to a machine is taken. */
export interface FencedSide {
  readonly machineId: string;
  readonly machineName: string;
  /** Where it ran when it was last heard of. */
  readonly siteId: string;
  /** The one that ends: of the highest claim that is known here. */
  readonly epoch: number;
}

/** That a program has made sure of it. */
export interface FencingEvidence {
  readonly program: string;
  /** On this site's wall clock. */
  readonly beganAtMs: number;
  readonly tookMs: number;
  /** The end of what it printed. */
  readonly output: string;
}

/** Has the other side fenced. Resolves when that is done and on record, durably; rejects in every other case. */
export interface Fencing {
  fence(side: FencedSide): Promise<void>;
}

const LIMIT_MS_DEFAULT = 120_000;
const SAID_CHARACTERS_MAX = 300;

/** Why a program that has ended so has fenced nothing; undefined: it has. Pure. */
export function lackOfFence({ outcome, exitCode, output }: BoundedEnd, limitMs: number): string | undefined {
  const tail = output.trim().slice(-SAID_CHARACTERS_MAX);
  const said = tail === '' ? '' : `: ${tail}`;
  if (outcome === 'out-of-time') return `it had not ended after ${limitMs} ms, and was killed${said}`;
  return exitCode === 0 ? undefined : `it ended with exit code ${exitCode}${said}`;
}

/**
 * Runs a fencing program to its end. Throws FAILOVER_NOT_FENCED for every end but exit code 0 within its time, and as `SitePrograms.run`; what it
 * had begun by then may be so.
 */
export async function fenceBy(
  { programs, clock }: { readonly programs: Pick<SitePrograms, 'run'>; readonly clock: Clock },
  { program, arguments: args = [], limitMs = LIMIT_MS_DEFAULT }: FencingProgram,
  o: {
    readonly side: FencedSide;
    readonly environment: Readonly<Record<string, string>>;
    readonly signal?: AbortSignal;
  },
): Promise<FencingEvidence> {
  const { machineId, machineName, siteId, epoch } = o.side;
  const beganAtMs = clock.wallMs();
  const sinceMs = clock.monotonicMs();
  const end = await programs.run(program, {
    ...{ arguments: args, limitMs, keeps: 'end' },
    environment: {
      ...{ WARMSITE_MACHINE: machineName, WARMSITE_MACHINE_ID: machineId },
      ...{ WARMSITE_OTHER_SITE_ID: siteId, WARMSITE_EPOCH: String(epoch), ...o.environment },
    },
    ...(o.signal ? { signal: o.signal } : {}),
  });
  const lack = lackOfFence(end, limitMs);
  if (lack !== undefined) {
    const said = `${machineName} may still run at site ${siteId}: the fencing program ${program} has not made sure that it does not, because ${lack}`;
    throw failoverFailure('FAILOVER_NOT_FENCED', said, {
      context: { program, siteId, outcome: end.outcome, exitCode: end.exitCode },
    });
  }
  return {
    ...{ program, beganAtMs, output: end.output },
    tookMs: Math.round(clock.monotonicMs() - sinceMs),
  };
}
