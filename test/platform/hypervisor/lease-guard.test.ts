/** A guest runs as long as its guard was told that it may, whatever becomes of whoever told it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { access, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { QemuLeaseGuards, runPaths } from '../../../src/hypervisor/index.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { eventually } from '../../support/eventually.ts';
import { guardsOf } from '../../support/guards.ts';
import { sleepyRom } from '../../support/sleepy-rom.ts';
import { EMPTY_MACHINE, socketListens, startedProcess } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const guards = new QemuLeaseGuards(clock);

/** A QEMU without disks and without a guest, as a machine of a site has its monitors. */
async function machine(t: TestContext, o: { readonly paused?: true; readonly rom?: Buffer } = {}) {
  const directory = await temporaryDirectory(t);
  const romPath = join(directory, 'rom');
  if (o.rom) await writeFile(romPath, o.rom);
  const { qmpPath, guardPath } = runPaths(directory);
  const monitor = (id: string, path: string) => [
    ...['-chardev', `socket,id=${id},path=${path},server=on,wait=off`],
    ...['-mon', `chardev=${id},mode=control`],
  ];
  const child = await startedProcess(t, 'qemu-system-x86_64', [
    ...EMPTY_MACHINE,
    ...(o.paused ? ['-S'] : []),
    ...(o.rom ? ['-bios', romPath] : []),
    ...monitor('qmp', qmpPath),
    ...monitor('guard', guardPath),
  ]);
  await socketListens(qmpPath);
  await socketListens(guardPath);
  const qmp = await QmpClient.connect({ path: qmpPath, clock });
  t.after(() => qmp.close());
  const isRunning = async () => (await qmp.execute<{ running: boolean }>('query-status')).running;
  const next = (name: string) => qmp.expectEvent(({ event }) => event === name, { timeoutMs: 20_000 });
  return { directory, child, qmp, isRunning, next };
}

const inMs = (ms: number) => bootClock.monotonicMs() + ms;

describe('S0.17 the guard of a lease', { timeout: 90_000 }, () => {
  it('S0.17 stops the guest when the lease is over, again when somebody continues it, and continues it with the next', async (t) => {
    const { directory, qmp, isRunning, next } = await machine(t);
    const guard = await guards.of(directory);
    const stopped = next('STOP');
    assert.equal(await guard.lend(inMs(700)), 'runs');
    // Whoever has told it has gone: that changes nothing.
    guard.disconnect();
    await stopped;
    await access(runPaths(directory).leaseMarkPath);
    const again = next('STOP');
    await qmp.execute('cont');
    await again;
    assert.equal(await isRunning(), false);
    const other = await guards.of(directory);
    assert.equal(await other.lend(inMs(60_000)), 'runs');
    assert.equal(await isRunning(), true);
    await assert.rejects(access(runPaths(directory).leaseMarkPath), { code: 'ENOENT' });
    await other.dismiss();
    await other.gone;
    assert.equal(await isRunning(), true);
  });

  it('S0.17 a machine that waits for its first lease runs with it, and not before', async (t) => {
    const { directory, isRunning } = await machine(t, { paused: true });
    await guards.expect(directory);
    const guard = await guards.of(directory);
    assert.equal(await isRunning(), false);
    assert.equal(await guard.lend(inMs(-1)), 'stopped');
    assert.equal(await guard.lend(inMs(60_000)), 'runs');
    assert.equal(await isRunning(), true);
  });

  it('S0.17 one that takes the place of another stops the guest at once, until it hears of a lease', async (t) => {
    const { directory, isRunning, next } = await machine(t);
    const stopped = next('STOP');
    const guard = await guards.of(directory, { goesOn: true });
    await stopped;
    assert.equal(await guard.lend(inMs(60_000)), 'runs');
    assert.equal(await isRunning(), true);
  });

  it('S0.17 a guest that has suspended itself, and wakes up when its lease is over, is stopped then', async (t) => {
    const { directory, qmp, next } = await machine(t, { rom: sleepyRom(), paused: true });
    const guard = await guards.of(directory);
    const suspended = next('SUSPEND');
    assert.equal(await guard.lend(inMs(60_000)), 'runs');
    await qmp.execute('cont');
    await suspended;
    assert.equal(await guard.lend(inMs(-1)), 'stopped');
    const status = async () => (await qmp.execute<{ status: string }>('query-status')).status;
    // QEMU 9.0 and newer have stopped it, and wake it up no more; of an older one the clock of the guest, say, would.
    if ((await status()) === 'suspended') {
      const [woken, stopped] = [next('WAKEUP'), next('STOP')];
      await qmp.execute('system_wakeup');
      await Promise.all([woken, stopped]);
    }
    assert.equal(await status(), 'paused');
    assert.equal(await guard.lend(inMs(60_000)), 'runs');
    assert.notEqual(await status(), 'paused');
  });

  it('S0.17 a machine that does not heed its monitor loses its power', async (t) => {
    const { directory, child } = await machine(t);
    const guard = await guards.of(directory);
    const gone = once(child, 'exit');
    assert.equal(await guard.lend(inMs(1_000)), 'runs');
    child.kill('SIGSTOP');
    const [, signal] = await gone;
    assert.equal(signal, 'SIGKILL');
    await guard.gone;
  });

  it('S0.17 a guard that dies with a question unread is told as such', async (t) => {
    const { directory } = await machine(t);
    const guard = await guards.of(directory);
    assert.equal(await guard.lend(inMs(60_000)), 'runs');
    const [processId] = await guardsOf(directory, 'lease-guard-main');
    process.kill(processId!, 'SIGSTOP');
    await eventually(async () =>
      /\) T /.test(await readFile(`/proc/${processId}/stat`, 'utf8')) ? true : undefined,
    );
    const unread = guard.lend(inMs(60_000));
    process.kill(processId!, 'SIGKILL');
    await assert.rejects(unread, { code: 'MACHINE_LEASE_UNGUARDED' });
    await guard.gone;
    // What it has left is found by the next one: nothing stands still for ever.
    await guards.release(directory);
  });

  it('S0.17 a machine without a monitor for it has no guard, and that is said', async (t) => {
    const directory = await temporaryDirectory(t);
    await assert.rejects(guards.of(directory), { code: 'MACHINE_LEASE_UNGUARDED' });
  });
});
