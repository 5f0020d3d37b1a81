import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import type {
  DiskImages,
  Hypervisor,
  ImageFile,
  Pivot,
  PreparedCut,
  RunningMachine,
} from '../../src/hypervisor/index.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import type { CleanUp } from '../support/temporary.ts';

/**
 * A machine that runs on two disks of zeros, `one` and `two`, without a guest agent that answers, and somebody who writes
 * to them as its guest does.
 */
export interface MachineUnderTest {
  readonly hypervisor: Hypervisor;
  readonly images: DiskImages;
  readonly files: FileSystem;
  readonly running: RunningMachine;
  /** The device names of the two disks. */
  readonly one: string;
  readonly two: string;
  /** Fills `length` bytes from `offset` on with the byte `fill`; done when the machine has taken them. */
  write(deviceName: string, offset: number, length: number, fill: number): Promise<void>;
  /** A new empty layer above `below`, not yet known to the machine. */
  newLayer(below: ImageFile): Promise<ImageFile>;
}

const CLUSTER = 131_072;

/** What every `Hypervisor` and its machines must do. */
export function hypervisorContract(name: string, make: (t: CleanUp) => Promise<MachineUnderTest>): void {
  describe(`${name} keeps the contract of Hypervisor`, () => {
    test('S0.2 a cut gives every disk its new tip at once, and what it sealed never changes', async (t) => {
      const it = await make(t);
      await it.write(it.one, 0, 4096, 1);
      await it.write(it.two, 0, 4096, 2);
      const before = await chains(it);
      const overlays = await cut(it);
      const after = await chains(it);
      assert.deepEqual(after, [
        [...before[0]!, overlays[0]!],
        [...before[1]!, overlays[1]!],
      ]);
      const sealed = await wholeFile(it, before[0]!.at(-1)!);
      await it.write(it.one, 0, 8192, 9);
      assert.ok((await wholeFile(it, before[0]!.at(-1)!)).equals(sealed));
      assert.deepEqual(await bytesAt(it, after[0]!.slice(0, -1), [0, 4096]), [1, 0]);
      assert.equal(await it.running.state(), 'running');
    });

    test('S0.28 a cut that one disk cannot take changes no disk, and the next one works', async (t) => {
      const it = await make(t);
      const before = await chains(it);
      const [good, bad] = [await it.newLayer(before[0]!.at(-1)!), await it.newLayer(before[1]!.at(-1)!)];
      await it.files.remove(bad.path);
      const cuts = [
        { deviceName: it.one, overlay: good },
        { deviceName: it.two, overlay: bad },
      ];
      await assert.rejects(it.running.cut(cuts), { code: 'CUT_FAILED' });
      assert.deepEqual(await chains(it), before);
      const again = { deviceName: it.two, overlay: await it.newLayer(before[1]!.at(-1)!) };
      await it.running.cut([cuts[0]!, again]);
      assert.deepEqual(
        (await chains(it)).map((chain) => chain.at(-1)),
        [good, again.overlay],
      );
    });

    test('S0.28 a prepared cut changes nothing before it is sealed; left alone, it hinders no other', async (t) => {
      const it = await make(t);
      const before = await chains(it);
      await prepared(it);
      const cutLater = await prepared(it);
      assert.deepEqual(await chains(it), before);
      await it.write(it.one, 0, 4096, 1);
      await cutLater.seal();
      await it.write(it.one, 0, 4096, 2);
      assert.deepEqual(await bytesAt(it, before[0]!, [0]), [1]);
    });

    test('S0.28 machines stand still while the work is done, and run again however it ends', async (t) => {
      const it = await make(t);
      const { running, hypervisor } = it;
      const seen: string[] = [];
      const report = await hypervisor.whilePaused([running], 10_000, async () => {
        seen.push(await running.state());
        await cut(it);
      });
      assert.deepEqual([seen, report.together, report.reason], [['paused'], true, undefined]);
      assert.ok(report.pausedMs > 0 && report.eachMs[0]! <= report.pausedMs);
      assert.equal(await running.state(), 'running');
      const failure = new Error('the work failed');
      await assert.rejects(
        hypervisor.whilePaused([running], 10_000, () => Promise.reject(failure)),
        failure,
      );
      assert.equal(await running.state(), 'running');
    });

    test('S0.28 a machine that a person has paused stays paused', async (t) => {
      const it = await make(t);
      await it.running.pause();
      const report = await it.hypervisor.whilePaused([it.running], 10_000, async () => void (await cut(it)));
      assert.deepEqual([report.together, report.eachMs], [true, [0]]);
      assert.equal(await it.running.state(), 'paused');
      assert.deepEqual(await it.running.standstill(), { why: 'paused' });
    });

    test('S0.28 work that takes too long is not waited for: the machine runs on', async (t) => {
      const it = await make(t);
      const ended = Promise.withResolvers<void>();
      const report = await it.hypervisor.whilePaused([it.running], 1_000, () => ended.promise);
      assert.equal(await it.running.state(), 'running');
      assert.deepEqual([report.together, report.pausedMs < 9_000], [false, true]);
      assert.match(report.reason!, /1000 ms/);
      ended.resolve();
    });

    test('S0.14 a commit takes the layer out of the chain and keeps its content; repeated, it does nothing', async (t) => {
      const it = await make(t);
      const origins = await chains(it);
      const [layer] = await cut(it);
      await it.write(it.one, CLUSTER, 4096, 3);
      const [tip] = await cut(it);
      await it.write(it.one, 2 * CLUSTER, 4096, 4);
      await it.running.commit(it.one, layer!);
      const [chain] = await chains(it);
      assert.deepEqual(chain, [...origins[0]!, tip!]);
      await it.files.remove(layer!.path);
      await it.running.commit(it.one, layer!);
      assert.deepEqual(await bytesAt(it, origins[0]!, [CLUSTER, 2 * CLUSTER]), [3, 0]);
      await it.write(it.one, 3 * CLUSTER, 4096, 5);
      await cut(it);
      assert.deepEqual(await bytesAt(it, chain!, [CLUSTER, 2 * CLUSTER, 3 * CLUSTER]), [3, 4, 5]);
    });

    test('S0.2 a disk that is grown is larger for the guest at once; a commit takes its size down', async (t) => {
      const it = await make(t);
      const sizeNow = async () =>
        (await it.running.disks()).find(({ deviceName }) => deviceName === it.one)!.sizeBytes;
      const before = await sizeNow();
      const [origin] = (await chains(it))[0]!;
      const [layer] = await cut(it);
      for (let i = 0; i < 2; i++) await it.running.growDisk(it.one, before + 2 * CLUSTER);
      assert.equal(await sizeNow(), before + 2 * CLUSTER);
      await it.running.growDisk(it.one, before);
      const cutLater = await prepared(it);
      await it.running.growDisk(it.one, before + 4 * CLUSTER);
      await it.write(it.one, before + CLUSTER, 4096, 6);
      await it.write(it.one, before + 3 * CLUSTER, 4096, 7);
      // Its overlay was written for a smaller disk: the guest keeps the end of its disk, and what it wrote there.
      await cutLater.seal();
      assert.equal(await sizeNow(), before + 4 * CLUSTER);
      const sealed = (await chains(it))[0]!;
      await cut(it);
      assert.deepEqual(await bytesAt(it, sealed, [before + CLUSTER, before + 3 * CLUSTER]), [6, 7]);
      await it.running.commit(it.one, layer!);
      assert.deepEqual(await bytesAt(it, [origin!], [before + CLUSTER]), [6]);
    });

    test('the tip, and what lies on nothing, is never committed as a layer', async (t) => {
      const it = await make(t);
      const [origin] = await chains(it);
      await assert.rejects(it.running.commit(it.one, origin!.at(-1)!), { code: 'COMMIT_FAILED' });
      const [tip] = await cut(it);
      await assert.rejects(it.running.commit(it.one, tip!), { code: 'COMMIT_FAILED' });
      await assert.rejects(it.running.commit('no such device', tip!));
    });

    test('S0.14 disks that are level change over to their bases at once, and their tips lose their names', async (t) => {
      const it = await make(t);
      const { before, pivots } = await threeLayers(it);
      for (const { deviceName, base } of pivots) await it.running.commitTip(deviceName, base);
      // Level again is level still, and the guest still writes to its tip.
      await it.running.commitTip(it.one, pivots[0]!.base);
      await it.write(it.one, 5 * CLUSTER, 4096, 5);
      assert.deepEqual(
        (await chains(it)).map((chain) => chain.at(-1)),
        pivots.map(({ tip }) => tip),
      );
      const { pausedMs, failure } = await it.running.pivot(pivots, { continues: true });
      assert.equal(failure, undefined);
      assert.ok(pausedMs > 0);
      assert.equal(await it.running.state(), 'running');
      assert.deepEqual(await chains(it), before);
      for (const one of pivots) assert.deepEqual(await isGivenBack(it, one), true);
      await it.write(it.one, 6 * CLUSTER, 4096, 6);
      await it.running.letGoOf(pivots.map(({ tip }) => tip));
      await it.running.quit();
      const offsets = [0, 2, 3, 4, 5, 6].map((cluster) => cluster * CLUSTER);
      assert.deepEqual(await bytesAt(it, before[0]!, offsets), [1, 2, 3, 4, 5, 6]);
    });

    test('S0.14 commits that are given up leave the guest on its tips, and can be begun again', async (t) => {
      const it = await make(t);
      const { before, pivots } = await threeLayers(it);
      await it.running.commitTip(it.one, pivots[0]!.base);
      await it.running.settlePivots(pivots, { continues: true });
      await it.write(it.one, 5 * CLUSTER, 4096, 5);
      assert.deepEqual((await chains(it))[0]!.at(-1), pivots[0]!.tip);
      for (const one of pivots) assert.deepEqual(await isGivenBack(it, one), false);
      // Only what is level can change over; the other disk stays where it is, and the guest runs.
      await it.running.commitTip(it.one, pivots[0]!.base);
      const { failure } = await it.running.pivot(pivots, { continues: true });
      assert.equal(failure?.code, 'COMMIT_FAILED');
      assert.equal(await it.running.state(), 'running');
      assert.deepEqual(
        (await chains(it)).map((chain) => chain.at(-1)),
        [before[0]!.at(-1), pivots[1]!.tip],
      );
      assert.deepEqual(await Promise.all(pivots.map((one) => isGivenBack(it, one))), [true, false]);
      await it.running.quit();
      assert.deepEqual(await bytesAt(it, before[0]!, [4 * CLUSTER, 5 * CLUSTER]), [4, 5]);
    });

    test('S0.14 a guest that is left standing still by a pivot runs on when it is settled', async (t) => {
      const it = await make(t);
      const { before, pivots } = await threeLayers(it);
      for (const { deviceName, base } of pivots) await it.running.commitTip(deviceName, base);
      await it.running.pause();
      await it.running.settlePivots(pivots, { continues: true });
      assert.equal(await it.running.state(), 'running');
      await it.running.pause();
      for (const { deviceName, base } of pivots) await it.running.commitTip(deviceName, base);
      // Its owner has paused it: it changes over, and stands still.
      assert.deepEqual(await it.running.pivot(pivots, { continues: false }), { pausedMs: 0 });
      assert.equal(await it.running.state(), 'paused');
      assert.deepEqual(await chains(it), before);
    });

    test('S0.14 a commit in the middle never has the guest change over, whatever was begun before', async (t) => {
      const it = await make(t);
      const { pivots } = await threeLayers(it);
      const [, layer] = (await chains(it))[0]!;
      await it.running.commitTip(it.one, pivots[0]!.base);
      await it.running.commit(it.one, layer!);
      const [chain] = await chains(it);
      assert.deepEqual([chain!.at(-1), chain!.includes(layer!)], [pivots[0]!.tip, false]);
      await assert.rejects(it.running.commitTip(it.one, layer!), { code: 'COMMIT_FAILED' });
    });

    test('work for a frozen guest is done in any case, and what was reached is told', async (t) => {
      const it = await make(t);
      const { result, consistent, reason } = await it.running.whileFrozen(1000, async () => 'done');
      assert.equal(result, 'done');
      assert.equal(consistent, false);
      assert.match(reason!, /guest agent/);
      const failure = new Error('the work failed');
      await assert.rejects(
        it.running.whileFrozen(1000, () => Promise.reject(failure)),
        failure,
      );
    });

    test('nothing is thawed that nobody froze, and nobody is kept waiting for it', async (t) => {
      const it = await make(t);
      assert.notEqual(await it.running.thawAbandoned(100), 'thawed');
    });

    test('a machine is found by its run directory, and ended by it, whoever started it', async (t) => {
      const it = await make(t);
      const runDirectory = dirname(it.running.sockets.qmpPath);
      assert.equal((await it.hypervisor.processesOf(runDirectory)).length, 1);
      assert.deepEqual(await it.hypervisor.processesOf(join(runDirectory, 'other')), []);
      await it.hypervisor.end(join(runDirectory, 'other'));
      assert.equal((await it.hypervisor.processesOf(runDirectory)).length, 1, 'it is none of that one');
      await it.hypervisor.end(runDirectory);
      assert.deepEqual(await it.hypervisor.processesOf(runDirectory), []);
      await it.running.gone;
      await it.hypervisor.end(runDirectory);
    });

    test('a machine that has ended is gone for everybody', async (t) => {
      const it = await make(t);
      const { sockets } = it.running;
      await it.running.quit();
      await it.running.gone;
      await assert.rejects(it.hypervisor.attach(sockets), { code: 'MACHINE_NOT_RUNNING' });
      await assert.rejects(it.running.disks());
    });

    test('a machine that is let go of runs on and is found again as it was', async (t) => {
      const it = await make(t);
      await cut(it);
      const before = await chains(it);
      await it.running.disconnect();
      await it.running.gone;
      await using again = await it.hypervisor.attach(it.running.sockets);
      assert.deepEqual(
        (await again.disks()).map(({ chain }) => chain),
        before,
      );
    });
  });
}

