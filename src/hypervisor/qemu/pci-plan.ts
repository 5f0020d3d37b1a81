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

/** Ours first: what is not told keeps the order in which QEMU would have gone. */
function devicesOf({
  disks,
  nics,
}: MachineConfiguration): { device: PciDevice; place: string | undefined }[] {
  const scsi = disks.filter(({ bus }) => bus === 'virtio-scsi');
  const controller = scsi.find(({ pciPlace }) => pciPlace !== undefined)?.pciPlace;
  return [
    ...(['vga', 'ports'] as const).map((device) => ({ device, place: undefined })),
    ...(scsi.length > 0 ? [{ device: 'scsi' as const, place: controller }] : []),
    ...disks
      .filter(({ bus }) => bus === 'virtio-blk')
      .map(({ diskId, pciPlace }) => ({ device: `disk ${diskId}` as const, place: pciPlace })),
    ...nics.map(({ nicId, pciPlace }) => ({ device: `nic ${nicId}` as const, place: pciPlace })),
  ];
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
