import { firmwareVariables, type MachineConfiguration } from './configuration.ts';
import type { ImageFile } from './images.ts';

/** UEFI firmware that a host has, as its descriptor says (QEMU, docs/interop/firmware.json). */
export interface Firmware {
  /** Where it is described. */
  readonly descriptor: string;
  /** What it runs; never written. */
  readonly code: ImageFile;
  /** What the variables of a new machine begin with. */
  readonly template: ImageFile;
  /** How many bytes of variables it takes: those of another size it does not read. */
  readonly variablesBytes: number;
  /** The versioned machine types that it is for, with `*` for anything. */
  readonly machines: readonly string[];
  readonly features: readonly string[];
}

/**
 * The firmware that a UEFI machine is started with: the first one that fits, in the order of precedence, or why none does. Pure.
 * One that keeps its variables from the guest is taken for a machine that had one, and for no other.
 */
export function firmwareFor(
  configuration: MachineConfiguration,
  found: readonly Firmware[],
): { readonly firmware: Firmware } | { readonly reason: string } {
  const variables = firmwareVariables(configuration);
  if (!variables) return { reason: 'its UEFI variables are not among its disks' };
  const { chipset, machineVersion, secureFirmware = false } = configuration;
  // Of a type without a version it is only known which family of versions it stands for.
  const machine = machineVersion ?? (chipset === 'q35' ? 'pc-q35-' : 'pc-i440fx-');
  const forMachine = found.filter(({ machines }) => machines.some((pattern) => matches(pattern, machine)));
  const alike = forMachine.filter(({ features }) => features.includes('requires-smm') === secureFirmware);
  const firmware = alike.find(({ variablesBytes }) => variablesBytes === variables.sizeBytes);
  if (firmware) return { firmware };
  const kind = secureFirmware ? 'UEFI firmware with Secure Boot' : 'UEFI firmware without Secure Boot';
  if (alike.length === 0) return { reason: `this host describes no ${kind} for ${machine}` };
  const sizes = [...new Set(alike.map(({ variablesBytes }) => variablesBytes))].join(', ');
  return {
    reason: `its UEFI variables have ${variables.sizeBytes} bytes, those of the firmware here ${sizes}`,
  };
}

function matches(pattern: string, name: string): boolean {
  const escaped = pattern.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(name);
}
