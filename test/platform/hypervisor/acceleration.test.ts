import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { QemuHypervisor } from '../../../src/hypervisor/index.ts';
import { whyNoGuest } from '../../../src/hypervisor/qemu/acceleration.ts';
import { testGuestSector } from '../../../src/hypervisor/qemu/test-guest.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('the test guest goes through every mode of a processor that can do them', async () => {
  assert.equal(await whyNoGuest(systemClock, 'tcg'), undefined);
});

test('a test guest that does not come through says nothing, and its machine is gone', async (t) => {
  const { TMPDIR } = process.env;
  const directory = await temporaryDirectory(t);
  t.after(() => {
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
  });
  process.env.TMPDIR = directory;
  const sector = testGuestSector();
  // mov al, 'k'; out 0xf4, al: it ends its machine at once.
  Buffer.from([0xb0, 0x6b, 0xe6, 0xf4]).copy(sector);
  assert.equal(await whyNoGuest(systemClock, 'tcg', sector), 'a test guest ended without a word');
  assert.deepEqual(await readdir(directory), []);
});

test('what accelerates guests here is known in a moment', async (t) => {
  const beganMs = systemClock.monotonicMs();
  const { accelerator, reason } = await new QemuHypervisor({ clock: systemClock }).acceleration();
  t.diagnostic(`${accelerator}: ${reason ?? ''}`);
  assert.equal(reason === undefined, accelerator === 'kvm');
  assert.ok(systemClock.monotonicMs() - beganMs < 10_000);
});
