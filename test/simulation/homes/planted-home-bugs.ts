import { withoutSync } from '../changed-files.ts';
import type { HomeWrappers } from './home-site.ts';
import type { FixedHomeSwarm } from './home-swarm.ts';

export interface PlantedHomeBug {
  readonly name: string;
  readonly wrap: HomeWrappers;
  /** What the simulation must say. */
  readonly expects: RegExp;
  /** Tried first, as there are lives that take seconds and find nothing. Default 1. */
  readonly firstSeed?: number;
  /** What the life is about in which it is found soon. */
  readonly swarm?: FixedHomeSwarm;
}

const OFTEN_AWAY: FixedHomeSwarm = { rates: { 'cut-power': 1 / 300 }, chances: { word: 1 } };

/** Mistakes that somebody could make, each of which the simulation must find within its seeds. */
export const PLANTED_HOME_BUGS: readonly PlantedHomeBug[] = [
  {
    name: 'a site says who holds a machine before it is durable in its replica',
    wrap: {
      files: (files, site) =>
        site === 'B' ? withoutSync(files, (path) => path.includes('replica.json')) : files,
    },
    expects: /is held by two sites|runs twice|RECORD_CORRUPT|is not whole/,
    swarm: OFTEN_AWAY,
  },
  {
    name: 'a site that starts throws away what failovers have written',
    wrap: {
      failovers: (failovers) => {
        const recover = failovers.recover.bind(failovers);
        failovers.recover = async (trunks) => {
          const all = [...trunks];
          await recover(all);
          for (const trunk of all)
            for (const { branchId } of [...trunk.branches])
              if (trunk.record.adopted !== branchId) await failovers.cleanup(trunk, branchId);
        };
      },
    },
    expects: /is nowhere any more/,
    swarm: { ...OFTEN_AWAY, chances: { word: 1, adopt: 0.1, 'clean-up': 0 } },
  },
  {
    name: 'a machine at home says where it stands before that is durable',
    wrap: { files: (files) => withoutSync(files, (path) => path.includes('machine.json')) },
    expects:
      /is held by two sites|runs twice|RECORD_CORRUPT|is not whole|a site is not open|is nowhere any more/,
    swarm: OFTEN_AWAY,
  },
];
