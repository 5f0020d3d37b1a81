import { basename, dirname } from 'node:path';
import type { DiskImages, ImageFile, RunningMachine } from '../hypervisor/index.ts';
import { assert } from '../lib/assert.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { type FileSystem, removeUnwaited } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import { newId, type Random } from '../lib/random.ts';
import { storeRecord } from '../lib/records.ts';
import { createEmptyLayer } from '../qcow2/index.ts';
import { aimOf, type CopyType } from '../recovery-point/index.ts';
import {
  atTheirPlaces,
  chainOf,
  disksOf,
  happened,
  ownLayersOf,
  presentOf,
  sizeAt,
  strangersAmong,
} from './chain.ts';
import type { CutTogether, SealedCut } from './cut-together.ts';
import { checkTips } from './disk-changes.ts';
import { followGrowth, shortTips, sizesNow } from './disk-sizes.ts';
import type { ProtectedLayout } from './layout.ts';
import { loadCuts } from './machine-files.ts';
import { takingIn } from './missed.ts';
import { OwedHooks } from './owed-hooks.ts';
import { cutsToMerge, nextToJoin, settledCuts, type TargetPlace } from './places.ts';
import { quiesced } from './quiesce.ts';
import { CUT_RECORD, type CutRecord, type MachineRecord, type ProtectedDisk } from './records.ts';
import { grownTogether, tipGrowth } from './tip-growth.ts';
import { sealedWithTpm, sealingTogether, type TpmTools, tpmOfStopped } from './tpm-capture.ts';

export interface ChainTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** What it takes to cut as well. */
type CutTools = ChainTools & TpmTools;

/** The machine whose chain it is, as far as its chain is concerned. */
type ChainOwner = Pick<MachineRecord, 'disks' | 'formerDisks' | 'tpm'>;

/**
 * The chain of a protected machine on disk: its cut records, layers and tips. Every change is described by a durable
 * record before the first act, and every act may be repeated, so that whatever was interrupted is ended by `settle`.
 * Callers see to it that one method runs at a time.
 *
 * `running` is the machine if its process runs; undefined says that it is certain that none does.
 */
export class ProtectedChain {
  readonly #tools: CutTools;
  readonly #layout: ProtectedLayout;
  #machine: ChainOwner;
  /** What hooks of earlier copies must still run in the guest. */
  readonly owedHooks: OwedHooks;
  #cuts: readonly CutRecord[];
  /** Disks whose directory was durable when it was made here. */
  readonly #durable = new Set<string>();
  /** The space of the layers that were removed last. */
  #freed: Promise<void> | undefined;

  private constructor(o: {
    tools: CutTools;
    layout: ProtectedLayout;
    machine: ChainOwner;
    cuts: readonly CutRecord[];
    owedHooks: OwedHooks;
  }) {
    this.#tools = o.tools;
    this.#layout = o.layout;
    this.#machine = o.machine;
    this.#cuts = o.cuts;
    this.owedHooks = o.owedHooks;
  }

  static async open(tools: CutTools, layout: ProtectedLayout, machine: ChainOwner): Promise<ProtectedChain> {
    const { files } = tools;
    const { disks } = machine;
    await files.makeDirectory(layout.cuts);
    for (const { diskId } of disks) await files.makeDirectory(layout.disk(diskId));
    // A process that was killed may have left names that are in the page cache alone: what follows from them, such as the
    // removal of a layer or a cut that is recorded on its tips, must not become durable before they are.
    for (const directory of [layout.cuts, ...disks.map(({ diskId }) => layout.disk(diskId))])
      await files.syncDirectory(directory);
    const cuts = await loadCuts(files, layout);
    const owedHooks = await OwedHooks.open(files, layout.owedHooks, tools.log);
    return new ProtectedChain({ tools, layout, machine, cuts: atTheirPlaces(disks, cuts), owedHooks });
  }

  get cuts(): readonly CutRecord[] {
    return this.#cuts;
  }

  /**
   * From the next cut on these are the machine's disks; its record says so durably. What was interrupted must have been ended,
   * because it is ended with the disks of the record.
   */
  haveDisksOf(machine: ChainOwner): void {
    assert(
      this.#cuts.every(({ state }) => state !== 'intended'),
      'a cut that was begun has the disks of the record',
    );
    this.#machine = machine;
    this.#cuts = atTheirPlaces(machine.disks, this.#cuts);
  }

