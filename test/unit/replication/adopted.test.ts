import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { copy, send } from '../../support/seed-acts.ts';
import { DISK_BYTES, readChain, seedSitesOn } from '../../support/seed-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** A disk on which records of targets cannot be replaced while somebody says so. */
function stubbornFiles(): { readonly files: FileSystem; refuses: boolean } {
  const state = { refuses: false, files: nodeFiles as FileSystem };
  const rename: FileSystem['rename'] = (from, to) => {
    if (!state.refuses || !to.includes('/targets/')) return nodeFiles.rename(from, to);
    return nodeFiles.rename(join(from, 'nowhere'), to);
  };
  state.files = Object.assign(Object.create(nodeFiles) as FileSystem, { rename });
  return state;
}

test('S0.10 S0.28 the word of a target is taken again after it could not be recorded, also of a copy with a new disk', async (t) => {
  const directory = await temporaryDirectory(t);
  const stubborn = stubbornFiles();
  const sites = await seedSitesOn({ directory, protectedFiles: stubborn.files, recoveryFiles: nodeFiles });
  const box = await sites.addMachine({ seed: false });
  const { machine } = box;
  await copy(sites, box);

  const path = join(directory, 'late.raw');
  const file = await nodeFiles.open(path, 'create');
  await file.write(systemRandom.bytes(DISK_BYTES / 2), 0);
  await file.truncate(DISK_BYTES);
  await file.close();
  const about = { diskId: 'late', sizeBytes: DISK_BYTES };
  await machine.addDisk({
    disk: { ...about, deviceName: 'late', chain: [{ path, format: 'raw' }] },
    configuration: { ...about, bus: 'virtio-blk' },
  });
  await box.write(4096);
  await machine.cut('crash');
  // The target has the copy; here nothing but the last word of it is missing, for as long as it may take.
  const upload = sites.target.upload.bind(sites.target);
  sites.target.upload = async (...args) => {
    const acknowledged = await upload(...args);
    stubborn.refuses = true;
    return acknowledged;
  };
  for (let tries = 0; tries < 3; tries++)
    await assert.rejects(send(sites, machine), { code: 'FILE_UNWRITABLE' });
  sites.target.upload = upload;
  stubborn.refuses = false;
  assert.equal((await machine.replicate(sites.target)).kind, 'acknowledged');
  await box.write(8192);
  assert.ok((await copy(sites, box)) < DISK_BYTES, 'and goes on incrementally');

  const again = await box.reopen();
  await box.write(12_288);
  await again.cut('crash');
  assert.ok((await send(sites, again)) < DISK_BYTES / 4, 'also by what is stored of it');
  const replica = await sites.openReplica(again.record.machineId);
  const newest = replica.newest!.statement.pointId;
  for (const diskId of ['system', 'data', 'late'])
    assert.ok(
      (await readChain(replica.chain(newest, diskId))).equals(await readChain(again.chain(diskId))),
      diskId,
    );
});
