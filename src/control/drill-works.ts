import { CpuGroups, type Failovers } from '../failover/index.ts';
import type { FileSystem } from '../lib/files.ts';
import type { ArrivalRules } from './arrival-rules.ts';
import { DrillActs, type DrillActsTools } from './drill-acts.ts';
import { DrillDebts } from './drill-debts.ts';
import { DrillSettings } from './drill-settings.ts';
import { Drills, type DrillsTools } from './drills.ts';

/** What a site keeps of its drills. */
export interface DrillStore {
  readonly settings: DrillSettings;
  readonly debts: DrillDebts;
  /** A machine has no replica here any more. */
  readonly forget: (machineId: string) => Promise<void>;
}

/** Takes over what earlier versions knew as tests of points that arrive. */
export async function openDrillStore(
  files: FileSystem,
  dataDirectory: string,
  arrivals: ArrivalRules,
): Promise<DrillStore> {
  const settings = await DrillSettings.open(files, dataDirectory);
  await arrivals.handOverTo(settings);
  const debts = await DrillDebts.open(files, dataDirectory);
  return {
    ...{ settings, debts },
    forget: async (machineId) => {
      await settings.forget(machineId);
      await debts.forget(machineId);
    },
  };
}

/** The loop that drills, and what people do with it. */
export function drillWorksOf(
  o: Omit<
    DrillsTools & DrillActsTools,
    keyof DrillStore | 'isUrgent' | 'drills' | 'cpuGroups' | 'failovers'
  > & {
    readonly store: DrillStore;
    readonly failovers: Failovers;
  },
): { readonly drills: Drills; readonly acts: DrillActs } {
  const drills = new Drills({ ...o, ...o.store, isUrgent: () => o.failovers.isUrgent });
  const acts = new DrillActs({ ...o, ...o.store, drills, cpuGroups: new CpuGroups(o.clock) });
  return { drills, acts };
}
