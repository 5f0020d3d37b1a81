import type { ImageFile, Pivot, RunningMachine } from '../hypervisor/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { Deliveries } from './deliveries.ts';
import { ofOneAge } from './disk-changes.ts';
import type { ProtectedLayout } from './layout.ts';
import { commitFiles } from './leaving-disks.ts';
import { unprotected } from './machine-tenure.ts';
import type { ChainTools, ProtectedChain } from './protected-chain.ts';
import type { MachineRecord, ProtectedDisk } from './records.ts';

/**
 * The end of a protection: everything above the owner's files is committed into them, and the guest, if it runs, writes to them
 * from then on.
 *
 * What must hold, whoever is killed and whenever: **the guest does not run on an owner's file before it is durable that it
 * does.** Else a later commit of the layers, which is the way to end this for a machine that is off, would go over what the guest has
 * written since. So all disks are brought level while the guest runs on its tips; then it is stopped for some milliseconds, the
 * disks change over, each tip is renamed, durably, and only then does the guest run again (`RunningMachine.pivot`). A layer
 * chain whose tip has lost its name is given back, and is never committed again.
 */
export interface DissolutionGround {
  readonly tools: ChainTools;
  readonly layout: ProtectedLayout;
  readonly chain: Pick<ProtectedChain, 'chain' | 'cuts' | 'remove'>;
  readonly deliveries: Pick<Deliveries, 'remove'>;
  readonly record: () => MachineRecord;
  /** Durable on return, as is `storeDisks`, of a record with other disks. */
  readonly store: (record: MachineRecord) => Promise<void>;
  readonly storeDisks: (record: MachineRecord) => Promise<void>;
}

/** A disk with layers above its owner's file. */
interface LayeredDisk {
  readonly disk: ProtectedDisk;
  readonly layers: readonly ImageFile[];
  readonly pivot: Pivot;
}

/** The record in one phase of the end of its protection. */
export function inPhase(
  { stoodStill: _before, ...record }: MachineRecord,
  dissolving: NonNullable<MachineRecord['dissolving']>,
  o: { readonly stoodStill?: boolean } = {},
): MachineRecord {
  return { ...record, dissolving, ...(o.stoodStill ? { stoodStill: true } : {}) };
}

/** Ends the protection in the phase that the record says, from wherever it was left. `overrules`: somebody's word, which ends with his process. */
export async function dissolve(
  ground: DissolutionGround,
  running: RunningMachine | undefined,
  overrules: boolean,
): Promise<void> {
  const { chain, layout, deliveries } = ground;
  const phase = ground.record().dissolving;
  if (phase === 'committing' || phase === 'pivoting') await giveEverythingBack(ground, running);
  const last = chain.cuts.at(-1);
  const isKept = phase === 'setting-aside' && last !== undefined;
  await chain.remove(isKept ? layout.setAside(last.cutId) : undefined);
  await deliveries.remove();
  const { dissolving: _ended, suspect: _over, gone: _gone, diverged, ...record } = ground.record();
  // What was set aside is no branch: nothing that is left here leads to it.
  const branch = diverged && phase !== 'setting-aside' ? { diverged } : {};
  await ground.storeDisks(unprotected({ ...record, ...ofOneAge(record), ...branch }, overrules));
}

/** In the end the record says that the owner's files hold everything. */
async function giveEverythingBack(
  ground: DissolutionGround,
  running: RunningMachine | undefined,
): Promise<void> {
  const all = layeredDisks(ground);
  if (running) await settle(ground, all, running);
  const left = await notGivenBack(ground, all);
  const plugged = new Set((await running?.disks())?.map(({ deviceName }) => deviceName));
  for (const { disk, layers } of left.filter(({ disk }) => !plugged.has(disk.deviceName)))
    await commitFiles(ground.tools, disk, layers);
  if (running) {
    const here = left.filter(({ disk }) => plugged.has(disk.deviceName));
    if (here.length > 0) await changeOver(ground, here, running);
    for (const { layers } of all) await running.letGoOf(layers);
  }
  await ground.store(inPhase(ground.record(), 'removing'));
}

/**
 * Why the end of the protection cannot be gone on with. Where the layers must be left alone from now on because the machine was
 * found on the owner's files without a word of ours, the record says so durably: somebody may have started it on them, without
 * what the layers hold.
 */
