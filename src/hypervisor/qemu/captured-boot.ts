import { realpath, stat } from 'node:fs/promises';
import type { QmpClient } from '../../qmp/index.ts';
import type { CdConfiguration, MachineConfiguration } from '../configuration.ts';
import { sha256Of } from './media.ts';
import type { Device } from './pci-places.ts';

/** What a running QEMU tells of its CD drives, and of the order in which its firmware tries devices. */

/** A CD drive with what lies in it. A medium that cannot be read here is left out: elsewhere nobody could say that it is the same. */
export interface FoundCd {
  readonly path: string;
  readonly cd: CdConfiguration;
}

export async function cdsOf(
  qmp: QmpClient,
  devices: readonly Device[],
  chipset: 'q35' | 'pc',
): Promise<FoundCd[]> {
  const drives =
    await qmp.execute<{ qdev?: string; removable?: boolean; inserted?: Inserted }[]>('query-block');
  const found: FoundCd[] = [];
  for (const { qdev, removable, inserted } of drives) {
    const device = devices.find(({ path }) => path === qdev || path.endsWith(`/${qdev}`));
    if (!removable || !device || !['ide-cd', 'scsi-cd'].includes(device.type)) continue;
    const medium = inserted && (await mediumOf(inserted));
    const bus = device.type === 'scsi-cd' ? 'virtio-scsi' : chipset === 'q35' ? 'sata' : 'ide';
    found.push({ path: device.path, cd: { cdId: `cd${found.length}`, bus, ...(medium ? { medium } : {}) } });
  }
  return found;
}

interface Inserted {
  readonly file?: unknown;
  readonly drv?: unknown;
}

async function mediumOf({ file, drv }: Inserted): Promise<CdConfiguration['medium'] | undefined> {
  if (typeof file !== 'string' || !file.startsWith('/') || drv !== 'raw') return undefined;
  const sha256 = await sha256Of(file);
  return sha256 === undefined
    ? undefined
    : { path: await realpath(file), sizeBytes: (await stat(file)).size, sha256 };
}

/** A device that firmware may boot from, in the order of its kind. */
export interface Bootable {
  readonly kind: 'disk' | 'cd' | 'nic';
  readonly id: string;
  /** As its owner gave it; negative if not at all. */
  readonly bootIndex: number;
}

/** QEMU's own word for «nothing was said». */
const DEFAULT_ORDER = 'cad';
const KIND_OF_LETTER: Readonly<Record<string, Bootable['kind']>> = { c: 'disk', d: 'cd', n: 'nic' };

/**
 * In which order the firmware tries devices, by id; undefined where it is what a machine has of which nothing is said: its disks, in
 * their order. Pure. `order` and `strict` are those of `-boot`: without `strict`, devices without an index come behind the others.
 */
export function bootSequence(
  devices: readonly Bootable[],
  { order, strict }: { readonly order: string; readonly strict: boolean },
): readonly string[] | undefined {
  const ofKind = (kind: Bootable['kind']) => devices.filter((device) => device.kind === kind);
  const indexed = devices
    .filter(({ bootIndex }) => bootIndex >= 0)
    .sort((one, other) => one.bootIndex - other.bootIndex);
  if (indexed.length === 0 && order === DEFAULT_ORDER) return undefined;
  const letters = indexed.length === 0 ? [...order] : strict ? [] : ['c', 'd'];
  const behind = letters.flatMap((letter) => {
    const kind = KIND_OF_LETTER[letter];
    return kind === undefined ? [] : ofKind(kind).filter((device) => !indexed.includes(device));
  });
  const sequence = [...indexed, ...behind].map(({ id }) => id);
  const usual = ofKind('disk').map(({ id }) => id);
  return sequence.join() === usual.join() ? undefined : sequence;
}

/** The configuration with the places of its devices in the order of booting. */
export function inBootOrder(
  configuration: MachineConfiguration,
  sequence: readonly string[] | undefined,
): MachineConfiguration {
  if (!sequence) return configuration;
  const placed = (id: string) => {
    const at = sequence.indexOf(id);
    return at < 0 ? {} : { bootIndex: at + 1 };
  };
  const { disks, nics, cds } = configuration;
  return {
    ...configuration,
    disks: disks.map((disk) => ({ ...disk, ...placed(`disk ${disk.diskId}`) })),
    nics: nics.map((nic) => ({ ...nic, ...placed(`nic ${nic.nicId}`) })),
    ...(cds ? { cds: cds.map((cd) => ({ ...cd, ...placed(`cd ${cd.cdId}`) })) } : {}),
  };
}
