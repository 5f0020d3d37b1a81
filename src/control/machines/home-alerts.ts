import type { AlertSink } from '../base/alerts.ts';
import { firmwareAlert } from './firmware-alert.ts';

/** What else there is to say of a machine that is at home here; targets, claims and its end are its loop's to clear. */
const ABOUT = [
  ...['presence', 'frozen', 'standstill', 'copy', 'degraded', 'left-out', 'hooks'],
  ...['uuid-changed', 'uuid-twice', 'turn', 'adopted-claim'],
];

/** Alerts about a machine itself, not about a replica of it. */
export function clearHomeAlerts(alerts: Pick<AlertSink, 'clear'>, machineId: string): void {
  for (const key of [firmwareAlert(machineId), ...ABOUT.map((about) => `${about}:${machineId}`)])
    alerts.clear(key);
}
