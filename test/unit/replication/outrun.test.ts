/** A target that is behind, by chance: whatever arrives there and however late, it reads as the machine did. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ImageFile, ImageReader } from '../../../src/hypervisor/index.ts';
import { type Extents, extentsOf, NO_EXTENTS } from '../../../src/lib/extents.ts';
import type { Acknowledgement } from '../../../src/replica/index.ts';
import { chainAt, chainOf, layersSince } from '../../../src/replication/chain.ts';
import type { CutRecord, ProtectedDisk, TargetRecord } from '../../../src/replication/index.ts';
import { takingIn } from '../../../src/replication/missed.ts';
import { outrunBy, outrunSince, rangesWithin } from '../../../src/replication/outrun.ts';
import { cutsToMerge, nextToJoin, placeOf, settledCuts } from '../../../src/replication/places.ts';
import type { UnsureCut } from '../../../src/replication/records.ts';
import { planSession, type SessionPlan } from '../../../src/replication/session-plan.ts';
import { SimRandom } from '../../simulation/sim-random.ts';
import { sized } from '../../support/size.ts';

const SEEDS = sized({ what: 'S0.29: histories of a target that is behind', normal: 300, full: 3_000 });
const STEPS = 150;
const BLOCKS = 64;
const BLOCK_BYTES = 65_536;
const DISK: ProtectedDisk = {
  ...{ diskId: 'root', deviceName: 'dev', sizeBytes: BLOCKS * BLOCK_BYTES },
  chain: [{ path: '/origin', format: 'qcow2' }],
};

/** By block: which write it holds. */
type Content = readonly number[];

/** A copy that was sent, whole, and may be published at any time as long as the target has its parent. */
interface Sent {
  readonly parent: string | undefined;
  readonly newest: Acknowledgement;
  readonly content: Content;
}

/** The chain of a machine with one disk, of which every file is known by the blocks that it holds. */
class Site {
  readonly #random: SimRandom;
  readonly #files = new Map<string, Map<number, number>>();
  readonly contents = new Map<string, Content>();
  cuts: CutRecord[] = [];
  near = 0;
  far: TargetRecord = { siteId: 'far', acknowledged: null, session: null };
  #writes = 0;

  constructor(random: SimRandom) {
    this.#random = random;
    this.#files.set('/origin', new Map());
  }

