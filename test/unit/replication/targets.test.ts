/** Several targets of one machine, without QEMU: the machine is off, and its disks are written by the test. */
import assert from 'node:assert/strict';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { Replicas } from '../../../src/replica/index.ts';
import {
  type ProtectedMachine,
  type ReplicationTarget,
  withTargetChanged,
} from '../../../src/replication/index.ts';
import { uploadingBy } from '../../support/direct-target.ts';
import { DISK_BYTES, dyingFiles, readChain, type SeedMachine, seedSites } from '../../support/seed-sites.ts';
import { sized } from '../../support/size.ts';
import { openWritable } from '../../support/writable-image.ts';

const MIB = 1024 * 1024;
const STRIDE = sized({
  what: 'S0.29: steps between deaths of a process with two targets',
  normal: 18,
  full: 3,
});
/** More than a target may be behind before it is outrun. */
const COPIES = 12;
const EVERYTHING = { retention: { types: { crash: 100, app: 100 } }, compression: true };

/** A machine replicated to two sites, both of which have its first copy. */
async function twoTargets(t: TestContext, policy: { spacingMs?: number } = {}) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const other = await sites.anotherSite();
  await box.machine.addTarget({ siteId: other.target.siteId, ...EVERYTHING, ...policy });
  await box.machine.cut('crash');
  await sendAll(box.machine, sites.target);
  await sendAll(box.machine, other.target);
  return { sites, box, near: sites, far: other };
}

async function sendAll(machine: ProtectedMachine, target: ReplicationTarget): Promise<number> {
  for (let wireBytes = 0; ; ) {
    const outcome = await machine.replicate(target);
    if (outcome.kind === 'nothing') return wireBytes;
    if (outcome.kind === 'sent') wireBytes += outcome.wireBytes;
  }
}

/** The guest writes one page and a copy is made; every round at another place. */
async function change({ machine, write }: SeedMachine, round: number): Promise<void> {
  await write((round * 3 * 65_536) % (DISK_BYTES / 2), DISK_BYTES - 4096 * (round + 1));
  await machine.cut('crash');
}

async function holdsAll(replicas: Replicas, box: SeedMachine): Promise<void> {
  const replica = replicas.need(box.machine.record.machineId);
  const { pointId } = replica.newest!.statement;
  assert.equal(pointId, box.machine.cuts.at(-1)?.cutId, 'the newest copy is there');
  const found = await readChain(replica.chain(pointId, 'system'));
  assert.ok(found.equals(await box.content()), 'and reads as the machine does');
}

const recordOf = (machine: ProtectedMachine, { siteId }: ReplicationTarget) =>
  machine.targets.find((target) => target.siteId === siteId)!.record;
const layersOf = (machine: ProtectedMachine) => machine.chain('system').length;
const pointsOf = (replicas: Replicas, { machine }: SeedMachine) =>
  replicas.need(machine.record.machineId).points;

test('S0.29 two targets get every copy, each with its own numbers, and a layer goes when both have it', async (t) => {
  const { box, near, far } = await twoTargets(t);
  for (let round = 1; round <= 3; round++) {
    await change(box, round);
    await sendAll(box.machine, near.target);
    assert.equal(layersOf(box.machine), 3, 'the layer waits for the other target');
    await sendAll(box.machine, far.target);
    assert.equal(layersOf(box.machine), 2);
  }
  for (const { replicas } of [near, far]) {
    await holdsAll(replicas, box);
    const sequences = pointsOf(replicas, box).map(({ statement }) => statement.sequence);
    assert.deepEqual(sequences, [1, 2, 3, 4]);
  }
});

test('S0.29 a target that is dead for long holds nobody up, and gets what changed in one step', async (t) => {
  const { box, near, far } = await twoTargets(t);
  const { machine } = box;
  let layers = 0;
  for (let round = 1; round <= COPIES; round++) {
    await change(box, round % 6);
    await sendAll(machine, near.target);
    layers = Math.max(layers, layersOf(machine));
  }
  t.diagnostic(`at most ${layers} files in the chain while one target was dead for ${COPIES} copies`);
  assert.ok(layers <= 10, `${layers} files`);
  assert.equal(pointsOf(near.replicas, box).length, COPIES + 1, 'the other target has every copy as a point');
  assert.ok(recordOf(machine, far.target).outrun);

  const reopened = await box.reopen();
  const wireBytes = await sendAll(reopened, far.target);
  t.diagnostic(
    `${wireBytes} bytes crossed the wire for what ${COPIES} copies changed; the disks have ${2 * DISK_BYTES}`,
  );
  assert.ok(wireBytes < MIB, `${wireBytes} bytes`);
  await holdsAll(far.replicas, box);
  assert.equal(recordOf(reopened, far.target).outrun, undefined);
  const caughtUp = pointsOf(far.replicas, box);
  const told = caughtUp.flatMap(({ statement }) => statement.missed);
  assert.equal(told.length + caughtUp.length, COPIES + 1, 'every copy is a point there or told as missed');
  assert.equal(new Set(told.map(({ pointId }) => pointId)).size, told.length, 'each once');
  assert.match(told[0]!.reason, /behind the others/);

  await change(box, 3);
  await sendAll(reopened, near.target);
  await sendAll(reopened, far.target);
  assert.equal(layersOf(reopened), 2);
  for (const { replicas } of [near, far]) await holdsAll(replicas, box);
});

