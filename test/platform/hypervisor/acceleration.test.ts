import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { QemuHypervisor } from '../../../src/hypervisor/index.ts';
import { whyNoGuest } from '../../../src/hypervisor/qemu/acceleration.ts';
import { testGuestRom, testGuestSector } from '../../../src/hypervisor/qemu/test-guest.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const SOURCES = join(import.meta.dirname, '..', '..', '..', 'src');
const ACCELERATION = join(SOURCES, 'hypervisor', 'qemu', 'acceleration.ts');
const CLOCK = join(SOURCES, 'lib', 'clock.ts');

test('the test guest goes through every mode of a processor that can do them, with a firmware and in its place', async () => {
  assert.equal(await whyNoGuest(systemClock, 'tcg', { rom: testGuestRom() }), undefined);
  assert.equal(await whyNoGuest(systemClock, 'tcg', { sector: testGuestSector() }), undefined);
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
  assert.equal(await whyNoGuest(systemClock, 'tcg', { sector }), 'a test guest ended without a word');
  assert.deepEqual(await readdir(directory), []);
});

test('what accelerates guests here is known in a moment', async (t) => {
  const beganMs = systemClock.monotonicMs();
  const { accelerator, reason } = await new QemuHypervisor({ clock: systemClock }).acceleration();
  const tookMs = systemClock.monotonicMs() - beganMs;
  t.diagnostic(`${accelerator} after ${tookMs.toFixed(0)} ms: ${reason ?? ''}`);
  assert.equal(reason === undefined, accelerator === 'kvm');
  assert.ok(tookMs < 10_000);
});

test('a test guest ends with the process that asks, however that ends', async (t) => {
  const directory = await temporaryDirectory(t);
  const program = `
    import { whyNoGuest } from ${JSON.stringify(ACCELERATION)};
    import { systemClock } from ${JSON.stringify(CLOCK)};
    // jmp to itself: it never says anything.
    const sector = Buffer.alloc(512);
    Buffer.from([0xeb, 0xfe]).copy(sector);
    sector.writeUInt16LE(0xaa55, 510);
    await whyNoGuest(systemClock, 'tcg', { sector });`;
  const env = { ...process.env, TMPDIR: directory };
  const asking = spawn(process.execPath, ['--input-type=module', '-e', program], { env, stdio: 'inherit' });
  t.after(() => asking.kill('SIGKILL'));
  const guests = () => processesNaming(directory);
  while (guests().length === 0) await sleep(systemClock, 20);
  asking.kill('SIGKILL');
  await exitOf(asking);
  const deadlineMs = systemClock.monotonicMs() + 10_000;
  while (guests().length > 0) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, 'it runs on, and nobody knows of it');
    await sleep(systemClock, 20);
  }
});

/** Processes with a file of that directory among their arguments. */
function processesNaming(directory: string): number[] {
  const pids = readdirSync('/proc').map(Number).filter(Number.isInteger);
  return pids.filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(directory);
    } catch {
      return false; // It has gone meanwhile.
    }
  });
}
