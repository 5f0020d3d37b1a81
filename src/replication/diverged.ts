import { createHash } from 'node:crypto';
import type { ImageFile } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { newId } from '../lib/random.ts';
import { loadRecord } from '../lib/records.ts';
import { atTheirPlaces, chainOf, chainUpTo, presentOf } from './chain.ts';
import type { TargetProgress } from './deliveries.ts';
import type { ProtectedLayout } from './layout.ts';
import { loadCuts } from './machine-files.ts';
import { tenureOf } from './machine-tenure.ts';
import { MACHINE_RECORD, type MachineRecord } from './records.ts';

/**
 * What a machine wrote here that the site does not have which has brought it up: a branch, from the moment on in which this site hears of
 * that. Its disks are the machine's own, and stay where they are.
 */

type DivergedRecord = NonNullable<MachineRecord['diverged']>;

/** `after`, with the branch that a machine becomes by being fenced; the same record if it is not. */
export function diverging(
  before: MachineRecord,
  after: MachineRecord,
  targets: readonly Pick<TargetProgress, 'siteId' | 'record'>[],
  clock: Pick<Clock, 'wallMs'>,
): MachineRecord {
  const { tenure } = after;
  if (tenure?.state !== 'fenced' || before.tenure?.state === 'fenced') return after;
  const { lost, claim } = tenure;
  // One claim, one branch: its id needs no chance.
  const seed = createHash('sha256').update(`${after.machineId} ${lost.epoch} ${lost.siteId}`).digest();
  const branchId = newId(clock, { bytes: (count) => seed.subarray(0, count) });
  const from = newestOf(targets, claim.siteId);
  const diverged: DivergedRecord = {
    ...{ branchId, name: `diverged-${lost.epoch}`, lost, fencedAtMs: clock.wallMs() },
    ...(from ? { from } : {}),
  };
  return { ...after, diverged };
}

/** What one site has acknowledged, or where it is no target the newest that any has: its points come by way of them then. */
function newestOf(
  targets: readonly Pick<TargetProgress, 'siteId' | 'record'>[],
  siteId: string,
): DivergedRecord['from'] {
  const own = targets.filter((target) => target.siteId === siteId);
  const newest = (own.length > 0 ? own : targets)
    .flatMap(({ record: { acknowledged }, ...target }) =>
      acknowledged ? [{ ...acknowledged, siteId: target.siteId }] : [],
    )
    .toSorted((a, b) => a.ordinal - b.ordinal)
    .at(-1);
  if (!newest) return undefined;
  const { pointId, sequence, ordinal, cutAtMs } = newest;
  const at = cutAtMs === undefined ? {} : { cutAtMs };
  return { ...{ siteId: newest.siteId, pointId, sequence, ordinal }, ...at };
}

/** A machine whose disks here are a branch. */
export interface Diverged {
  readonly machine: MachineRecord;
  readonly branch: DivergedRecord;
  readonly disks: readonly {
    readonly diskId: string;
    /** The oldest file first. */
    readonly chain: readonly ImageFile[];
    /** Those of its files that hold what was written after the point that the branch begins at. */
    readonly own: readonly ImageFile[];
  }[];
}

/** The branch in the directory of a machine, of whatever generation; undefined if there is none. */
export async function loadDiverged(
  files: FileSystem,
  layout: ProtectedLayout,
  siteId: string,
): Promise<Diverged | undefined> {
  const machine = await loadRecord(files, layout.record, MACHINE_RECORD);
  const branch = machine?.diverged;
  if (!machine || !branch || tenureOf(machine, siteId).state === 'holds') return undefined;
  // By somebody's word its layers are being given up.
  if (machine.dissolving === 'setting-aside') return undefined;
  const cuts = atTheirPlaces(machine.disks, await loadCuts(files, layout));
  const disks = presentOf(machine.disks).map((disk) => {
    const chain = chainOf(disk, cuts);
    // Without cuts all of it has been committed into the files below.
    const isLayered = branch.from !== undefined && cuts.length > 0;
    const common = isLayered ? chainUpTo(disk, cuts, branch.from!.ordinal).length : 0;
    return { diskId: disk.diskId, chain, own: chain.slice(common) };
  });
  return { machine, branch, disks };
}
