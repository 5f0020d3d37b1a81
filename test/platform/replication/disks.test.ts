import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { type AreaReader, checkLedger } from '../../../lab/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { areaOf } from '../../support/image-bytes.ts';
import { copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';
import { sized } from '../../support/size.ts';

/** None of them is a multiple of 64 KiB, the last two none of 4 KiB. */
const SIZES = { one: 540_672, two: 1_053_184, three: 542_208 };

it('S0.28 all disks of a machine are cut at one instant, whatever their sizes', {
  timeout: 120_000,
}, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ws-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const extraDisks = Object.entries(SIZES).map(([diskId, sizeBytes]) => ({
    diskId,
    sizeBytes,
    path: join(directory, `${diskId}.qcow2`),
  }));
  for (const { path, sizeBytes } of extraDisks)
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(sizeBytes)]);
  const { machine, sites, ledger, replica } = await labSites(t, { extraDisks });
  const { images } = sites.protectedTools;
  const striped =
    'labtool ledger --pause-us 2000 --devices /dev/vdc,/dev/vdd,/dev/vde --report /dev/virtio-ports/org.warmsite.ledger';
  await inGuest(
    machine.record.sockets.agentPath!,
    // Its port is free when the writer that was stopped has ended, which is perhaps in the middle of a record.
    `while [ ! -e /run/ledger.pid ]; do usleep 20000; done; ledger stop; until ${striped}; do usleep 50000; done >/dev/null 2>&1 </dev/null &`,
  );
  const port = await ledger();
  const count = sized({ what: 'S0.28: cuts of three disks', normal: 3, full: 6 });
  let promised = 0;
  for (let copies = 1; copies <= count; copies++) {
    const type = copies % 3 === 0 ? 'app' : 'crash';
    // Each time the writer is somewhere else, and after some times round all three rings.
    promised = (await port.reached(promised + 150, 60_000)).seq;
    const { pointId } = await copyAndSend(machine, sites.target, type);
    await verifyPoint(sites.replicaTools, replica(), pointId);
    await using stack = new AsyncDisposableStack();
    const readers: AreaReader[] = [];
    for (const { diskId, sizeBytes } of extraDisks) {
      const reader = stack.use(await images.open(replica().chain(pointId, diskId)));
      assert.equal(reader.sizeBytes, sizeBytes);
      readers.push(areaOf(reader));
    }
    const check = await checkLedger(readers, Math.min(...Object.values(SIZES)));
    assert.ok(check.contiguous, JSON.stringify(check));
    assert.ok(check.last >= promised, `${check.last} of ${promised}`);
  }
  t.diagnostic(`${promised} records over three disks`);
});
