import { type CallWeather, chooseCallWeather } from '../leases/sim-calls.ts';
import { chooseRates } from '../life.ts';
import type { SimRandom } from '../sim-random.ts';

/** What the world does to the sites. */
export const HOME_EVENTS = [
  'kill-site',
  'close-site',
  'cut-power',
  'partition',
  'stall',
  'end-guest',
  'fault-disk',
  'wall-clock',
] as const;
export type HomeEvent = (typeof HOME_EVENTS)[number];

/** What people do when they look, each where it makes sense, with its probability. */
export const HOME_ACTS = [
  'start',
  'stop',
  'copy',
  'protect',
  'cede',
  'withdraw',
  'take',
  'restart',
  'undo',
  'adopt',
  'word',
  'unprotect',
  'remove',
  'clean-up',
] as const;
export type HomeAct = (typeof HOME_ACTS)[number];

const USUAL_RATE: Readonly<Record<HomeEvent, number>> = {
  'kill-site': 1 / 600,
  'close-site': 1 / 900,
  'cut-power': 1 / 1200,
  partition: 1 / 1000,
  stall: 1 / 900,
  'end-guest': 1 / 1500,
  'fault-disk': 1 / 700,
  'wall-clock': 1 / 800,
};

const USUAL_CHANCE: Readonly<Record<HomeAct, number>> = {
  start: 0.8,
  stop: 0.02,
  copy: 0.2,
  protect: 0.3,
  cede: 0.3,
  withdraw: 0.1,
  take: 0.6,
  restart: 0.5,
  undo: 0.1,
  adopt: 0.6,
  word: 0.5,
  unprotect: 0.01,
  remove: 0.25,
  'clean-up': 0.02,
};

/** What one life is about. */
export interface HomeSwarm {
  readonly weather: CallWeather;
  /** Probability for each turn. */
  readonly rates: Readonly<Record<HomeEvent, number>>;
  /** Probability for each look of somebody. */
  readonly chances: Readonly<Record<HomeAct, number>>;
  readonly writeEveryMs: number;
}

/** What takes the place of what a seed would choose. */
export interface FixedHomeSwarm {
  readonly rates?: Partial<HomeSwarm['rates']>;
  readonly chances?: Partial<HomeSwarm['chances']>;
}

export function chooseHomeSwarm(random: SimRandom): HomeSwarm {
  const rates = chooseRates(random, USUAL_RATE);
  const chances = Object.fromEntries(
    HOME_ACTS.map((act) => [act, Math.min(1, USUAL_CHANCE[act] * random.pick([0.3, 1, 2]))]),
  ) as Record<HomeAct, number>;
  // Who is asked gets it wrong: many lives hold what is promised without anybody's word.
  if (random.chance(0.4)) chances.word = 0;
  return {
    weather: chooseCallWeather(random),
    rates,
    chances,
    writeEveryMs: random.pick([200, 1000, 5000]),
  };
}
