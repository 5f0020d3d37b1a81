import type { FileSystem } from '../../lib/files.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { ArrivalRules } from './arrival-rules.ts';
import { DrillDebts } from './drill-debts.ts';
import { DrillSettings } from './drill-settings.ts';

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
  alerts?: AlertSink,
): Promise<DrillStore> {
  const settings = await DrillSettings.open(files, dataDirectory, alerts);
  await arrivals.handOverTo(settings);
  const debts = await DrillDebts.open(files, dataDirectory, alerts);
  return {
    ...{ settings, debts },
    forget: async (machineId) => {
      await settings.forget(machineId);
      await debts.forget(machineId);
    },
  };
}
