import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { OlderCopies } from '../../../src/control/replicas/older-copies.ts';
import type { DeltaHeader } from '../../../src/delta/index.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { tryOlderFile } from '../../../src/replica/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const BLOCK = 65_536;
const [NORTH, SOUTH] = ['01hnnnnnnnnnnnnnnnnnnnnnnn', '01hsssssssssssssssssssssss'];
const MACHINE = '01hmmmmmmmmmmmmmmmmmmmmmmm';
const HEADER = {
  machineId: MACHINE,
  blockBytes: BLOCK,
  disks: [{ diskId: 'disk0', sizeBytes: 4 * BLOCK }],
} as unknown as DeltaHeader;

it('S0.27 an offer is good for its machine and the site of that alone, until the base is here or it is withdrawn', async (t) => {
  const directory = await temporaryDirectory(t);
  const images = new FakeImages({ files: nodeFiles, locks: new ImageLocks() });
  const tools = { files: nodeFiles, images, clock: new FakeClock(), log: silentLog };
  const path = join(directory, 'old.raw');
  await writeFile(path, Buffer.alloc(2 * BLOCK, 5));
  const file = { diskId: 'disk0', path, format: 'raw' as const };
  const first = await OlderCopies.open(tools, directory);
  assert.equal(first.disksFor(NORTH, 'web', HEADER), undefined);
  await first.offer('web', NORTH, [{ ...file, path: '/elsewhere' }]);
  await first.offer('web', NORTH, [file]);
  await first.offer(MACHINE, SOUTH, [file]);

  const offers = await OlderCopies.open(tools, directory);
  assert.equal(offers.list().length, 2, 'what is offered again takes the place of the first');
  assert.equal(offers.disksFor(NORTH, 'db', HEADER), undefined);
  assert.equal(offers.disksFor(MACHINE, 'web', HEADER), undefined);
  assert.deepEqual(offers.disksFor(SOUTH, 'whatever it is called', HEADER)?.diskIds, ['disk0']);
  const disks = offers.disksFor(NORTH, 'web', HEADER)!;
  const page = { diskId: 'disk0', firstBlock: 0, blocks: 4 };
  const leaves = await disks.digests(page);
  assert.equal(leaves.compare(Buffer.alloc(64), 0, 64, 64, 128), 0, 'the file ends after two blocks');
  assert.notEqual(leaves.compare(Buffer.alloc(32), 0, 32, 0, 32), 0);
  for (const wrong of [{ diskId: 'disk9' }, { firstBlock: 4 }, { blocks: 513 }, { firstBlock: 2 ** 40 }]) {
    await assert.rejects(disks.digests({ ...page, ...wrong }), { code: 'REPLICA_OLDER_COPY_CHANGED' });
  }

  // What does not hold what was told of it is noted, and not offered again by any process.
  const target = Buffer.alloc(BLOCK);
  await disks.take('disk0', 0, target, leaves.subarray(0, 32));
  assert.equal(target[0], 5);
  await assert.rejects(disks.take('disk0', 0, target, Buffer.alloc(32, 1)), {
    code: 'REPLICA_OLDER_COPY_CHANGED',
    retry: 'reconnect',
  });
  await assert.rejects(disks.take('disk0', 0, target, leaves.subarray(0, 32)), {
    code: 'REPLICA_OLDER_COPY_CHANGED',
  });
  await disks.close();
  const later = await OlderCopies.open(tools, directory);
  assert.match(later.list()[0]!.disks[0]!.unfit!, /written at 0/);
  assert.equal(later.disksFor(NORTH, 'web', HEADER), undefined);

  await later.published(NORTH, { machineId: MACHINE, machineName: 'web' });
  await later.published(NORTH, { machineId: MACHINE, machineName: 'web' });
  assert.deepEqual(
    later.list().map(({ siteId }) => siteId),
    [SOUTH],
  );
  assert.equal((await later.withdraw(MACHINE))?.siteId, SOUTH);
  assert.equal(await later.withdraw(MACHINE), undefined);
  assert.deepEqual((await OlderCopies.open(tools, directory)).list(), []);
});

it('S0.27 a file in which nothing would be found is refused when it is offered', async (t) => {
  const directory = await temporaryDirectory(t);
  const locks = new ImageLocks();
  const tools = { files: nodeFiles, images: new FakeImages({ files: nodeFiles, locks }) };
  const raw = join(directory, 'old.raw');
  await writeFile(raw, Buffer.alloc(1024));
  await tryOlderFile(tools, { path: raw, format: 'raw' });
  await assert.rejects(tryOlderFile(tools, { path: raw, format: 'qcow2' }), {
    code: 'QCOW2_BAD_MAGIC',
  });
  await assert.rejects(tryOlderFile(tools, { path: join(directory, 'none'), format: 'raw' }), {
    code: 'FILE_UNREADABLE',
  });
  const image = join(directory, 'old.img');
  await writeFile(image, Buffer.concat([Buffer.from('514649fb00000003', 'hex'), Buffer.alloc(1024)]));
  await assert.rejects(tryOlderFile(tools, { path: image, format: 'raw' }), {
    code: 'REPLICA_OLDER_COPY_UNFIT',
  });
  const letGo = locks.take({}, raw, true);
  await assert.rejects(tryOlderFile(tools, { path: raw, format: 'raw' }), { code: 'IMAGE_UNREADABLE' });
  letGo();
});
