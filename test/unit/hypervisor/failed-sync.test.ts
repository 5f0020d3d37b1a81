import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LayerWriter } from '../../../src/qcow2/index.ts';
import { DiskFaults } from '../../simulation/faults.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { SimRandom } from '../../simulation/sim-random.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { bytesOf } from '../../support/image-bytes.ts';

const SIZE_BYTES = 4 * 1024 * 1024;
const NOTHING_KEPT = { names: 'ordered', pagesKept: 0, metadataFirst: false } as const;

/** A disk with two layers, and images on it that believe the page cache or do not. */
async function ground(believesCache: boolean) {
  const disk = new SimDisk();
  const faults = new DiskFaults();
  const files = new SimFiles(disk, AT_ONCE, faults);
  await files.makeDirectory('/d');
  await files.syncDirectory('/');
  const content = Buffer.alloc(SIZE_BYTES);
  const [base, top] = ['base', 'top'].map((name) => ({ path: `/d/${name}`, format: 'qcow2' as const }));
  // Nothing is in the base yet, so that its tables must be made and hung in.
  for (const { path } of [base!, top!]) {
    await using writer = await LayerWriter.create(files, path, { sizeBytes: SIZE_BYTES, backing: null });
    for (let offset = 65_536; path === top!.path && offset < SIZE_BYTES; offset += 589_824) {
      const bytes = Buffer.alloc(8192, offset / 4096 + 1);
      await writer.write(offset, bytes);
      content.set(bytes, offset);
    }
    await writer.finish();
  }
  await files.syncDirectory('/d');
  const dropCache = (path: string) => (believesCache ? undefined : disk.file(path)?.evict());
  const images = new FakeImages({ files, locks: new ImageLocks(), dropCache });
  return { disk, faults, files, images, content, base: base!, top: top! };
}

/** Commits until it is done, with the `failing`-th sync failing, then the power goes: is the content all there? */
async function survives(failing: number, believesCache: boolean): Promise<boolean | undefined> {
  const { disk, faults, files, images, content, base, top } = await ground(believesCache);
  faults.arm({ act: 'sync', system: 'EIO', after: failing, forever: false });
  let failures = 0;
  for (;;) {
    try {
      await images.commit([base, top]);
      break;
    } catch {
      failures += 1;
    }
  }
  if (failures === 0) return undefined;
  disk.crash(new SimRandom(failing, 0), NOTHING_KEPT);
  return (await bytesOf(new FakeImages({ files, locks: new ImageLocks() }), [base])).equals(content);
}

test('S0.14 a commit that is repeated after a failed sync is whole on the disk, and not only in the cache', async () => {
  let [survived, lostByBelief] = [0, 0];
  for (let failing = 1; ; failing++) {
    const isWhole = await survives(failing, false);
    if (isWhole === undefined) break; // There are no more syncs that could fail.
    assert.ok(isWhole, `the content is lost after the failure of sync ${failing}`);
    survived += 1;
    if (!(await survives(failing, true))) lostByBelief += 1;
  }
  assert.ok(survived >= 10, `${survived} syncs in a commit`);
  assert.ok(lostByBelief > 0, 'the test cannot fail: believing the cache has done no harm');
});