test('S0.29 where no target answers, layers are joined and nothing is merged away', async (t) => {
  const { box, near, far } = await twoTargets(t);
  for (let round = 1; round <= COPIES; round++) await change(box, round % 6);
  assert.ok(layersOf(box.machine) <= 10);
  for (const { target } of [near, far]) assert.equal(recordOf(box.machine, target).outrun, undefined);
  for (const { target, replicas } of [near, far]) {
    assert.ok((await sendAll(box.machine, target)) < MIB);
    await holdsAll(replicas, box);
  }
});

/** The target publishes what is uploaded, and its answer is lost. */
function losingAnswers(target: ReplicationTarget): ReplicationTarget {
  return uploadingBy(target, async (...upload) => {
    await target.upload(...upload);
    throw new Error('the answer was lost');
  });
}

test('S0.29 an acknowledgement that was lost before its target was outrun is found again, by ranges alone', async (t) => {
  const { box, near, far } = await twoTargets(t);
  await change(box, 1);
  await assert.rejects(box.machine.replicate(losingAnswers(far.target)), /answer was lost/);
  for (let round = 2; round <= COPIES; round++) {
    await change(box, round % 5);
    await sendAll(box.machine, near.target);
  }
  assert.ok(recordOf(box.machine, far.target).outrun?.unsure, 'it is known that the target may have a point');
  assert.ok((await sendAll(box.machine, far.target)) < MIB);
  await holdsAll(far.replicas, box);
  const told = pointsOf(far.replicas, box).flatMap(({ statement }) => statement.missed);
  assert.equal(told.length + pointsOf(far.replicas, box).length, COPIES + 1);
});

test('S0.29 the same for the first, complete copy', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const far = await sites.anotherSite();
  await box.machine.addTarget({ siteId: far.target.siteId, ...EVERYTHING });
  await box.machine.cut('crash');
  await assert.rejects(box.machine.replicate(losingAnswers(far.target)), /answer was lost/);
  for (let round = 1; round <= COPIES; round++) {
    await sendAll(box.machine, sites.target);
    await change(box, round % 5);
  }
  await sendAll(box.machine, sites.target);
  assert.ok((await sendAll(await box.reopen(), far.target)) < MIB, 'no second complete copy');
  await holdsAll(far.replicas, box);
});

test('S0.29 lost digests of a target that was outrun are computed from the disk here; nothing more crosses the wire', async (t) => {
  const { box, near, far } = await twoTargets(t);
  for (let round = 1; round <= COPIES; round++) {
    await change(box, round % 5);
    await sendAll(box.machine, near.target);
  }
  await rm(box.machine.layout.leavesOf(far.target.siteId), { recursive: true });
  assert.ok((await sendAll(await box.reopen(), far.target)) < MIB);
  await holdsAll(far.replicas, box);
});

test('S0.29 a process that is killed anywhere between record and merge loses no write for the target that lacks it', async (t) => {
  const { box, near, far } = await twoTargets(t);
  const { machineId } = box.machine.record;
  let deaths = 0;
  for (let left = 0; left < 150; left += STRIDE) {
    await change(await alive(), left % 11);
    const { files, hasDied } = dyingFiles(left);
    const died = await (async () => {
      const dying = await box.reopen(files);
      await dying.attach();
      await sendAll(dying, near.target);
    })().then(
      () => false,
      // What is checked is what the next process finds.
      () => true,
    );
    assert.ok(!died || hasDied(), 'nothing else goes wrong');
    if (hasDied()) deaths += 1;
  }
  t.diagnostic(`${deaths} deaths`);
  const machine = await box.reopen();
  await sendAll(machine, near.target);
  await sendAll(machine, far.target);
  await holdsAll(near.replicas, box);
  await holdsAll(far.replicas, box);
  assert.deepEqual(await readdir(far.replicas.need(machineId).layout.quarantine).catch(() => []), []);

  async function alive(): Promise<SeedMachine> {
    await box.reopen();
    await box.machine.attach();
    return box;
  }
});

