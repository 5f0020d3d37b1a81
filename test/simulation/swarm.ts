import type { RetentionPolicy } from '../../src/recovery-point/index.ts';
import type { NetWeather } from './sim-net.ts';
import type { SimRandom } from './sim-random.ts';

/** What one seed is about: few faults or many, and which; no seed has all of them at their worst. */
export interface Swarm {
  readonly disks: readonly { readonly diskId: string; readonly sizeBytes: number }[];
  readonly originFormat: 'raw' | 'qcow2';
  readonly retention: RetentionPolicy;
  readonly weather: NetWeather;
  /** Pause between copies, in milliseconds. */
  readonly cutEveryMs: number;
  /** Pause between guest writes. */
  readonly writeEveryMs: number;
  /** Probability for each step that something of this kind happens. */
  readonly rates: Readonly<Record<WorldEvent, number>>;
  /** Probability that a command to the machine goes wrong. */
  readonly mishaps: number;
  /** Probability that a disk is made larger before the guest's next act. */
  readonly growth: number;
  /** Probability that a machine that is off gets a disk more, whenever it is looked at. */
  readonly arrivals: number;
  /** Probability that a machine is to be offered to a recovery site, whenever it is looked at; then it is taken back. */
  readonly cessions: number;
  /** How many recovery sites there are. */
  readonly targets: 1 | 2;
  /** How long the second site may be out of reach: now and then so long that the first leaves it behind. */
  readonly farMsMax: number;
  /** So many times the usual number of steps. */
  readonly lengths: number;
}

export const WORLD_EVENTS = [
  'kill-protected-site',
  'kill-recovery-site',
  'cut-power-protected',
  'cut-power-recovery',
  'kill-machine',
  'fault-protected-disk',
  'fault-recovery-disk',
  'partition',
  'wall-clock',
  'write-back',
] as const;
export type WorldEvent = (typeof WORLD_EVENTS)[number];

const USUAL_RATE: Readonly<Record<WorldEvent, number>> = {
  'kill-protected-site': 1 / 500,
  'kill-recovery-site': 1 / 500,
  'cut-power-protected': 1 / 900,
  'cut-power-recovery': 1 / 900,
  'kill-machine': 1 / 900,
  'fault-protected-disk': 1 / 400,
  'fault-recovery-disk': 1 / 400,
  partition: 1 / 800,
  'wall-clock': 1 / 500,
  'write-back': 1 / 20,
};

type Sites = Pick<Swarm, 'targets' | 'farMsMax' | 'lengths'>;
export const ONE_SITE: Sites = { targets: 1, farMsMax: 300, lengths: 1 };
const TWO_SITES: Sites = { ...ONE_SITE, targets: 2 };
/** The second site is out of reach for so long that the first leaves it behind; little else happens then. */
const FAR_SITE: Sites = { ...TWO_SITES, farMsMax: 10_000, lengths: 5 };
const CALM = { cutEveryMs: 300, mishaps: 0, growth: 0 };

export function chooseSwarm(random: SimRandom): Swarm {
  const rates = Object.fromEntries(
    WORLD_EVENTS.map((event) => [event, USUAL_RATE[event] * random.pick([0, 0.3, 1, 3])]),
  ) as Record<WorldEvent, number>;
  const disks = [{ diskId: 'system', sizeBytes: random.pick([540_672, 262_144, 135_168]) }];
  if (random.chance(0.35)) disks.push({ diskId: 'data', sizeBytes: 196_608 });
  return {
    disks,
    originFormat: random.pick(['raw', 'qcow2']),
    retention: { types: { crash: random.between(1, 4), app: random.between(0, 2) } },
    weather: {
      lost: random.pick([0, 0, 0.02, 0.15]),
      doubled: random.pick([0, 0.05, 0.3]),
      cut: random.pick([0, 0, 0.02, 0.1]),
      late: random.pick([0, 0, 0.1, 0.3]),
    },
    cutEveryMs: random.pick([15, 40, 120]),
    writeEveryMs: random.pick([3, 8, 25]),
    rates,
    mishaps: random.pick([0, 0, 0.02, 0.1]),
    growth: random.pick([0, 0, 0, 0.02]),
    arrivals: random.pick([0, 0, 0.1]),
    ...sitesOf(random, rates),
    cessions: random.pick([0, 0, 0.1]),
  };
}

function sitesOf(random: SimRandom, rates: Swarm['rates']): Sites & Partial<Swarm> {
  const sites = random.pick([ONE_SITE, ONE_SITE, ONE_SITE, ONE_SITE, TWO_SITES, TWO_SITES, FAR_SITE]);
  if (sites !== FAR_SITE) return sites;
  const calm = Object.fromEntries(Object.entries(rates).map(([event, rate]) => [event, rate / 5]));
  return { ...sites, ...CALM, rates: { ...(calm as Swarm['rates']), partition: 1 / 400 } };
}
