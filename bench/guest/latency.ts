import { inGuest } from '../../test/support/lab-sites.ts';

const ROUND_MS = 10_000;

export const PATTERNS = ['random4k', 'seq64k'] as const;
export type Pattern = (typeof PATTERNS)[number];
export const BYTES_OF_WRITE: Readonly<Record<Pattern, number>> = { random4k: 4096, seq64k: 65_536 };

/** Durable writes, one after the other, into the first `spanBytes` of a disk of the guest. */
export interface Writes {
  readonly device: string;
  readonly pattern: Pattern;
  readonly spanBytes: number;
  readonly count: number;
  readonly seed: number;
}

/** What `labtool latency` prints, in µs, and more that we do not look at. */
export interface Latency {
  readonly count: number;
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
}

export async function latency(agentPath: string, o: Writes): Promise<Latency> {
  const said = await inGuest(
    agentPath,
    `labtool latency --device ${o.device} --pattern ${o.pattern} --count ${o.count} --span ${o.spanBytes} --seed ${o.seed}`,
  );
  return JSON.parse(said);
}

/** So many writes as take about as long as a round shall. */
export async function countOfRound(
  agentPath: string,
  o: Omit<Writes, 'count' | 'seed'>,
  roundMs = ROUND_MS,
): Promise<number> {
  const { meanUs } = await latency(agentPath, { ...o, count: 1000, seed: 0 });
  return Math.max(1, Math.round((roundMs * 1000) / meanUs));
}
