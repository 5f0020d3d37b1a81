/** How far the ending of a guest by its own doing has come. */
export interface Asking {
  /** Since it began, in milliseconds. */
  readonly atMs: number;
  /** How long it may take in all. */
  readonly graceMs: number;
  /** `silent`: there is none, or it does not take the request. That it has taken it does not say that it does anything. */
  readonly agent: 'unasked' | 'silent' | 'has-taken-it';
  readonly isButtonPressed: boolean;
}

export type NextAsk =
  | { readonly act: 'ask-agent'; readonly limitMs: number }
  | { readonly act: 'press-button' }
  /** For so long at most: it may end meanwhile. */
  | { readonly act: 'wait'; readonly forMs: number }
  | { readonly act: 'give-up' };

/** An agent that is there takes a request at once. */
const AGENT_LIMIT_MS = 3_000;

/**
 * What is to be done next about a guest that is to end by itself and still runs. Pure. Its agent is asked first, because that shuts down
 * also where nobody listens to a power button. That is pressed when the agent does not take the request, or when half of the time has passed:
 * an agent that takes it and does nothing, or a shutdown that hangs before the guest hears of it, is nothing to wait for until the end.
 */
export function nextAsk({ atMs, graceMs, agent, isButtonPressed }: Asking): NextAsk {
  if (atMs >= graceMs) return { act: 'give-up' };
  const halfMs = graceMs / 2;
  if (agent === 'unasked') return { act: 'ask-agent', limitMs: Math.min(AGENT_LIMIT_MS, halfMs) };
  const buttonAtMs = agent === 'silent' ? 0 : halfMs;
  if (isButtonPressed) return { act: 'wait', forMs: graceMs - atMs };
  return atMs >= buttonAtMs ? { act: 'press-button' } : { act: 'wait', forMs: buttonAtMs - atMs };
}
