import { dirname } from 'node:path';
import type { ImageFile, MachineConfiguration, MachineDisk, StartRequest } from '../hypervisor/index.ts';
import { nameAt } from './names.ts';
import type { CutRecord, MachineRecord, ProtectedDisk } from './records.ts';

/**
 * The protected chain as plain data; pure. For every disk
 *
 * ```text
 *   owner's files … ← origin ← layer ← layer ← … ← tip
 *                              cut 2   cut 3       takes the guest's writes
 * ```
 *
 * where the first cut seals the origin itself and each later one the layer that the cut before had made. A disk that came
 * later has its first cut then; the cuts before do not name it. Cuts are in ascending order of their ordinals everywhere here.
 */

/** Cuts that have happened, in order; one of which that is not known is not among them. */
export function happened<C extends Pick<CutRecord, 'state'>>(cuts: readonly C[]): C[] {
  return cuts.filter(({ state }) => state !== 'intended');
}

/** The cuts with the files that the owner of their disks has moved named by where they are now. */
export function atTheirPlaces(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
): readonly CutRecord[] {
  const moved = disks.filter(({ formerPaths }) => formerPaths?.length);
  if (moved.length === 0) return cuts;
  return cuts.map((cut) => {
    const sealed = { ...cut.sealed };
    for (const { diskId, chain, formerPaths } of moved) {
      if (formerPaths!.includes(sealed[diskId]?.path ?? '')) sealed[diskId] = { ...chain.at(-1)! };
    }
    return { ...cut, sealed };
  });
}

/** The disks that the next cut has. */
export function presentOf(disks: readonly ProtectedDisk[]): ProtectedDisk[] {
  return disks.filter(({ leaving }) => leaving === undefined);
}

/** The disks that a cut has, in the order of the machine's. */
export function disksOf(disks: readonly ProtectedDisk[], cut: CutRecord): ProtectedDisk[] {
  return disks.filter(({ diskId }) => cut.sealed[diskId] !== undefined);
}

/** Whether the youngest cut up to an ordinal has a disk. */
export function isThereAt({ sinceOrdinal = 0, leaving }: ProtectedDisk, ordinal: number): boolean {
  return sinceOrdinal <= ordinal && (leaving === undefined || ordinal <= leaving.untilOrdinal);
}

/**
 * Own layers that lie between origin and tip, with the cut that sealed each. While a cut takes in a younger one, both name the
 * same layer for a moment: it is one file of the chain, and the younger one's.
 */
function ownLayers(disk: ProtectedDisk, cuts: readonly CutRecord[]): { cut: CutRecord; layer: ImageFile }[] {
  const origin = disk.chain.at(-1)!;
  return happened(cuts)
    .filter(({ merged }) => !merged)
    .flatMap((cut) => {
      const layer = cut.sealed[disk.diskId];
      return layer && layer.path !== origin.path ? [{ cut, layer }] : [];
    })
    .filter(({ layer }, index, all) => layer.path !== all[index + 1]?.layer.path);
}

/** The whole chain of a disk, the tip last. */
export function chainOf(disk: ProtectedDisk, cuts: readonly CutRecord[]): ImageFile[] {
  if (disk.leaving) return [...disk.chain, ...disk.leaving.layers];
  const tip = happened(cuts).at(-1)?.tips[disk.diskId];
  return [...disk.chain, ...ownLayers(disk, cuts).map(({ layer }) => layer), ...(tip ? [tip] : [])];
}

/** The chain that reads as the disk was at a cut. */
export function chainAt(disk: ProtectedDisk, cuts: readonly CutRecord[], at: CutRecord): ImageFile[] {
  if (disk.leaving) {
    const { layers } = disk.leaving;
    const sealed = at.sealed[disk.diskId];
    return [...disk.chain, ...layers.slice(0, layers.findIndex(({ path }) => path === sealed?.path) + 1)];
  }
  const upTo = ownLayers(disk, cuts).filter(({ cut }) => cut.ordinal <= at.ordinal);
  return [...disk.chain, ...upTo.map(({ layer }) => layer)];
}

/** The chain that reads as the disk was at the youngest cut up to an ordinal; the layers of older ones may be merged away. */
export function chainUpTo(disk: ProtectedDisk, cuts: readonly CutRecord[], ordinal: number): ImageFile[] {
  const at = happened(cuts).findLast((cut) => cut.ordinal <= ordinal);
  return at ? chainAt(disk, cuts, at) : [...disk.chain];
}

/** How many layers of a disk hold what changed after the cut of one ordinal and up to another cut. */
export function layersSince(
  disk: ProtectedDisk,
  cuts: readonly CutRecord[],
  ordinal: number,
  at: CutRecord,
): number {
  return ownLayers(disk, cuts).filter(({ cut }) => cut.ordinal > ordinal && cut.ordinal <= at.ordinal).length;
}

