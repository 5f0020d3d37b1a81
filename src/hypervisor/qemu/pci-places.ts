import { isFailure } from '../../lib/errors.ts';
import type { QmpClient } from '../../qmp/index.ts';

/** A device of the object model. */
export interface Device {
  readonly path: string;
  readonly type: string;
}

/** What the chipsets call their first bus: «/machine/q35/pcie.0», «/machine/i440fx/pci.0». */
const FIRST_BUS = /^\/machine\/(q35|i440fx)\/pcie?\.0$/;

/**
 * Where a device sits that is plugged into the first bus, or into a root port of it: «10.0», «02.1/00.0». Undefined for everything
 * else, such as what lies behind a bridge of another kind.
 */
export async function pciPlaceOf(
  qmp: QmpClient,
  devices: readonly Device[],
  path: string,
): Promise<string | undefined> {
  const place = await placeOnBus(qmp, path);
  if (place === undefined) return undefined;
  if (FIRST_BUS.test(place.bus)) return place.at;
  const port = devices.find((device) => isRootPort(device) && place.bus.startsWith(`${device.path}/`));
  const portPlace = port && (await placeOnBus(qmp, port.path));
  // A port has one slot.
  if (!portPlace || !FIRST_BUS.test(portPlace.bus) || place.at !== '00.0') return undefined;
  return `${portPlace.at}/${place.at}`;
}

/** The place of the controller whose bus a SCSI disk is on. */
export async function controllerPlaceOf(
  qmp: QmpClient,
  devices: readonly Device[],
  diskPath: string,
): Promise<string | undefined> {
  const bus = await told(qmp, diskPath, 'parent_bus');
  const controller = devices.find(
    ({ path, type }) => type.startsWith('virtio-scsi') && String(bus).startsWith(`${path}/`),
  );
  return controller && pciPlaceOf(qmp, devices, controller.path);
}

/** All root ports of the first bus, in its order: firmware numbers the buses behind them by it, also those of empty ones. */
export async function rootPortsOf(qmp: QmpClient, devices: readonly Device[]): Promise<string[]> {
  const places: string[] = [];
  for (const { path } of devices.filter(isRootPort)) {
    const place = await placeOnBus(qmp, path);
    if (place && FIRST_BUS.test(place.bus)) places.push(place.at);
  }
  return places.sort();
}

function isRootPort({ type }: Device): boolean {
  return type === 'pcie-root-port' || type === 'ioh3420';
}

async function placeOnBus(
  qmp: QmpClient,
  path: string,
): Promise<{ readonly bus: string; readonly at: string } | undefined> {
  const number = await told(qmp, path, 'addr');
  const bus = await told(qmp, path, 'parent_bus');
  if (typeof number !== 'number' || number < 0 || typeof bus !== 'string') return undefined;
  // Five bits of slot, three of function (PCI Local Bus Specification, «devfn»).
  const slot = (number >> 3).toString(16).padStart(2, '0');
  return { bus, at: `${slot}.${number & 7}` };
}

async function told(qmp: QmpClient, path: string, property: string): Promise<unknown> {
  try {
    return await qmp.execute('qom-get', { path, property });
  } catch (error) {
    // A device that is on no PCI bus has no such property.
    if (isFailure(error, 'QMP_COMMAND_FAILED')) return undefined;
    throw error;
  }
}
