import { firmwareVariables, HYPERVISOR_ERRORS } from '../../hypervisor/index.ts';
import { failuresOf } from '../../lib/errors.ts';
import type { MachineRecord } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';

export function firmwareAlert(machineId: string): string {
  return `firmware:${machineId}`;
}

/** The disks are replicated all the same; that the machine cannot be started from them must not be found out on the day it is needed. */
export function warnOfFirmware(alerts: AlertSink, { machineId, name, configuration }: MachineRecord): void {
  const key = firmwareAlert(machineId);
  if (configuration.firmware === 'bios' || firmwareVariables(configuration)) {
    alerts.clear(key);
    return;
  }
  const said = `the UEFI variables of ${name} are not among its disks: it could not be started at the other site`;
  const failure = failuresOf(HYPERVISOR_ERRORS)('MACHINE_FIRMWARE_MISSING', said, {
    hint: 'Start the machine with its UEFI variables in a flash memory of their own (`-machine pflash1=`), and add it anew.',
  });
  alerts.raise(key, 'critical', failure, machineId);
}
