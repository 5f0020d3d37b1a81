/** What `vm add` sends of a machine with firmware, TPM, CD drives and an order of booting. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { checkMachineConfiguration } from '../../../src/hypervisor/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { asking } from './asking.ts';

it('F8 firmware, TPM, CD drives and the order of booting go to the site as they were meant', async (t) => {
  const directory = await temporaryDirectory(t);
  const [disk, variables, iso] = ['root.raw', 'variables.fd', 'tools.iso'].map((name) =>
    join(directory, name),
  );
  await writeFile(disk!, Buffer.alloc(1024 * 1024));
  await writeFile(variables!, Buffer.alloc(540_672));
  await writeFile(iso!, 'iso');
  const { ask, site } = await asking(t, {});
  const add = ['vm', 'add', '--name', 'web', '--memory', '1G', '--disk', `root=${disk}`, '--nic', 'lan'];
  const ran = await ask(
    ...[...add, '--firmware', 'uefi', '--firmware-variables', variables!, '--tpm', join(directory, 'tpm')],
    ...['--cd', `cd0=${iso}`, '--cd', 'cd1', '--boot', 'cd0,root'],
  );
  assert.equal(ran.asked, 'POST /v1/machines');
  const sent = ran.sent as { configuration: unknown; disks: { diskId: string }[]; tpmDirectory: string };
  const { firmware, disks, cds, nics, tpm } = checkMachineConfiguration(sent.configuration);
  assert.equal(firmware, 'uefi');
  assert.deepEqual(disks, [
    { diskId: 'root', bus: 'virtio-blk', sizeBytes: 1024 * 1024, bootIndex: 2 },
    { diskId: 'firmware-variables', bus: 'pflash', sizeBytes: 540_672 },
  ]);
  const sha256 = createHash('sha256').update('iso').digest('hex');
  assert.deepEqual(cds, [
    { cdId: 'cd0', bus: 'sata', bootIndex: 1, medium: { path: iso!, sizeBytes: 3, sha256 } },
    { cdId: 'cd1', bus: 'sata' },
  ]);
  assert.equal(nics[0]?.bootIndex, undefined);
  assert.deepEqual([tpm, sent.tpmDirectory], [{ model: 'tpm-crb' }, join(directory, 'tpm')]);
  assert.deepEqual(
    sent.disks.map(({ diskId }) => diskId),
    ['root', 'firmware-variables'],
  );
  for (const wrong of [
    ['--boot', 'cd9'],
    ['--cd', `cd0=${join(directory, 'none.iso')}`],
    ['--firmware-variables', variables!],
  ]) {
    const { exitCode } = await ask(...add, ...wrong);
    assert.deepEqual([exitCode, site.asked.length], [2, 1], wrong.join(' '));
  }
});