async function chains({ running, one, two }: MachineUnderTest): Promise<ImageFile[][]> {
  const disks = await running.disks();
  return [one, two].map((name) => [...disks.find(({ deviceName }) => deviceName === name)!.chain]);
}

/** Three layers on each disk, and what it would be to change over to what was there before. */
async function threeLayers(it: MachineUnderTest): Promise<{ before: ImageFile[][]; pivots: Pivot[] }> {
  const before = await chains(it);
  await it.write(it.one, 0, 4096, 1);
  for (const fill of [2, 3, 4]) {
    await cut(it);
    await it.write(it.one, fill * CLUSTER, 4096, fill);
  }
  const tips = (await chains(it)).map((chain) => chain.at(-1)!);
  const pivots = [it.one, it.two].map((deviceName, index) => ({
    ...{ deviceName, base: before[index]!.at(-1)!, tip: tips[index]! },
    givenBackPath: `${tips[index]!.path}.given-back`,
  }));
  return { before, pivots };
}

async function isGivenBack({ files }: MachineUnderTest, { tip, givenBackPath }: Pivot): Promise<boolean> {
  const [there, given] = [await files.sizeOf(tip.path), await files.sizeOf(givenBackPath)];
  assert.ok((there === undefined) !== (given === undefined), 'it has one of the two names');
  return given !== undefined;
}