test('S0.29 a delta that arrives only after its target was outrun twice is found again as well', async (t) => {
  const { box, near, far } = await twoTargets(t);
  const { machine } = box;
  await change(box, 1);
  const { late, arrive } = arrivingLate(far.target);
  await assert.rejects(machine.replicate(late), /line broke/);
  const { cutId } = machine.cuts.at(-1)!;
  for (let round = 2; round <= 2 * COPIES; round++) {
    await change(box, round % 5);
    await sendAll(machine, near.target);
    if (round === COPIES) await assert.rejects(machine.replicate(unoffered(far.target)), /no line/);
  }
  assert.notEqual(recordOf(machine, far.target).outrun?.unsure?.pointId, cutId);
  await arrive();
  assert.equal(pointsOf(far.replicas, box).at(-1)!.statement.pointId, cutId);
  assert.ok((await sendAll(await box.reopen(), far.target)) < MIB);
  await holdsAll(far.replicas, box);
  const told = pointsOf(far.replicas, box).flatMap(({ statement }) => statement.missed);
  assert.equal(told.length + pointsOf(far.replicas, box).length, 2 * COPIES + 1);
});

test('S0.29 the same for the first, complete copy, of which the target is asked again only when later ones have been made', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const far = await sites.anotherSite();
  const { machine } = box;
  await machine.addTarget({ siteId: far.target.siteId, ...EVERYTHING });
  await machine.cut('crash');
  const { cutId } = machine.cuts.at(-1)!;
  const { late, arrive } = arrivingLate(far.target);
  await assert.rejects(machine.replicate(late), /line broke/);
  await sendAll(machine, sites.target);
  for (let round = 1; round <= 2 * COPIES; round++) {
    // Each copy changes another place: what one of them holds stands in no other.
    await box.write(round * 65_536);
    await machine.cut('crash');
    await sendAll(machine, sites.target);
    if (round !== COPIES) continue;
    await assert.rejects(machine.replicate(unoffered(far.target)), /no line/);
    const { session, outrun } = recordOf(machine, far.target);
    const begun = machine.cuts.find((cut) => cut.cutId === session?.cutId);
    assert.ok(outrun && begun && begun.ordinal > outrun.throughOrdinal, 'a cut that came after those');
  }
  assert.notEqual(recordOf(machine, far.target).outrun?.unsure?.pointId, cutId);
  await arrive();
  assert.equal(pointsOf(far.replicas, box).at(-1)!.statement.pointId, cutId);
  assert.ok((await sendAll(await box.reopen(), far.target)) < DISK_BYTES / 2, 'no second complete copy');
  await holdsAll(far.replicas, box);
  const told = pointsOf(far.replicas, box).flatMap(({ statement }) => statement.missed);
  assert.equal(told.length + pointsOf(far.replicas, box).length, 2 * COPIES + 1);
});

/** The line breaks when everything has been sent, and what was sent is taken in when `arrive` is called. */
function arrivingLate(target: ReplicationTarget) {
  const sent: Uint8Array[] = [];
  let arrive = (): Promise<unknown> => assert.fail('nothing was sent');
  const late = uploadingBy(target, async (machineId, session, stream) => {
    for await (const chunk of stream) for (const bytes of [chunk].flat()) sent.push(Buffer.from(bytes));
    arrive = () => target.upload(machineId, session, pieces(sent));
    throw new Error('the line broke');
  });
  return { late, arrive: () => arrive() };
}

async function* pieces(sent: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* sent;
}

/** The target is asked what it has and hears nothing else. */
function unoffered(target: ReplicationTarget): ReplicationTarget {
  return {
    ...uploadingBy(target, target.upload),
    offer: () => Promise.reject(new Error('no line')),
  };
}

/** Files on which no merge can be recorded, as long as `isBroken` says so. */
function unmergeable(isBroken: () => boolean): {
  readonly files: FileSystem;
  readonly refused: () => number;
} {
  let refused = 0;
  const files: FileSystem = {
    ...nodeFiles,
    rename: async (from, to) => {
      const isOfMerge = to.includes('/cuts/') && JSON.parse(await readFile(from, 'utf8')).merged === true;
      if (!isOfMerge || !isBroken()) return nodeFiles.rename(from, to);
      refused += 1;
      throw fileFailure('write', to, new Error('EIO'));
    },
  };
  return { files, refused: () => refused };
}

