/** A merge that was interrupted, and a tool that still holds one of its layers: nobody waits for that but who must. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { type Replica, Replicas, type ReplicaTools } from '../../../src/replica/index.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { copy } from '../../support/seed-acts.ts';
import { readChain, seedSites } from '../../support/seed-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const ONE = { types: { crash: 1 } };
const NEVER_PROVEN = () => false;

/** A replica whose fold into the oldest layer was interrupted, and commits that wait until they are let. */
async function interruptedFold(t: CleanUp) {
  const { directory, zones, ...sites } = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  for (const offset of [0, 65_536]) {
    await box.write(offset);
    await copy({ directory, zones, ...sites }, box);
  }
  const images = new FakeImages({ files: nodeFiles, locks: new ImageLocks() });
  const toolsWith = (hindrance: () => Promise<void>): ReplicaTools => ({
    ...{ files: nodeFiles, clock: systemClock, log: silentLog, zones, isSignedBySource: () => true },
    images: {
      open: (chain, options) => images.open(chain, options),
      reparent: (image, backing) => images.reparent(image, backing),
      grow: (image, sizeBytes) => images.grow(image, sizeBytes),
      commit: async (chain) => {
        await hindrance();
        await images.commit(chain);
      },
    },
  });
  const { machineId } = box.machine.record;
  const doomed = await Replicas.open(
    toolsWith(() => Promise.reject(new Error('killed'))),
    join(directory, 'r'),
  );
  await assert.rejects(doomed.need(machineId).retire(ONE, NEVER_PROVEN), /killed/);
  const lock = Promise.withResolvers<void>();
  const tools = toolsWith(() => lock.promise);
  return { box, machineId, release: lock.resolve, directory: join(directory, 'r'), tools };
}

async function newestReads(replica: Replica): Promise<Buffer> {
  return readChain(replica.chain(replica.newest!.statement.pointId, 'system'));
}

/** Whether something has come about by now; no time passes. */
async function hasEnded(work: Promise<unknown>): Promise<boolean> {
  let ended = false;
  const end = () => {
    ended = true;
  };
  work.then(end, end);
  for (let turns = 0; turns < 500; turns++) await new Promise(setImmediate);
  return ended;
}

test('S0.15 a site may leave an interrupted merge to be ended beside it: its points are there at once', async (t) => {
  const it = await interruptedFold(t);
  const opened = await Replicas.open(it.tools, it.directory, 'left');
  assert.deepEqual(opened.broken, []);
  const replica = opened.need(it.machineId);
  assert.equal(replica.points.length, 1);
  assert.ok((await newestReads(replica)).equals(await it.box.content()));
  // Who has found a process on its layers does not wait either; who is about to open them does.
  const release = await replica.holdLayers('open');
  release();
  const ending = replica.retire(ONE, NEVER_PROVEN);
  const holding = replica.holdLayers();
  assert.deepEqual([await hasEnded(ending), await hasEnded(holding)], [false, false]);
  it.release();
  assert.equal(await ending, 1);
  (await holding)();
  assert.equal(await nodeFiles.sizeOf(join(replica.layout.intents, 'merge.json')), undefined);
  assert.ok((await newestReads(replica)).equals(await it.box.content()));
});

test('S0.15 where it is not left, the merge is ended before the replica is there', async (t) => {
  const it = await interruptedFold(t);
  const opening = Replicas.open(it.tools, it.directory);
  assert.equal(await hasEnded(opening), false);
  it.release();
  const replica = (await opening).need(it.machineId);
  assert.equal(await nodeFiles.sizeOf(join(replica.layout.intents, 'merge.json')), undefined);
  assert.ok((await newestReads(replica)).equals(await it.box.content()));
});
