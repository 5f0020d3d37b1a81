import { createHash } from 'node:crypto';
import type { PlanDocument } from '../api/index.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';

/** Which of two versions of a plan comes after the other; pure. docs/plans.md, «At both sites». */

/** A version of a plan. */
export interface PlanVersion {
  /** One more than the highest that its maker knew. */
  readonly counter: number;
  /** SHA-256 of the plan, in hexadecimal; of nothing where it was removed. */
  readonly digest: string;
  /** The versions that it takes the place of, the newest last; not more than are likely to be met. */
  readonly former: readonly string[];
  readonly storedAtMs: number;
  /** Absent: it was removed. */
  readonly document?: PlanDocument;
}

/** What a site has of a plan. */
export interface HeldPlan extends PlanVersion {
  readonly plan: string;
  /** Another version, which neither comes before nor after: both sites have changed it. */
  readonly conflict?: PlanVersion & { readonly siteId: string };
}

const FORMER_MAX = 64;

export function planDigest(document: PlanDocument | undefined): string {
  return createHash('sha256')
    .update(document ? canonicalJson(document as Json) : '')
    .digest('hex');
}

function idOf({ counter, digest }: Pick<PlanVersion, 'counter' | 'digest'>): string {
  return `${counter}-${digest}`;
}

/** A plan as somebody stores it at this site, or removes it; what it was in conflict with is settled by that. */
export function afterPut(
  plan: string,
  own: HeldPlan | undefined,
  document: PlanDocument | undefined,
  storedAtMs: number,
): HeldPlan {
  const before = [...(own ? [own] : []), ...(own?.conflict ? [own.conflict] : [])];
  const counter = Math.max(0, ...before.map((version) => version.counter)) + 1;
  const former = formerOf(before.flatMap((version) => [...version.former, idOf(version)]));
  return {
    ...{ plan, counter, digest: planDigest(document), former, storedAtMs },
    ...(document ? { document } : {}),
  };
}

/**
 * What a site has after another one has told what that has. `taken`: it is the other one's now. `same`: it says the same. `older`: the other one
 * has to take what is here. `conflict`: each was changed without the other; what is here stays, and the other one is kept beside it.
 */
export function afterHearing(
  own: HeldPlan | undefined,
  told: PlanVersion & Pick<HeldPlan, 'plan'>,
  siteId: string,
): { readonly held: HeldPlan; readonly outcome: 'taken' | 'same' | 'older' | 'conflict' } {
  if (!own || told.former.includes(idOf(own))) return { held: told, outcome: 'taken' };
  if (own.digest === told.digest) {
    const first = own.counter >= told.counter ? own : told;
    const former = formerOf([
      ...own.former,
      ...told.former,
      ...[own, told].filter((one) => one !== first).map(idOf),
    ]);
    const { conflict } = own;
    // Who was in conflict with this site says the same now; a third one may not.
    const left = conflict && conflict.siteId !== siteId ? { conflict } : {};
    const held = {
      ...versionOf(first),
      plan: own.plan,
      ...left,
      former: former.filter((id) => id !== idOf(first)),
    };
    return { held, outcome: 'same' };
  }
  if (own.former.includes(idOf(told))) return { held: own, outcome: 'older' };
  return { held: { ...own, conflict: { ...versionOf(told), siteId } }, outcome: 'conflict' };
}

function formerOf(ids: readonly string[]): readonly string[] {
  return [...new Set(ids)].slice(-FORMER_MAX);
}

function versionOf({ counter, digest, former, storedAtMs, document }: PlanVersion): PlanVersion {
  return { counter, digest, former, storedAtMs, ...(document ? { document } : {}) };
}
