import type { MachineConfiguration } from '../configuration.ts';

/**
 * Where the devices of a machine go on its PCI buses. Guests call NICs and disks after their places, or count them in their
 * order: what is told of a place is kept, and the other devices go where nothing was told to be.
 */
export interface PciPlan {
  /** Arguments of `qemu-system-x86_64` for the root ports; before those of what is plugged into them. */
  readonly ports: readonly string[];
  /** To be appended to the argument of a device; empty where QEMU is to choose. */
  at(device: PciDevice): string;
}

/** A device of a start request that is plugged into a PCI bus. */
export type PciDevice = 'vga' | 'ports' | 'scsi' | `disk ${string}` | `nic ${string}`;

const SLOTS = 32;

/** Nothing is told: QEMU gives out slots in the order of its command line, the same ones each time. */
const NO_PLAN: PciPlan = { ports: [], at: () => '' };

/**
 * Places come from other machines. One that cannot be given (taken, behind a port that is not there, a further function of a slot
 * without a first) counts as not told.
 */
export function pciPlanOf(configuration: MachineConfiguration): PciPlan {
  const { chipset, rootPorts = [] } = configuration;
  const told = devicesOf(configuration);
  if (rootPorts.length === 0 && told.every(({ place }) => place === undefined)) return NO_PLAN;

  const bus = chipset === 'q35' ? 'pcie.0' : 'pci.0';
  const ports = chipset === 'q35' ? [...new Set(rootPorts)] : [];
  const reachable = (place: string) => {
    const [first, behind] = place.split('/') as [string, string?];
    const slot = slotOf(first);
    const isFree = chipset === 'q35' ? slot > 0 && slot < SLOTS - 1 : slot > 1 && slot < SLOTS;
    return isFree && (behind === undefined || ports.includes(first));
  };
  const onBus = new Set([...ports, ...told.flatMap(({ place }) => place ?? [])].filter(reachable));
  const hasFirst = (place: string) => onBus.has(`${place.split('.')[0]}.0`);
  const placed = new Map<PciDevice, string>();
  const taken = new Set(ports.filter((port) => reachable(port) && hasFirst(port)));
  for (const { device, place } of told) {
    if (place === undefined || taken.has(place) || !reachable(place) || !hasFirst(place)) continue;
    if (place.includes('/') && !taken.has(place.split('/')[0]!)) continue;
    placed.set(device, place);
    taken.add(place);
  }
  const usedSlots = new Set([...taken].map(slotOf));
  const freeSlots = Array.from({ length: SLOTS }, (_, slot) => slot).filter(
    (slot) => reachable(`${hex(slot)}.0`) && !usedSlots.has(slot),
  );
  for (const { device } of told) {
    const slot = placed.has(device) ? undefined : freeSlots.shift();
    if (slot !== undefined) placed.set(device, `${hex(slot)}.0`);
  }
  const option = (place: string): string => {
    const [first, behind] = place.split('/') as [string, string?];
    if (behind !== undefined) return `,bus=${portId(first)},addr=${behind}`;
    const isShared = first.endsWith('.0') && [...taken].some((other) => isFurther(other, first));
    return `,bus=${bus},addr=${first}${isShared ? ',multifunction=on' : ''}`;
  };
  return {
    ports: ports
      .filter((port) => taken.has(port))
      .flatMap((port, index) => {
        const number = index + 1;
        return [
          '-device',
          `pcie-root-port,id=${portId(port)},chassis=${number},slot=${number}${option(port)}`,
        ];
      }),
    at: (device) => {
      const place = placed.get(device);
      return place === undefined ? '' : option(place);
    },
  };
}

interface Told {
  readonly device: PciDevice;
  readonly place: string | undefined;
}

/** In the order of the command line, in which QEMU gives out slots: what is not told stays where it was before something was. */
function devicesOf({ disks, nics, cds = [] }: MachineConfiguration): Told[] {
  const onScsi = disks.filter(({ bus }) => bus === 'virtio-scsi');
  const controller = onScsi.find(({ pciPlace }) => pciPlace !== undefined)?.pciPlace;
  return [
    ...(['vga', 'ports'] as const).map((device) => ({ device, place: undefined })),
    ...disks.flatMap((disk): Told[] => {
      if (disk === onScsi[0]) return [{ device: 'scsi', place: controller }];
      return disk.bus === 'virtio-blk' ? [{ device: `disk ${disk.diskId}`, place: disk.pciPlace }] : [];
    }),
    ...(onScsi.length === 0 && cds.some(({ bus }) => bus === 'virtio-scsi')
      ? [{ device: 'scsi' as const, place: undefined }]
      : []),
    ...nics.map(({ nicId, pciPlace }) => ({ device: `nic ${nicId}` as const, place: pciPlace })),
  ];
}

/**
 * A place for a disk that the machine gets, such that no other device moves, told or not. Undefined if there is none, or where the
 * disk is on a controller that is there already or came with the chipset.
 */
export function placeOfNewDisk(
  configuration: MachineConfiguration,
  bus: MachineConfiguration['disks'][number]['bus'],
): string | undefined {
  const { chipset, disks, rootPorts = [] } = configuration;
  const hasController = disks.some((disk) => disk.bus === 'virtio-scsi');
  if (bus !== 'virtio-blk' && (bus !== 'virtio-scsi' || hasController)) return undefined;
  const devices = devicesOf(configuration);
  const told = [...rootPorts, ...devices.flatMap(({ place }) => place ?? [])].map(slotOf);
  const lastSlot = chipset === 'q35' ? SLOTS - 2 : SLOTS - 1;
  // What is not told takes the first slots; so do devices of arguments that only this site knows, behind them.
  const least = Math.max(devices.length + told.length + 2, SLOTS / 2);
  const free = Array.from({ length: SLOTS }, (_, slot) => slot).filter(
    (slot) => slot >= least && slot <= lastSlot && !told.includes(slot),
  );
  // Guests count their disks by slot: a later one comes behind.
  const slot = free.find((one) => told.every((other) => one > other)) ?? free[0];
  return slot === undefined ? undefined : `${hex(slot)}.0`;
}

/** Another function of the slot whose first is `first`. */
function isFurther(place: string, first: string): boolean {
  return place !== first && !place.includes('/') && slotOf(place) === slotOf(first);
}

function slotOf(place: string): number {
  return Number.parseInt(place, 16);
}

function hex(slot: number): string {
  return slot.toString(16).padStart(2, '0');
}

function portId(place: string): string {
  return `port-${place.replace('.', '-')}`;
}
