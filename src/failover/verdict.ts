import type { ProbeResult } from '../probe/index.ts';
import { distinctColours, type Picture } from './picture.ts';

/** What became of the word that the guest was to draw. `not-drawn`: it has no agent, or cannot write to its console. */
export type NonceVerdict = 'read' | 'not-read' | 'not-drawn';

/** `unproven`: nothing was asked, so that nothing is known but that the process runs. */
export interface BootVerdict {
  readonly verdict: 'passed' | 'failed' | 'unproven';
  readonly reasons: readonly string[];
}

/**
 * Whether what was seen of a boot shows that the guest runs. Pure. Every probe must pass. For a proof, moreover, a
 * picture must have been taken and show something, and a guest that said it had drawn the nonce must show it; a
 * failover is not undone because a server's screen is dark.
 */
export function verdictOf(seen: {
  readonly probes: readonly ProbeResult[];
  /** Why its NICs do not have the addresses that they were to have. */
  readonly notReaddressed?: string | undefined;
  readonly screen?: { readonly picture: Picture | undefined; readonly nonce: NonceVerdict };
}): BootVerdict {
  const reasons: string[] = [];
  for (const { probe, passed, reason } of seen.probes) {
    if (!passed) reasons.push(`probe ${probe.kind}: ${reason}`);
  }
  if (seen.notReaddressed !== undefined) reasons.push(`addresses: ${seen.notReaddressed}`);
  if (seen.screen) reasons.push(...objectionsTo(seen.screen));
  if (reasons.length > 0) return { verdict: 'failed', reasons };
  if (seen.probes.length === 0) return { verdict: 'unproven', reasons: ['no probe was asked'] };
  return { verdict: 'passed', reasons };
}

function objectionsTo(screen: { picture: Picture | undefined; nonce: NonceVerdict }): string[] {
  const reasons: string[] = [];
  if (!screen.picture) reasons.push('no console picture could be taken');
  else if (distinctColours(screen.picture, 2) < 2) reasons.push('the console picture is of one colour');
  if (screen.nonce === 'not-read') reasons.push('the word that the guest drew is not on its screen');
  return reasons;
}
