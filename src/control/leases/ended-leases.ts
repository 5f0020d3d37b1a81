import { LATE_MS_MAX } from './lease-wire.ts';

/** A site that somebody trusts as a lender may not run out of memory. */
const MACHINES_OF_A_PEER_MAX = 10_000;

/**
 * Leases that have ended, as their homes said: who asks for one of them anew is heard late, also where nothing was known of them yet. In
 * memory: a question outlives no connection, and that no process, so that one which was asked before this process began is never heard.
 */
export class EndedLeases {
  /** When those began that ended last, by who said so, and by machine. */
  readonly #begunAtMs = new Map<string, Map<string, number>>();

  note(peerId: string, machineId: string, begunAtMs: number): void {
    // An end that is late itself, of leases before those.
    if (this.has(peerId, machineId, begunAtMs)) return;
    const known = this.#begunAtMs.get(peerId) ?? new Map<string, number>();
    this.#begunAtMs.set(peerId, known);
    // What was noted last goes last.
    known.delete(machineId);
    known.set(machineId, begunAtMs);
    const [oldest] = known.keys();
    if (known.size > MACHINES_OF_A_PEER_MAX && oldest !== undefined) known.delete(oldest);
  }

  /** Whether these have ended, or were before those that have; a clock that was set back by more than that asks for new ones. */
  has(peerId: string, machineId: string, begunAtMs: number | undefined): boolean {
    const endedMs = this.#begunAtMs.get(peerId)?.get(machineId);
    if (endedMs === undefined || begunAtMs === undefined) return false;
    const sinceMs = endedMs - begunAtMs;
    return sinceMs >= 0 && sinceMs < LATE_MS_MAX;
  }
}