  /** The disks that are cut. */
  get #disks(): readonly ProtectedDisk[] {
    return presentOf(this.#machine.disks);
  }

  /** The chain that a disk's machine must be started on. */
  chain(diskId: string): ImageFile[] {
    return chainOf(this.#machine.disks.find((disk) => disk.diskId === diskId)!, this.#cuts);
  }

  /** Tips that the machine has, if a cut of unknown outcome happened; their files may be missing. */
  intendedTips(diskId: string): ImageFile[] {
    return this.#cuts.filter(({ state }) => state === 'intended').map(({ tips }) => tips[diskId]!);
  }

  /** A cut that freezes the guest was begun, and whether it ended is not known. */
  get mayHaveFrozen(): boolean {
    return this.#cuts.some((cut) => cut.state === 'intended' && aimOf(cut) !== 'crash');
  }

  /**
   * Ends what was interrupted, now that it is known whether the machine runs: a cut of which it is not known whether it
   * happened. Throws PROTECTION_STALE_BASE if the machine runs on other tips than the recorded ones.
   */
  async reconcile(running: RunningMachine | undefined): Promise<void> {
    for (const cut of this.#cuts.filter(({ state }) => state === 'intended')) {
      if (await this.#hasHappened(cut, running)) {
        if (!running) await this.#syncSealed(cut);
        await this.#store({
          ...cut,
          ...(await followGrowth(this.#tools, this.#disks, cut, running)),
          state: 'sealed',
          degraded: 'the site process ended during the cut',
          consistency: 'crash',
        });
      } else {
        await this.#forget(cut);
      }
    }
    if (running) checkTips(this.#machine.disks, this.#cuts, await running.disks());
    await this.#growShortTips(running);
    await this.#removeLeftovers();
  }

  async #growShortTips(running: RunningMachine | undefined): Promise<void> {
    const last = happened(this.#cuts).at(-1);
    if (!last?.short) return;
    const { short, ...cut } = last;
    const still = await shortTips(this.#tools, this.#disks, last, running);
    if (still.short?.length !== short.length) await this.#store({ ...cut, ...still });
  }

  /**
   * Removes layers of which a record says that their content has been committed: a kill may have left them, and a power
   * cut brings removed names back. Files that no record names are left alone. Durable on return.
   */
  async #removeLeftovers(): Promise<void> {
    const { files } = this.#tools;
    for (const disk of this.#disks) {
      const directory = this.#layout.disk(disk.diskId);
      const names = new Set(await files.list(directory));
      const chain = new Set(this.chain(disk.diskId).map(({ path }) => path));
      const left = happened(this.#cuts)
        .flatMap(({ merged, sealed, leftovers }) => [...(merged ? [sealed] : []), ...(leftovers ?? [])])
        .flatMap((images) => images[disk.diskId]?.path ?? [])
        .filter((path) => dirname(path) === directory && names.has(basename(path)) && !chain.has(path));
      if (left.length === 0) continue;
      await this.#freed;
      this.#freed = (await removeUnwaited(files, left)).freed;
      await files.syncDirectory(directory);
    }
  }

  /**
   * Whether the interrupted cut became the machine's tips. A running machine tells. Of a stopped one it does not matter: with
   * all its empty overlays on disk the cut is as good as made, for nothing has been written to the layers below since.
   */
  async #hasHappened(cut: CutRecord, running: RunningMachine | undefined): Promise<boolean> {
    if (running) {
      const tips = (await running.disks()).map(({ chain }) => chain.at(-1)?.path);
      // All of them have their tips or none; a disk may have been unplugged since.
      return Object.values(cut.tips).some(({ path }) => tips.includes(path));
    }
    for (const { path } of Object.values(cut.tips)) {
      if ((await this.#tools.files.sizeOf(path)) === undefined) return false;
    }
    return true;
  }

  /**
   * Seals the present tips of all disks at one instant and puts empty ones in their place. The copy is made in any case if
   * the disks can be cut; what consistency it reached stands on the record. With `together` the instant is that of several
   * machines. Throws PROTECTION_STALE_BASE as `reconcile`.
   */
  async cut(
    type: CopyType,
    freezeLimitMs: number,
    running: RunningMachine | undefined,
    together?: CutTogether,
  ): Promise<CutRecord> {
    const { clock, random } = this.#tools;
    // A cut is laid on the recorded tips: an earlier one of unknown outcome, or a machine that has been given other
    // disks meanwhile, would make the record wrong.
    await this.reconcile(running);
    const found = (await running?.disks()) ?? [];
    const sizes = await sizesNow(this.#tools.files, this.#disks, this.#cuts, found);
    const leftOut = strangersAmong(found, this.#machine);
    const before = this.#cuts;
    const cutId = newId(clock, random);
    const intended: CutRecord = {
      cutId,
      ordinal: (this.#cuts.at(-1)?.ordinal ?? 0) + 1,
      state: 'intended',
      copyType: type.name,
      ...(aimOf({ copyType: type.name }) === type.aim ? {} : { aim: type.aim }),
      ...(type.assertions?.length ? { assertions: type.assertions } : {}),
      consistency: 'crash',
      cutAtMs: clock.wallMs(),
      pauseMs: 0,
      sealed: Object.fromEntries(this.#disks.map(({ diskId }) => [diskId, this.chain(diskId).at(-1)!])),
      tips: Object.fromEntries(
        this.#disks.map(({ diskId }) => [
          diskId,
          { path: this.#layout.layer(diskId, cutId), format: 'qcow2' },
        ]),
      ),
      sizes,
      ...(leftOut.length > 0 ? { leftOut } : {}),
      merged: false,
      missed: [],
    };
    await this.#store(intended);
    try {
      await this.#createTips(intended);
      const reached = await this.#seal(intended, type, freezeLimitMs, running, together);
      const grown = await followGrowth(this.#tools, this.#disks, intended, running);
      const grownBytes = grownTogether(await tipGrowth(this.#tools.files, this.#disks, before));
      const sealed: CutRecord = { ...intended, ...reached, ...grown, grownBytes, state: 'sealed' };
      await this.#store(sealed);
      return sealed;
    } catch (error) {
      // Whether it happened is known only to the machine; an intent that stays is settled at the next occasion.
      if (!running || (await this.#isCertainlyNotCut(intended, running))) await this.#forget(intended);
      throw error;
    }
  }

  async #createTips(cut: CutRecord): Promise<void> {
    for (const disk of this.#disks) {
      const { diskId } = disk;
      const below = cut.sealed[diskId]!;
      const shape = { sizeBytes: sizeAt(disk, cut), backing: { name: below.path, format: below.format } };
      await this.#makeDiskDirectory(diskId);
      await createEmptyLayer(this.#tools.files, cut.tips[diskId]!.path, shape, { sync: true });
    }
  }

  /**
   * The end of an earlier protection has removed it; a tip must not be lost with a name above its own. One that is there need not be
   * durable: whoever made it may have been killed, or have failed, in between.
   */
  async #makeDiskDirectory(diskId: string): Promise<void> {
    const { files } = this.#tools;
    const isThere = (await files.list(this.#layout.disk(diskId))) !== undefined;
    if (isThere && this.#durable.has(diskId)) return;
    this.#durable.delete(diskId);
    await files.makeDirectory(this.#layout.disk(diskId));
    await files.syncDirectory(this.#layout.disks);
    await files.syncDirectory(this.#layout.directory);
    this.#durable.add(diskId);
  }

  async #seal(
    cut: CutRecord,
    type: CopyType,
    freezeLimitMs: number,
    running: RunningMachine | undefined,
    together: CutTogether | undefined,
  ): Promise<
    Pick<
      CutRecord,
      'consistency' | 'degraded' | 'cutAtMs' | 'pauseMs' | 'frozenMs' | 'hooks' | 'group' | 'tpm'
    >
  > {
    const { clock, files } = this.#tools;
    const tpmDirectory = this.#machine.tpm?.directory;
    if (!running) {
      await this.#syncSealed(cut);
      const { tpm, withoutTpm } = tpmDirectory === undefined ? {} : await tpmOfStopped(files, tpmDirectory);
      const degraded = together?.stopped() ?? withoutTpm;
      const off = { cutAtMs: clock.wallMs(), pauseMs: 0, ...(tpm ? { tpm } : {}) };
      return { consistency: 'crash', ...(degraded ? { degraded } : {}), ...off };
    }
    const disks = this.#disks.map(({ deviceName, diskId }) => ({ deviceName, overlay: cut.tips[diskId]! }));
    // What has been written out before is not waited for while several machines stand still.
    if (together) await this.#syncSealed(cut);
    const group =
      together && tpmDirectory !== undefined ? sealingTogether(files, tpmDirectory, together) : together;
    await group?.ready({ running, pointId: cut.cutId, disks });
    const act = async (): Promise<SealedCut> => {
      if (group) return group.seal();
      if (tpmDirectory !== undefined) return sealedWithTpm(this.#tools, tpmDirectory, running, disks);
      const cutAtMs = clock.wallMs();
      return { cutAtMs, ...(await running.cut(disks)) };
    };
    const { cutId } = cut;
    const { result, ...reached } = await quiesced({
      ...{ running, type, cutId, freezeLimitMs, clock, owed: this.owedHooks, work: act },
    });
    const { apart, withoutTpm, ...sealed } = result;
    const degraded = reached.degraded ?? apart ?? withoutTpm;
    return { ...reached, ...(degraded === undefined ? {} : { degraded }), ...sealed };
  }

  /**
   * Makes durable what the cut sealed. A running machine flushes when it is cut; one that was killed has left what it
   * wrote in the page cache, and a target must never hold what this site can still lose.
   */
  async #syncSealed(cut: CutRecord): Promise<void> {
    for (const { path } of Object.values(cut.sealed)) {
      const file = await this.#tools.files.open(path, 'read');
      try {
        await file.sync();
      } finally {
        await file.close();
      }
    }
  }

  async #isCertainlyNotCut(cut: CutRecord, running: RunningMachine): Promise<boolean> {
    try {
      return !(await this.#hasHappened(cut, running));
    } catch (error) {
      this.#tools.log.warn('cut.outcome-unknown', { cutId: cut.cutId, reason: messageOf(error) });
      return false;
    }
  }

  /** Commits down every layer that no target needs any more, the oldest first. Returns how many layers went. */
  async merge(places: readonly TargetPlace[], running: RunningMachine | undefined): Promise<number> {
    const due = cutsToMerge(this.#disks, this.#cuts, places);
    const last = due.at(-1);
    // Whatever becomes of this, the files below read as no older state from here on.
    if (last && !last.merging) await this.#store({ ...last, merging: true });
    for (const { merging: _over, ...cut } of due) {
      for (const { disk, layer } of ownLayersOf(this.#disks, cut)) {
        await this.#commitDown(disk, layer, disk.chain.at(-1)!, running);
      }
      await this.#store({ ...cut, merged: true });
    }
    await this.#removeLeftovers();
    for (const cut of settledCuts(this.#disks, this.#cuts, places)) await this.#removeRecord(cut);
    return due.length;
  }

  /** Keeps the number of layers that wait within bounds while a target does not acknowledge. */
  async compact(places: readonly TargetPlace[], running: RunningMachine | undefined): Promise<number> {
    let compacted = 0;
    for (;;) {
      const pair = nextToJoin(this.#disks, this.#cuts, places);
      if (!pair) return compacted;
      await this.#absorb(pair.older, pair.younger, running);
      compacted += 1;
    }
  }

  async #absorb(older: CutRecord, younger: CutRecord, running: RunningMachine | undefined): Promise<void> {
    await this.#store({ ...older, state: 'absorbing' });
    const isDone = younger.missed.some(({ pointId }) => pointId === older.cutId);
    // Of a disk that came with the younger one there is nothing to take in.
    const taken = disksOf(disksOf(this.#disks, younger), older).filter(
      ({ diskId }) => younger.sealed[diskId]!.path !== older.sealed[diskId]!.path,
    );
    if (!isDone) {
      for (const disk of taken) {
        await this.#commitDown(disk, younger.sealed[disk.diskId]!, older.sealed[disk.diskId]!, running);
      }
      const reason = 'not acknowledged in time; its changes are part of the next point';
      await this.#store({
        ...younger,
        sealed: { ...younger.sealed, ...imagesOf(taken, older) },
        leftovers: [imagesOf(taken, younger)],
        ...(older.merging ? { merging: true as const } : {}),
        ...takingIn(older, younger, reason),
      });
    }
    await this.#removeRecord(older);
    await this.#removeLeftovers();
  }

  /** Commits one layer into the file below it, in the machine if it runs, else in the files. */
  async #commitDown(
    disk: ProtectedDisk,
    layer: ImageFile,
    below: ImageFile,
    running: RunningMachine | undefined,
  ): Promise<void> {
    if (running) return running.commit(disk.deviceName, layer);
    const { files, images } = this.#tools;
    if ((await files.sizeOf(layer.path)) === undefined) return; // An earlier try had come this far.
    const chain = this.chain(disk.diskId);
    const base = chain.findIndex(({ path }) => path === below.path);
    await images.commit([...chain.slice(0, base + 1), layer]);
    const above = chain[chain.findIndex(({ path }) => path === layer.path) + 1];
    assert(above !== undefined, 'a sealed layer has another one above it');
    await images.reparent(above, below);
  }

  /** Takes a disk that cannot be read any more out of the copies that wait: they could never be sent with it. */
  async dropFromUnsent(diskId: string, acknowledgedOrdinal: number): Promise<void> {
    const waiting = this.#cuts.filter(
      (cut) => cut.ordinal > acknowledgedOrdinal && cut.sealed[diskId] !== undefined,
    );
    for (const cut of waiting) {
      const { [diskId]: _sealed, ...sealed } = cut.sealed;
      const { [diskId]: _tip, ...tips } = cut.tips;
      const lost = `${diskId} was lost before this copy was sent`;
      await this.#store({ ...cut, sealed, tips, degraded: cut.degraded ?? lost });
    }
  }

  /**
   * The second half of the end of a protection: layers and records of ours are removed; with `setAside` layers are kept there instead. May
   * be repeated: what they are kept in is named after the newest cut, whose record goes last then.
   */
  async remove(setAside: string | undefined): Promise<void> {
    const { files } = this.#tools;
    // An earlier try may have set them aside, and a process that has started since have made their directories anew.
    if (setAside === undefined || !(await this.#hasLayers())) {
      await files.removeDirectory(this.#layout.disks);
    } else {
      await files.rename(this.#layout.disks, setAside);
    }
    await files.syncDirectory(this.#layout.directory);
    const cuts = setAside === undefined ? [...this.#cuts].reverse() : this.#cuts;
    for (const cut of cuts) await this.#removeRecord(cut);
  }

  async #hasLayers(): Promise<boolean> {
    const { files } = this.#tools;
    for (const diskId of (await files.list(this.#layout.disks)) ?? [])
      if ((await files.list(this.#layout.disk(diskId)))?.length) return true;
    return false;
  }

  async #forget(cut: CutRecord): Promise<void> {
    const { files } = this.#tools;
    await this.#store({ ...cut, state: 'intended' });
    for (const [diskId, { path }] of Object.entries(cut.tips)) {
      // It failed before it came to the directory of this disk.
      if ((await files.list(this.#layout.disk(diskId))) === undefined) continue;
      await files.remove(`${path}.new`);
      await files.remove(path);
      await files.syncDirectory(this.#layout.disk(diskId));
    }
    await this.#removeRecord(cut);
  }

  async #store(cut: CutRecord): Promise<void> {
    await storeRecord(this.#tools.files, this.#layout.cut(cut.cutId), CUT_RECORD, cut);
    const others = this.#cuts.filter(({ cutId }) => cutId !== cut.cutId);
    this.#cuts = [...others, cut].sort((a, b) => a.ordinal - b.ordinal);
  }

  async #removeRecord(cut: CutRecord): Promise<void> {
    await this.#tools.files.remove(this.#layout.cut(cut.cutId));
    await this.#tools.files.syncDirectory(this.#layout.cuts);
    this.#cuts = this.#cuts.filter(({ cutId }) => cutId !== cut.cutId);
  }
}

function imagesOf(disks: readonly ProtectedDisk[], { sealed }: CutRecord): CutRecord['sealed'] {
  return Object.fromEntries(disks.map(({ diskId }) => [diskId, sealed[diskId]!]));
}
