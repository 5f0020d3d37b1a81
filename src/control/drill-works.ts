import { CpuGroups, type Failovers } from '../failover/index.ts';
import { DrillActs, type DrillActsTools } from './acts/drill-acts.ts';
import type { DrillStore } from './drills/drill-store.ts';
import { Drills, type DrillsTools } from './drills/drills.ts';

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
