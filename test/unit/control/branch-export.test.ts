/** The disks of a branch as files: what an export is, and what is left of one. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportBranch } from '../../../src/control/replicas/branch-export.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const DISK_BYTES = 64 * 1024;

/** A branch of one raw disk, and jobs that export it to a directory. */
async function exporting(t: CleanUp) {
  const directory = await temporaryDirectory(t);
  const disk = join(directory, 'disk.raw');
  const path = join(directory, 'out');
  await mkdir(path);
  const fill = (byte: number) => writeFile(disk, Buffer.alloc(DISK_BYTES, byte));
  const images = new FakeImages({ files: nodeFiles, locks: new ImageLocks() });
  const branch = {
    ...{ machineId: 'm', machineName: 'box', branchId: 'b', name: 'friday' },
    disks: [{ diskId: 'disk0', chain: [{ path: disk, format: 'raw' as const }] }],
  };
  const by = (jobId: string, { signal } = new AbortController()) =>
    exportBranch({ files: nodeFiles, images }, branch, {
      ...{ jobId, path, signal, exportedAtMs: 1, onProgress: () => undefined },
    });
  const first = async () => (await readFile(join(path, 'box-friday', 'disk0.raw')))[0];
  return { path, fill, by, first };
}

test('S0.17 an export that is asked for again, after the branch was booted on, is not answered with the files of the first one', async (t) => {
  const { path, fill, by, first } = await exporting(t);
  await fill(1);
  const made = await by('one');
  assert.deepEqual(made, {
    ...{ directory: join(path, 'box-friday'), jobId: 'one', machineId: 'm', branchId: 'b', exportedAtMs: 1 },
    disks: [{ diskId: 'disk0', file: 'disk0.raw', sizeBytes: DISK_BYTES }],
  });
  await fill(2);
  await assert.rejects(by('two'), { code: 'BRANCH_EXPORT_PATH' });
  assert.equal(await first(), 1);
  // A job whose process ended before its end was recorded is done again, and has been done.
  assert.deepEqual(await by('one'), made);
  assert.equal(await first(), 1);
  assert.deepEqual(await readdir(path), ['box-friday']);
});

test('S0.17 of an export that does not tell which job wrote it nobody says that it is his', async (t) => {
  const { path, fill, by } = await exporting(t);
  await fill(1);
  const { directory: _, jobId: __, ...earlier } = await by('one');
  const record = { record: 'branch-export', version: 1, warmsite: '0.1.0', ...earlier };
  await writeFile(join(path, 'box-friday', 'export.json'), JSON.stringify(record));
  await assert.rejects(by('one'), { code: 'BRANCH_EXPORT_PATH' });
});

test('S0.17 an export that was cut short is begun anew, and touches nothing of another one to the same place', async (t) => {
  const { path, fill, by, first } = await exporting(t);
  await fill(3);
  for (const job of ['one', 'two']) {
    await mkdir(join(path, `export-${job}.partial`));
    await writeFile(join(path, `export-${job}.partial`, 'disk0.raw'), 'half of it');
  }
  await by('one');
  assert.equal(await first(), 3);
  assert.deepEqual(await readdir(path), ['box-friday', 'export-two.partial']);
  assert.deepEqual(await readdir(join(path, 'export-two.partial')), ['disk0.raw']);
});