export async function whyNotDissolved(
  ground: DissolutionGround,
  running: RunningMachine | undefined,
  mayRunOnLayers: () => Promise<boolean>,
): Promise<string | undefined> {
  const record = ground.record();
  const { dissolving: phase, suspect, name: machine } = record;
  if (phase !== 'committing' && phase !== 'pivoting') {
    const isGivenUp = await mayRunOnLayers();
    return isGivenUp ? 'it runs on layers that the end of its protection has given up' : undefined;
  }
  if (suspect !== undefined || !running) return suspect;
  const reason = await whyNotGivenBack(ground, running);
  if (reason === undefined) return undefined;
  ground.tools.log.error('machine.stale-base', { machine, reason });
  await ground.store({ ...record, suspect: reason });
  return reason;
}

async function whyNotGivenBack(
  ground: DissolutionGround,
  running: RunningMachine,
): Promise<string | undefined> {
  // A guest that stands still has written nothing since its disks changed over.
  if (ground.record().dissolving === 'pivoting' && (await running.state()) !== 'running') return undefined;
  const disks = await running.disks();
  for (const { disk, pivot } of await notGivenBack(ground, layeredDisks(ground))) {
    const tip = disks.find(({ deviceName }) => deviceName === disk.deviceName)?.chain.at(-1)?.path;
    if (tip === pivot.base.path) return `${disk.diskId} runs on ${tip}, which lacks what the layers hold`;
  }
  return undefined;
}

function layeredDisks({ record, chain, layout }: DissolutionGround): LayeredDisk[] {
  return record().disks.flatMap((disk) => {
    const layers = chain.chain(disk.diskId).slice(disk.chain.length);
    const tip = layers.at(-1);
    if (!tip) return [];
    const base = disk.chain.at(-1)!;
    const givenBackPath = layout.givenBack(tip.path);
    return [{ disk, layers, pivot: { deviceName: disk.deviceName, base, tip, givenBackPath } }];
  });
}

async function notGivenBack(
  { tools }: DissolutionGround,
  disks: readonly LayeredDisk[],
): Promise<LayeredDisk[]> {
  const left: LayeredDisk[] = [];
  for (const disk of disks)
    if ((await tools.files.sizeOf(disk.pivot.givenBackPath)) === undefined) left.push(disk);
  return left;
}

/** Ends what an earlier process of ours has left: a guest that stands still for a change, with some disks changed over. */
async function settle(
  { record, store }: DissolutionGround,
  disks: readonly LayeredDisk[],
  running: RunningMachine,
): Promise<void> {
  const { dissolving, stoodStill } = record();
  if (dissolving !== 'pivoting') return;
  await running.settlePivots(pivotsOf(disks), { continues: !stoodStill });
  await store(inPhase(record(), 'committing'));
}

/** Has the guest write to the owner's files. Throws COMMIT_FAILED; disks that have changed over have done so for good. */
async function changeOver(
  { record, store, tools: { log } }: DissolutionGround,
  disks: readonly LayeredDisk[],
  running: RunningMachine,
): Promise<void> {
  const pivots = pivotsOf(disks);
  const machine = record().name;
  try {
    for (const { deviceName, base } of pivots) await running.commitTip(deviceName, base);
  } catch (error) {
    await giveUp(running, pivots, (reason) => log.warn('protection.commits-left', { machine, reason }));
    throw error;
  }
  const stoodStill = (await running.state()) !== 'running';
  await store(inPhase(record(), 'pivoting', { stoodStill }));
  const { pausedMs, failure } = await running.pivot(pivots, { continues: !stoodStill });
  log.info('protection.changed-over', { machine, disks: pivots.length, pausedMs });
  if (failure === undefined) return;
  await store(inPhase(record(), 'committing'));
  throw failure;
}

/** Disks that are level would be kept so for nothing. */
async function giveUp(
  running: RunningMachine,
  pivots: readonly Pivot[],
  onFailure: (reason: string) => void,
): Promise<void> {
  try {
    await running.settlePivots(pivots, { continues: false });
  } catch (error) {
    onFailure(messageOf(error));
  }
}

function pivotsOf(disks: readonly LayeredDisk[]): Pivot[] {
  return disks.map(({ pivot }) => pivot);
}