test('S0.29 a complete copy whose acknowledgement was lost is found again after layers that it was read from have been merged', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const far = await sites.anotherSite();
  await box.machine.addTarget({ siteId: far.target.siteId, ...EVERYTHING });
  let isBroken = true;
  const { files, refused } = unmergeable(() => isBroken);
  const machine = await box.reopen(files);
  await machine.attach();
  await machine.cut('crash');
  const unreached = uploadingBy(far.target, () => Promise.reject(new Error('the line broke')));
  await assert.rejects(machine.replicate(unreached), /line broke/);
  for (let round = 1; refused() === 0; round++) {
    assert.ok(round <= COPIES, 'the target is outrun');
    await zeroPage(machine, round);
    await change(box, round % 5);
    await sendAll(machine, sites.target);
  }
  await assert.rejects(machine.replicate(losingAnswers(far.target)), /answer was lost/);
  const { pointId } = far.replicas.need(machine.record.machineId).newest!.statement;
  isBroken = false;
  await sendAll(machine, sites.target);
  const { outrun } = recordOf(machine, far.target);
  const [cut] = machine.cuts.filter(({ cutId }) => cutId === pointId);
  assert.ok(outrun?.unsure?.pointId === pointId && cut?.merged, 'it may be there, and its layers are merged');
  assert.ok((await sendAll(machine, far.target)) < MIB, 'no second complete copy');
  await holdsAll(far.replicas, box);
});

/** The guest gives a page back: a layer says that it is zero, a raw file holds zeros. */
async function zeroPage(machine: ProtectedMachine, round: number): Promise<void> {
  await using image = await openWritable(nodeFiles, machine.chain('system').at(-1)!);
  await image.zero(DISK_BYTES / 4 + 4096 * round, 4096);
}

test('S0.29 a target that has nothing yet gets no state into which a merge has been written that was not recorded', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const far = await sites.anotherSite();
  await box.machine.addTarget({ siteId: far.target.siteId, ...EVERYTHING });
  const contents = new Map<string, Buffer>();
  const { files, refused } = unmergeable(() => true);
  const machine = await box.reopen(files);
  await machine.attach();
  for (const round of [1, 2, 3]) {
    await change(box, round);
    contents.set(machine.cuts.at(-1)!.cutId, await box.content());
    await sendAll(machine, sites.target);
  }
  assert.ok(refused() > 0, 'a merge was not recorded');
  await sendAll(machine, far.target);
  await holdsAll(far.replicas, box);
  const replica = far.replicas.need(machine.record.machineId);
  for (const { statement } of replica.points) {
    const { pointId, sequence } = statement;
    const found = await readChain(replica.chain(pointId, 'system'));
    assert.ok(found.equals(contents.get(pointId)!), `point ${sequence} reads as its copy`);
  }
});

test('S0.29 while a slow target is read for, the other goes on, and no file that is read is written', async (t) => {
  const { box, near, far } = await twoTargets(t);
  const { machine } = box;
  await change(box, 1);
  const reached = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const slow = uploadingBy(far.target, async (machineId, session, stream, signal) => {
    reached.resolve();
    await goOn.promise;
    return far.target.upload(machineId, session, stream, signal);
  });
  const sending = machine.replicate(slow);
  await reached.promise;
  let layers = 0;
  for (let round = 2; round <= COPIES; round++) {
    await change(box, round % 5);
    await sendAll(machine, near.target);
    layers = Math.max(layers, layersOf(machine));
  }
  t.diagnostic(`at most ${layers} files in the chain while one copy was on its way for ${COPIES - 1} others`);
  assert.ok(layers <= 13, `${layers} files`);
  assert.equal(pointsOf(near.replicas, box).length, COPIES + 1);
  goOn.resolve();
  assert.equal((await sending).kind, 'sent');
  assert.ok((await sendAll(machine, far.target)) < MIB);
  await holdsAll(far.replicas, box);
});

test('S0.29 a target that wants its copies apart gets the newest that fits; the others are told as missed', async (t) => {
  const { box, near, far } = await twoTargets(t, { spacingMs: 3_600_000 });
  const { machine } = box;
  for (let round = 1; round <= COPIES; round++) {
    await change(box, round % 5);
    await sendAll(machine, near.target);
  }
  assert.equal((await machine.replicate(far.target)).kind, 'nothing', 'an hour has not passed');
  assert.ok(layersOf(machine) <= 10);
  await machine.protectAs((protection) => withTargetChanged(protection, far.target.siteId, { spacingMs: 1 }));
  assert.ok((await sendAll(machine, far.target)) < MIB);
  await holdsAll(far.replicas, box);
  assert.equal(pointsOf(far.replicas, box).length, 2, 'the newest one at once');
  assert.equal(pointsOf(far.replicas, box).at(-1)!.statement.missed.length, COPIES - 1);
});

