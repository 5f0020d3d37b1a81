import { chooseRates } from '../life.ts';
import type { SimRandom } from '../sim-random.ts';
import { type CallWeather, chooseCallWeather } from './sim-calls.ts';

/** What the world does to the sites, or people ask of them. */
export const LEASE_EVENTS = [
  'kill-home',
  'kill-recovery',
  'kill-witness',
  'close-site',
  'cut-power-home',
  'cut-power-recovery',
  'cut-power-witness',
  'isolate',
  'partition',
  'stall',
  'sleep',
  'kill-guard',
  'end-guest',
  'fault-disk',
  'wall-clock',
  'fail-over',
  'cancel',
  'undo',
  'change-leases',
  'word',
] as const;
export type LeaseEvent = (typeof LEASE_EVENTS)[number];

/** Probability for each turn. */
const USUAL_RATE: Readonly<Record<LeaseEvent, number>> = {
  'kill-home': 1 / 500,
  'kill-recovery': 1 / 500,
  'kill-witness': 1 / 600,
  'close-site': 1 / 900,
  'cut-power-home': 1 / 1200,
  'cut-power-recovery': 1 / 1500,
  'cut-power-witness': 1 / 1500,
  isolate: 1 / 700,
  partition: 1 / 400,
  stall: 1 / 900,
  sleep: 1 / 1200,
  'kill-guard': 1 / 600,
  'end-guest': 1 / 1500,
  'fault-disk': 1 / 500,
  'wall-clock': 1 / 600,
  'fail-over': 1 / 400,
  cancel: 1 / 900,
  undo: 1 / 300,
  'change-leases': 1 / 1500,
  word: 1 / 250,
};

/** What one life is about. */
export interface LeaseSwarm {
  readonly leaseMs: number;
  readonly weather: CallWeather;
  readonly rates: Readonly<Record<LeaseEvent, number>>;
  /** Parts in a thousand by which clocks of hosts run too fast or too slow; two of them differ by a hundredth at most. */
  readonly drift: readonly [number, number, number];
}

const WITH_A_WORD = ['word'] as const;

/** What takes the place of what a seed would choose. */
export type FixedLeaseSwarm = Partial<Omit<LeaseSwarm, 'rates'>> & {
  readonly rates?: Partial<LeaseSwarm['rates']>;
};

export function chooseLeaseSwarm(random: SimRandom): LeaseSwarm {
  const rates = chooseRates(random, USUAL_RATE);
  // Who is asked gets it wrong: most lives hold what is promised without anybody's word.
  if (random.chance(0.7)) for (const event of WITH_A_WORD) rates[event] = 0;
  return {
    leaseMs: random.pick([4_000, 6_000, 10_000, 30_000]),
    weather: chooseCallWeather(random),
    rates,
    drift: [random.between(-4, 4), random.between(-4, 4), random.between(-4, 4)],
  };
}
