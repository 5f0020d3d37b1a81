import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WriteWatch } from '../../../src/control/machines/write-watch.ts';
import { emptyLayerBytes } from '../../../src/qcow2/index.ts';
import type { CopySchedule } from '../../../src/recovery-point/index.ts';
import type { CutRecord, MachineRecord } from '../../../src/replication/index.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 1024 * MIB;

function after(copyType: string, bytes: number): CopySchedule {
  return { copyType, triggers: [{ kind: 'written', bytes }] };
}

/** A machine of disks whose tips grow as told, and that tells what it was asked to watch. */
function watched(schedules: readonly CopySchedule[], diskIds: readonly string[]) {
  const sizes = new Map<string, number>();
  const offsets: Record<string, number>[] = [];
  const reached: string[] = [];
  /** What happens right after the machine has begun to watch. */
  let whenWatching = (): void => undefined;
  const cutOf = (ordinal: number, copyType: string, grownBytes: number): CutRecord => {
    const tips = diskIds.map((id) => [id, { path: `/${id}-${ordinal}`, format: 'qcow2' }] as const);
    for (const [, { path }] of tips) sizes.set(path, emptyLayerBytes(DISK_BYTES));
    return {
      ...{ cutId: `cut-${ordinal}`, ordinal, state: 'sealed', copyType, grownBytes },
      tips: Object.fromEntries(tips),
    } as unknown as CutRecord;
  };
  const machine = {
    record: {
      disks: diskIds.map((id) => ({ diskId: id, deviceName: `dev-${id}`, sizeBytes: DISK_BYTES })),
      protection: { schedules },
    } as unknown as MachineRecord,
    cuts: [cutOf(1, 'crash', 0)],
    running: {
      watchTips: async (asked: Record<string, number>) => {
        offsets.push(asked);
        whenWatching();
      },
    } as { watchTips: (asked: Readonly<Record<string, number>>) => Promise<void> } | undefined,
  };
  const watch = new WriteWatch({
    ...{ machine, files: { sizeOf: async (path) => sizes.get(path) } },
    reached: (copyType) => void reached.push(copyType),
  });
  const tipOf = (diskId: string) => machine.cuts.at(-1)!.tips[diskId]!.path;
  const box = {
    ...{ machine, watch, reached, offsets, cutOf },
    write: (diskId: string, bytes: number) =>
      void sizes.set(tipOf(diskId), sizes.get(tipOf(diskId))! + bytes),
    onWatching: (act: () => void) => {
      whenWatching = () => {
        whenWatching = () => undefined;
        act();
      };
    },
    /** Writes as a machine does that tells when a tip passes its offset. */
    writeAndTell: async (diskId: string, bytes: number) => {
      box.write(diskId, bytes);
      if (sizes.get(tipOf(diskId))! > (offsets.at(-1)?.[`dev-${diskId}`] ?? 0)) await watch.look();
    },
    copy: (copyType: string) => {
      const grown = diskIds.map((id) => sizes.get(tipOf(id))! - emptyLayerBytes(DISK_BYTES));
      const cut = cutOf(
        machine.cuts.length + 1,
        copyType,
        grown.reduce((a, b) => a + b, 0),
      );
      machine.cuts = [...machine.cuts, cut];
      watch.copied(cut);
      return watch.look();
    },
  };
  return box;
}

describe('what a guest has written', () => {
  it('S0.8 is due once when it is as much as was said, over all disks together, and anew after the copy', async () => {
    const box = watched([after('crash', 64 * MIB)], ['a', 'b', 'c']);
    await box.watch.look();
    for (let round = 0; round < 63; round++) await box.writeAndTell('abc'[round % 3]!, MIB);
    assert.deepEqual(box.reached, []);
    await box.writeAndTell('a', 3 * MIB);
    assert.deepEqual(box.reached, ['crash']);
    await box.watch.look();
    await box.writeAndTell('b', 500 * MIB);
    assert.deepEqual(box.reached, ['crash'], 'it is told once until there is a copy');
    await box.copy('crash');
    assert.deepEqual(box.reached, ['crash']);
    await box.writeAndTell('c', 65 * MIB);
    assert.deepEqual(box.reached, ['crash', 'crash']);
  });

  it('S0.8 costs few looks, however much is to be written, and none while nothing is', async () => {
    const box = watched([after('crash', 64 * 1024 * MIB)], ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']);
    await box.watch.look();
    let written = 0;
    while (box.reached.length === 0) {
      await box.writeAndTell('a', MIB);
      written += MIB;
    }
    assert.ok(box.offsets.length < 100, `${box.offsets.length} looks`);
    assert.equal(written, 64 * 1024 * MIB);
  });

  it('S0.8 counts for a rarer type what the copies of others have sealed; any copy is a crash-consistent one', async () => {
    const box = watched([after('crash', 8 * MIB), after('app', 20 * MIB)], ['a']);
    await box.watch.look();
    for (let round = 0; round < 2; round++) {
      await box.writeAndTell('a', 8 * MIB);
      assert.deepEqual(box.reached.splice(0), ['crash']);
      await box.copy('crash');
    }
    await box.writeAndTell('a', 3 * MIB);
    assert.deepEqual(
      (await box.watch.progress()).map((type) => Object.values(type)),
      [
        ['crash', 8 * MIB, 3 * MIB],
        ['app', 20 * MIB, 19 * MIB],
      ],
    );
    await box.writeAndTell('a', MIB);
    assert.deepEqual(box.reached.splice(0), ['app']);
    await box.copy('app');
    await box.writeAndTell('a', 7 * MIB);
    assert.deepEqual(box.reached, []);
    await box.writeAndTell('a', MIB);
    assert.deepEqual(box.reached, ['crash'], 'the copy of the other type began a new count for this one too');
  });

  it('S0.8 is not missed when it is written before the machine watches', async () => {
    const box = watched([after('crash', 8 * MIB)], ['a']);
    box.onWatching(() => box.write('a', 9 * MIB));
    await box.watch.look();
    assert.deepEqual(box.reached, ['crash']);
  });

  it('S0.8 goes on counting after a restart, with what lies in layers that are still there', async () => {
    const box = watched([after('app', 20 * MIB)], ['a']);
    box.machine.cuts = [1, 2, 3].map((ordinal) =>
      box.cutOf(ordinal, ordinal === 1 ? 'app' : 'crash', 9 * MIB),
    );
    box.watch.begin();
    await box.watch.look();
    assert.deepEqual(box.offsets.at(-1), { 'dev-a': emptyLayerBytes(DISK_BYTES) + 2 * MIB - 1 });
    box.machine.running = undefined;
    box.write('a', 2 * MIB);
    await box.watch.look();
    assert.deepEqual(box.reached, ['app'], 'that nobody watches does not hide what can be seen');
  });

  it('S0.8 asks nothing of a machine whose policy does not ask for it', async () => {
    const box = watched([{ copyType: 'crash', triggers: [{ kind: 'interval', everyMs: 1000 }] }], ['a']);
    await box.watch.look();
    assert.deepEqual(box.offsets, []);
    assert.deepEqual(await box.watch.progress(), []);
  });
});
