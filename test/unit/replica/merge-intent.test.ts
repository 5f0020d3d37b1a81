import assert from 'node:assert/strict';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { ReplicaLayout } from '../../../src/replica/layout.ts';
import { pendingMerge, redoMerge, runMerge } from '../../../src/replica/merge.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('S0.15 an intent whose storing failed is durable before the first act of the merge that it asks for', async (t) => {
  const id = () => newId(systemClock, systemRandom);
  const layout = new ReplicaLayout(await temporaryDirectory(t), id());
  const intent = { kind: 'fold' as const, remove: [id()], into: id(), diskIds: ['system'] };
  const manifest = layout.manifest(intent.remove[0]!);
  for (const directory of [layout.points, layout.disk('system')]) await mkdir(directory, { recursive: true });
  await writeFile(manifest, '{}');

  const acts: string[] = [];
  let failsToSync = true;
  const files: FileSystem = {
    ...nodeFiles,
    syncDirectory: async (path) => {
      if (failsToSync)
        throw fileFailure('sync', path, Object.assign(new Error('I/O error'), { code: 'EIO' }));
      acts.push(`sync ${path}`);
      await nodeFiles.syncDirectory(path);
    },
    remove: async (path) => {
      acts.push(`remove ${path}`);
      await nodeFiles.remove(path);
    },
  };
  const tools = {
    files,
    layout,
    images: new FakeImages({ files, locks: new ImageLocks() }),
    blockBytes: 65_536,
  };
  await assert.rejects(runMerge(tools, intent), { code: 'FSYNC_FAILED' });
  assert.deepEqual((await pendingMerge(tools))?.remove, intent.remove, 'it can be read');
  await stat(manifest);

  failsToSync = false;
  acts.length = 0;
  await redoMerge(tools);
  const stored = acts.indexOf(`sync ${layout.intents}`);
  assert.ok(stored >= 0 && stored < acts.indexOf(`remove ${manifest}`), acts.join('\n'));
  await assert.rejects(stat(manifest), { code: 'ENOENT' });
});