test('S0.29 a target that is added later gets one complete copy while the first goes on; one that is removed is let go of at once', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const { machine } = box;
  for (let round = 1; round <= 3; round++) {
    await change(box, round);
    await sendAll(machine, sites.target);
  }
  const far = await sites.anotherSite();
  const { siteId } = far.target;
  await machine.addTarget({ siteId, ...EVERYTHING });
  await assert.rejects(machine.addTarget({ siteId, ...EVERYTHING }), { code: 'PROTECTION_TARGET_EXISTS' });
  assert.ok((await sendAll(machine, far.target)) > DISK_BYTES / 4, 'a complete copy');
  await holdsAll(far.replicas, box);
  for (let round = 1; round <= 5; round++) {
    await change(box, round);
    await sendAll(machine, sites.target);
  }
  assert.equal(layersOf(machine), 7);
  await machine.removeTarget(siteId);
  assert.equal(layersOf(machine), 2, 'what was kept for it is gone');
  assert.deepEqual(await readdir(machine.layout.targets), [`${sites.target.siteId}.json`]);
  await assert.rejects(machine.replicate(far.target), { code: 'PROTECTION_TARGET_UNKNOWN' });
  await assert.rejects(machine.removeTarget(sites.target.siteId), { code: 'PROTECTION_TARGET_LAST' });
  await change(await box.reopen().then(() => box), 2);
  await sendAll(box.machine, sites.target);
  await holdsAll(sites.replicas, box);
});

test('S0.29 the first target can be removed too; the one that was outrun stays and loses nothing', async (t) => {
  const { box, near, far } = await twoTargets(t);
  for (let round = 1; round <= COPIES; round++) {
    await change(box, round % 5);
    await sendAll(box.machine, near.target);
  }
  await box.machine.removeTarget(near.target.siteId);
  const machine = await box.reopen();
  assert.equal(machine.record.protection!.targetSiteId, far.target.siteId);
  assert.ok((await sendAll(machine, far.target)) < MIB);
  await holdsAll(far.replicas, box);
  await machine.unprotect();
  assert.equal(machine.targets.length, 0);
});

test('S0.29 records that an older program would misread have a version that it refuses', async (t) => {
  const { box, near, far } = await twoTargets(t);
  const versionOf = async (path: string) => JSON.parse(await readFile(path, 'utf8')).version as number;
  const { layout } = box.machine;
  assert.equal(await versionOf(layout.record), 4);
  assert.equal(await versionOf(layout.target(far.target.siteId)), 1);
  for (let round = 1; round <= COPIES; round++) {
    await change(box, round % 5);
    await sendAll(box.machine, near.target);
  }
  assert.equal(await versionOf(layout.target(far.target.siteId)), 2);
  await box.machine.removeTarget(near.target.siteId);
  assert.equal(await versionOf(layout.record), 2);
  assert.equal(
    await versionOf(layout.target(far.target.siteId)),
    2,
    'ranges are still in the place of layers',
  );
  await sendAll(box.machine, far.target);
  assert.equal(await versionOf(layout.target(far.target.siteId)), 1);
  assert.ok((await nodeFiles.list(join(layout.directory, 'leaves')))!.includes(far.target.siteId));
});

/** The bug that is planted: records of targets say that nothing changed in the layers that were merged without them. */
const forgetful: FileSystem = {
  ...nodeFiles,
  open: async (path, how) => {
    const handle = await nodeFiles.open(path, how);
    if (!path.includes('/targets/') || how === 'read') return handle;
    const real = handle.write.bind(handle);
    const write = (data: Uint8Array, position: number) => {
      const record = JSON.parse(Buffer.from(data).toString()) as { outrun?: { ranges: object } };
      if (record.outrun) record.outrun.ranges = {};
      return real(Buffer.from(JSON.stringify(record)), position);
    };
    return Object.assign(handle, { write });
  },
};

test('S0.29 ranges that were left out would be found: the target does not read as the machine', async (t) => {
  const { box, near, far } = await twoTargets(t);
  await box.reopen(forgetful);
  for (let round = 1; round <= 12; round++) {
    await change(box, round % 5);
    await sendAll(box.machine, near.target);
  }
  assert.deepEqual(recordOf(await box.reopen(), far.target).outrun?.ranges, {});
  // By the digests where a block was written again since; else only by what the target reads as.
  const sent = async () => {
    await sendAll(box.machine, far.target);
    await holdsAll(far.replicas, box);
  };
  await assert.rejects(sent(), /not what was signed|reads as the machine does/);
});
