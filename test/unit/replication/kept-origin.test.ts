/** Layers that are given up for what the owner's files hold are set aside once, whatever fails on the way. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { libFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { dyingFiles, type SeedMachine, seedSitesOn } from '../../support/seed-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

async function threeTimesCut(t: CleanUp, files: FileSystem): Promise<SeedMachine> {
  const directory = await temporaryDirectory(t);
  const sites = await seedSitesOn({ directory, protectedFiles: files, recoveryFiles: nodeFiles });
  const box = await sites.addMachine({ seed: false });
  for (const offset of [0, 1, 2]) {
    await box.machine.cut('crash');
    await box.write(offset);
  }
  return box;
}

/** Everything that was written is in one place, and nothing is left to be done. */
async function assertSetAside({ machine }: SeedMachine, layers: number, when: string): Promise<void> {
  assert.deepEqual([machine.record.dissolving, machine.record.protection], [undefined, null], when);
  const { directory } = machine.layout;
  const aside = (await nodeFiles.list(directory))!.filter((name) => name.startsWith('set-aside-'));
  assert.equal(aside.length, 1, `${when}: ${aside.join(', ')}`);
  const kept = await nodeFiles.list(join(directory, aside[0]!, 'system'));
  assert.equal(kept?.length, layers, when);
}

const LAYERS = 3;

for (const before of [0, 1, 2, LAYERS])
  test(`S0.14 layers that were set aside stay so when the record of a cut cannot be removed at first (after ${before})`, async (t) => {
    let left = Number.POSITIVE_INFINITY;
    const files: FileSystem = {
      ...nodeFiles,
      remove: async (path) => {
        if (path.includes('/cuts/') && left-- === 0) throw libFailure('DISK_FULL', `cannot remove ${path}`);
        await nodeFiles.remove(path);
      },
    };
    const box = await threeTimesCut(t, files);
    left = before;
    const ended = box.machine.unprotectKeepingOrigin();
    if (before < LAYERS) {
      await assert.rejects(ended, { code: 'DISK_FULL' });
      await box.machine.attach();
    } else await ended;
    await assertSetAside(box, LAYERS, `after ${before}`);
  });

test('S0.14 a site that is killed while layers are set aside sets them aside once, at whatever step', async (t) => {
  for (let left = 0; ; left++) {
    const box = await threeTimesCut(t, nodeFiles);
    const { files, hasDied } = dyingFiles(left);
    const ended = box.reopen(files).then((dying) => dying.unprotectKeepingOrigin());
    await ended.catch((error) => assert.ok(hasDied(), error));
    const machine = await box.reopen();
    await machine.attach();
    if (machine.record.protection) await machine.unprotectKeepingOrigin();
    await assertSetAside(box, LAYERS, `killed before change ${left}`);
    if (!hasDied()) return;
  }
});