/** Cuts both disks; returns the new tips. */
async function cut(it: MachineUnderTest): Promise<ImageFile[]> {
  const cuts = [];
  for (const [index, chain] of (await chains(it)).entries()) {
    cuts.push({ deviceName: index === 0 ? it.one : it.two, overlay: await it.newLayer(chain.at(-1)!) });
  }
  const { pauseMs } = await it.running.cut(cuts);
  assert.ok(pauseMs >= 0);
  return cuts.map(({ overlay }) => overlay);
}

/** Both disks, ready to be cut. */
async function prepared(it: MachineUnderTest): Promise<PreparedCut> {
  const cuts = [];
  for (const [index, chain] of (await chains(it)).entries()) {
    cuts.push({ deviceName: index === 0 ? it.one : it.two, overlay: await it.newLayer(chain.at(-1)!) });
  }
  return it.running.prepareCut(cuts);
}

/** The first byte at each offset, of a chain whose last file nobody writes. */
async function bytesAt(
  { images }: MachineUnderTest,
  chain: readonly ImageFile[],
  offsets: readonly number[],
) {
  await using reader = await images.open(chain);
  const found: number[] = [];
  for (const offset of offsets) {
    const byte = Buffer.alloc(1);
    await reader.readInto(byte, offset);
    found.push(byte[0]!);
  }
  return found;
}

async function wholeFile({ files }: MachineUnderTest, { path }: ImageFile): Promise<Buffer> {
  const file = await files.open(path, 'read');
  try {
    const bytes = Buffer.alloc(await file.sizeBytes());
    await file.read(bytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}