/** Cuts whose state a chain of the files there are still reads as: none below one whose layer is merged, in part perhaps. */
export function readable<C extends Pick<CutRecord, 'state' | 'merged' | 'merging' | 'ordinal'>>(
  cuts: readonly C[],
): C[] {
  const merged = happened(cuts).findLast((cut) => cut.merged || cut.merging)?.ordinal ?? 0;
  return happened(cuts).filter(({ ordinal }) => ordinal >= merged);
}

/** The size of a disk at a cut. */
export function sizeAt({ diskId, sizeBytes }: ProtectedDisk, cut: CutRecord | undefined): number {
  return cut?.sizes?.[diskId] ?? sizeBytes;
}

/** The configuration of a machine with the name and the disks that it had at a cut, as large as they were. */
export function configurationAt(machine: MachineRecord, cut: CutRecord): MachineConfiguration {
  const { configuration, disks } = machine;
  const known = new Map(disksOf(disks, cut).map((disk) => [disk.diskId, sizeAt(disk, cut)]));
  return {
    ...configuration,
    name: nameAt(machine, cut),
    disks: configuration.disks.flatMap((disk) => {
      const sizeBytes = known.get(disk.diskId);
      return sizeBytes === undefined ? [] : [{ ...disk, sizeBytes }];
    }),
  };
}

/** Makes what the NICs of a machine are plugged into that is about to start. */
export type Plugging = () => Promise<StartRequest['networks']>;

/** How a managed machine is started: with the disks that are cut, on their tips. */
export function startRequestOf(
  { configuration, extraArguments, disks, sockets, lease, tpm }: MachineRecord,
  cuts: readonly CutRecord[],
  networks?: StartRequest['networks'],
): StartRequest {
  const present = new Map(presentOf(disks).map((disk) => [disk.diskId, chainOf(disk, cuts)]));
  return {
    configuration: {
      ...configuration,
      disks: configuration.disks.filter(({ diskId }) => present.has(diskId)),
    },
    disks: Object.fromEntries(present),
    runDirectory: dirname(sockets.qmpPath),
    ...(tpm ? { tpmDirectory: tpm.directory } : {}),
    ...(extraArguments ? { extraArguments } : {}),
    ...(networks ? { networks } : {}),
    // Its guard lets it run when it has a lease.
    ...(lease ? { paused: true } : {}),
  };
}

/** The disks of which a cut sealed a layer of our own, which can be committed and removed, and not the owner's file. */
export function ownLayersOf(
  disks: readonly ProtectedDisk[],
  cut: CutRecord,
): { readonly disk: ProtectedDisk; readonly layer: ImageFile }[] {
  return disksOf(presentOf(disks), cut)
    .map((disk) => ({ disk, layer: cut.sealed[disk.diskId]! }))
    .filter(({ disk, layer }) => layer.path !== disk.chain.at(-1)!.path);
}

export function hasOwnLayer(disks: readonly ProtectedDisk[], cut: CutRecord): boolean {
  return ownLayersOf(disks, cut).length > 0;
}

/** The oldest cut whose layer every target holds and which is still a file of its own: the next to commit down. */
export function nextToMerge(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  acknowledgedOrdinal: number,
): CutRecord | undefined {
  const oldest = happened(cuts).find((cut) => !cut.merged && hasOwnLayer(disks, cut));
  return oldest && oldest.state === 'sealed' && oldest.ordinal <= acknowledgedOrdinal ? oldest : undefined;
}

/** A disk of a running machine that is not what it must be. */
export interface StaleDisk {
  readonly diskId: string;
  /** The machine does not have it at all. */
  readonly isGone: boolean;
  readonly said: string;
}

/** What differs between the disks that a running machine has and the chains that it must run on. One that leaves may be gone. */
export function staleDisks(
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  running: readonly MachineDisk[],
): StaleDisk[] {
  return disks.flatMap((disk): StaleDisk[] => {
    const { diskId, leaving } = disk;
    const actual = running.find(({ deviceName }) => deviceName === disk.deviceName);
    if (!actual)
      return leaving ? [] : [{ diskId, isGone: true, said: `${diskId} (${disk.deviceName}) is not there` }];
    const expected = chainOf(disk, cuts).at(-1)!.path;
    const tip = actual.chain.at(-1)?.path;
    const said = `${diskId} runs on ${tip ?? 'nothing'}, not on ${expected}`;
    return tip === expected ? [] : [{ diskId, isGone: false, said }];
  });
}

/** Disks of a running machine that are not protected, by the hypervisor's names; those that a person took out are not told. */
export function strangersAmong(
  running: readonly MachineDisk[],
  { disks, formerDisks = [] }: Pick<MachineRecord, 'disks' | 'formerDisks'>,
): string[] {
  const known = new Set(disks.map(({ deviceName }) => deviceName));
  const isFormer = ({ deviceName, chain }: MachineDisk) =>
    formerDisks.some((former) => former.deviceName === deviceName && former.path === chain.at(-1)?.path);
  return running
    .filter((disk) => !known.has(disk.deviceName) && !isFormer(disk))
    .map(({ deviceName }) => deviceName);
}