  #file({ path }: ImageFile): Map<number, number> {
    const file = this.#files.get(path);
    assert.ok(file, `${path} is there`);
    return file;
  }

  contentOf(chain: readonly ImageFile[]): Content {
    const content = Array<number>(BLOCKS).fill(0);
    for (const image of chain) for (const [block, write] of this.#file(image)) content[block] = write;
    return content;
  }

  readonly images = {
    open: async (chain: readonly ImageFile[]): Promise<ImageReader> => {
      const heldBy = (layers: number) =>
        chain.slice(chain.length - layers).flatMap((image) => [...this.#file(image).keys()]);
      return {
        sizeBytes: DISK.sizeBytes,
        readInto: () => assert.fail('only what changed is asked for'),
        ownExtents: async (layers) => ({ data: extentsAt(heldBy(layers)), zero: NO_EXTENTS }),
        contentExtents: () => assert.fail('only what changed is asked for'),
        close: async () => undefined,
        [Symbol.asyncDispose]: async () => undefined,
      };
    },
  };

  /** The guest writes some blocks, and a copy is made. */
  cut(): void {
    const chain = chainOf(DISK, this.cuts);
    const tip = this.#file(chain.at(-1)!);
    for (let left = this.#random.below(3); left > 0; left--)
      tip.set(this.#random.below(BLOCKS), ++this.#writes);
    const ordinal = (this.cuts.at(-1)?.ordinal ?? 0) + 1;
    const cutId = `c${ordinal}`;
    this.#files.set(`/${cutId}`, new Map());
    this.cuts.push({
      ...{ cutId, ordinal, state: 'sealed', copyType: 'crash', consistency: 'crash' },
      ...{ cutAtMs: ordinal, pauseMs: 0, merged: false, missed: [] },
      ...{ sealed: { root: chain.at(-1)! }, tips: { root: { path: `/${cutId}`, format: 'qcow2' } } },
    });
    this.contents.set(cutId, this.contentOf(chain));
  }

  get #places() {
    const near = { siteId: 'near', acknowledged: this.near, outrunThrough: 0, needsLayers: false };
    return [{ ...near, begun: undefined, reading: undefined }, placeOf(this.far, undefined)];
  }

  /** As after each acknowledgement; the process may be killed between the steps. */
  async settle(): Promise<void> {
    const due = cutsToMerge([DISK], this.cuts, this.#places);
    if (due.length > 0) {
      const outrun = await outrunBy(this.images, [DISK], this.cuts, this.far, due);
      if (outrun) this.far = { ...this.far, outrun, session: null };
    }
    if (this.#random.chance(0.1)) return;
    this.#merge();
    if (this.#random.chance(0.1)) return;
    for (;;) {
      const pair = nextToJoin([DISK], this.cuts, this.#places);
      if (!pair) return;
      this.#join(pair);
    }
  }

  #merge(): void {
    const due = cutsToMerge([DISK], this.cuts, this.#places);
    const last = due.at(-1);
    if (last) this.#change(last, { merging: true });
    for (const cut of due) {
      if (this.#random.chance(0.1)) return;
      const layer = cut.sealed.root!;
      if (layer.path !== '/origin')
        for (const [block, write] of this.#file(layer)) this.#file(DISK.chain[0]!).set(block, write);
      this.#change(cut, { merged: true });
    }
    const settled = new Set(settledCuts([DISK], this.cuts, this.#places));
    this.cuts = this.cuts.filter((cut) => !settled.has(cut));
  }

  #join({ older, younger }: { older: CutRecord; younger: CutRecord }): void {
    const into = this.#file(older.sealed.root!);
    for (const [block, write] of this.#file(younger.sealed.root!)) into.set(block, write);
    const merging = older.merging ? { merging: true as const } : {};
    this.#change(younger, { sealed: older.sealed, ...merging, ...takingIn(older, younger, 'joined') });
    this.cuts = this.cuts.filter((cut) => cut.cutId !== older.cutId);
  }

  #change({ cutId }: CutRecord, change: Partial<CutRecord>): void {
    this.cuts = this.cuts.map((cut) => (cut.cutId === cutId ? { ...cut, ...change } : cut));
  }

  /** What the target has when it has taken in the delta of a plan upon what it has now. */
  async deltaUpon(
    content: Content,
    { cut, parent }: Extract<SessionPlan, { kind: 'full' | 'incremental' }>,
  ): Promise<Content> {
    const now = this.contentOf(chainAt(DISK, this.cuts, cut));
    assert.deepEqual(now, this.contents.get(cut.cutId), 'what is read is the cut');
    if (!parent) return now;
    const reader = await this.images.open(chainAt(DISK, this.cuts, cut));
    const layers = layersSince(DISK, this.cuts, this.far.acknowledged!.ordinal, cut);
    const { data } = await reader.ownExtents(layers);
    const sent = new Set([
      ...blocksOf(data),
      ...blocksOf(rangesWithin(this.far.outrun, 'root', DISK.sizeBytes)),
    ]);
    return content.map((write, block) => (sent.has(block) ? now[block]! : write));
  }

  acknowledge({ cutId, ordinal, cutAtMs }: CutRecord, newest: Acknowledgement): void {
    this.far = {
      siteId: 'far',
      acknowledged: { ...newest, pointId: cutId, ordinal, cutAtMs, atMs: 0 },
      session: null,
    };
  }

  catchUp(found: UnsureCut, newest: Acknowledgement): void {
    const { ordinal, cutAtMs } = found;
    const outrun = outrunSince(this.far.outrun!, found, new Map());
    // Here cuts are made at the times 1, 2, 3….
    const gone = Array.from({ length: outrun.throughOrdinal - ordinal }, (_, index) => ordinal + 1 + index);
    const told = outrun.missed.map((cut) => cut.cutAtMs);
    assert.deepEqual(told, gone, 'what is told as missed is what came after the point that it has');
    this.far = {
      siteId: 'far',
      acknowledged: { ...newest, ordinal, cutAtMs, atMs: 0 },
      session: null,
      outrun,
    };
  }
}

/** The other target's side. */
class Far {
  newest: Acknowledgement | null = null;
  content: Content = Array<number>(BLOCKS).fill(0);
  onTheWay: Sent[] = [];

  publish(sent: Sent): void {
    this.newest = sent.newest;
    this.content = sent.content;
    this.onTheWay = this.onTheWay.filter(({ parent }) => parent === sent.newest.pointId);
  }
}

/** Returns how often a copy was found that nobody had heard of, and on how many of these it was not the last one sent. */
async function live(seed: number): Promise<{ caught: number; late: number }> {
  const random = new SimRandom(seed, 7);
  const site = new Site(random);
  const far = new Far();
  const count = { caught: 0, late: 0 };
  const isAsked = random.pick([0.05, 0.2, 0.5]);
  const getsThrough = random.pick([0, 0.5]);
  for (let step = 0; step < STEPS; step++) {
    site.cut();
    if (random.chance(0.9)) site.near = site.cuts.at(-1)!.ordinal;
    await site.settle();
    const arriving = random.chance(isAsked / 4) ? far.onTheWay[random.below(far.onTheWay.length)] : undefined;
    if (arriving) far.publish(arriving);
    if (random.chance(isAsked)) await ask({ site, far, random, getsThrough, count });
    if (far.newest)
      assert.deepEqual(far.content, site.contents.get(far.newest.pointId), `seed ${seed}, step ${step}`);
  }
  return count;
}

interface Lived {
  readonly site: Site;
  readonly far: Far;
  readonly random: SimRandom;
  /** How likely it is that what is sent arrives at once. */
  readonly getsThrough: number;
  readonly count: { caught: number; late: number };
}

async function ask({ site, far, random, getsThrough, count }: Lived): Promise<void> {
  const replica = { machineId: 'm', epoch: 1, newest: far.newest, incoming: null };
  const plan = planSession(1, site.cuts, site.far, replica);
  if (plan.kind === 'nothing') return;
  if (plan.kind === 'acknowledged') return site.acknowledge(plan.cut, plan.newest);
  if (plan.kind === 'caught') {
    count.caught += 1;
    if (site.far.outrun?.unsure?.pointId !== plan.cut.pointId) count.late += 1;
    return site.catchUp(plan.cut, plan.newest);
  }
  assert.ok(plan.kind === 'full' || plan.kind === 'incremental', `there is no ${plan.kind}`);
  const { cut, sequence, parent } = plan;
  site.far = { ...site.far, session: { session: `s${cut.cutId}`, cutId: cut.cutId } };
  if (random.chance(0.3)) return;
  const newest: Acknowledgement = {
    ...{ level: 'verified', pointId: cut.cutId, sequence },
    ...{ statementDigest: `d${cut.cutId}`, publishedAtMs: 0 },
  };
  const sent = { parent: parent?.pointId, newest, content: await site.deltaUpon(far.content, plan) };
  if (!random.chance(getsThrough)) return void far.onTheWay.push(sent);
  far.publish(sent);
  if (random.chance(0.5)) site.acknowledge(cut, newest);
}

function extentsAt(blocks: readonly number[]): Extents {
  return extentsOf(blocks.map((block) => ({ offset: block * BLOCK_BYTES, length: BLOCK_BYTES })));
}

function blocksOf(extents: Extents): number[] {
  return extents.flatMap(({ offset, length }) =>
    Array.from({ length: length / BLOCK_BYTES }, (_, index) => offset / BLOCK_BYTES + index),
  );
}

test('S0.29 whatever copies of a target that is behind arrive, and however late, it reads as the machine', async (t) => {
  let [caught, late] = [0, 0];
  for (let seed = 1; seed <= SEEDS; seed++) {
    const count = await live(seed);
    caught += count.caught;
    late += count.late;
  }
  t.diagnostic(
    `${SEEDS} histories; ${caught} copies were found unheard of, ${late} of them not the last one sent`,
  );
  assert.ok(late > 0, 'the late ones are among them');
});
