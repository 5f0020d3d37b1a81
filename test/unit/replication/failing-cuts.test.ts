/** A machine gets a disk, and any call of the first cut with it fails, once: a machine that is off, on a simulated disk. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import { DISK_ACTS, type DiskAct, DiskFaults } from '../../simulation/faults.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { SimRandom } from '../../simulation/sim-random.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { type SeedMachine, seedSitesOn } from '../../support/seed-sites.ts';

const DIRECTORY = '/data';
const CUT_MODE = { names: 'any', pagesKept: 1, metadataFirst: false } as const;

/** A machine of which a copy was made, and which has got a disk since. */
async function withNewDisk() {
  const disk = new SimDisk();
  const faults = new DiskFaults();
  const files = new SimFiles(disk, AT_ONCE, faults);
  await files.makeDirectory(DIRECTORY);
  const sites = await seedSitesOn({
    ...{ directory: DIRECTORY, protectedFiles: files },
    recoveryFiles: new SimFiles(new SimDisk()),
  });
  const box = await sites.addMachine({ seed: false });
  await box.machine.cut('crash');
  const path = `${DIRECTORY}/late.raw`;
  const about = { diskId: 'late', sizeBytes: 65_536 };
  const file = await files.open(path, 'create');
  await file.truncate(about.sizeBytes);
  await file.sync();
  await file.close();
  await files.syncDirectory(DIRECTORY);
  await box.machine.addDisk({
    disk: { ...about, deviceName: 'late', chain: [{ path, format: 'raw' }] },
    configuration: { ...about, bus: 'virtio-blk' },
  });
  return { disk, faults, box };
}

/** Whether the cut fails in which that call does. */
async function failsAt({ machine }: SeedMachine, faults: DiskFaults, act: DiskAct, after: number) {
  faults.arm({ act, system: 'ENOSPC', after, forever: false });
  const failed = await machine.cut('crash').then(
    () => false,
    (error: unknown) => {
      if (!isFailure(error)) throw error;
      return true;
    },
  );
  faults.heal();
  return failed;
}

for (const act of DISK_ACTS) {
  test(`S0.11 whichever ${act} of a cut fails, the next one is made, and no power cut takes its tips away`, async (t) => {
    let failures = 0;
    for (let after = 1; ; after++) {
      const { disk, faults, box } = await withNewDisk();
      const failed = await failsAt(box, faults, act, after);
      const { machine } = box;
      if (failed) failures += 1;
      const { cutId } = await machine.cut('crash');
      assert.deepEqual(Object.keys(machine.cuts.at(-1)!.sealed), ['system', 'data', 'late']);
      assert.equal(machine.cuts.at(-1)!.cutId, cutId);
      for (let seed = 1; seed <= 5; seed++) {
        const left = disk.copy();
        left.crash(new SimRandom(seed, 1), CUT_MODE);
        for (const diskId of ['system', 'data', 'late']) {
          for (const { path } of machine.chain(diskId))
            assert.ok(left.file(path), `${path} is there after a power cut, ${act} ${after} having failed`);
        }
      }
      if (faults.struck === 0) break;
    }
    t.diagnostic(`${failures} cuts failed`);
  });
}
