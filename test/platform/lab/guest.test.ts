import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildLabGuest, LAB_CACHE } from '../../../lab/build-guest.ts';
import { startLabMachine } from '../../../lab/qemu.ts';
import { consoleCommand, decodePpm, distinctColours, readNonce } from '../../../src/failover/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { agentOf, inGuest, ledgerOf, ledgerPortOf, started } from '../../support/lab-guest.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('the guest boots from its own disk, answers, and is proven by its console picture', async (t) => {
  const machine = await started(t);
  const bootMs = await machine.agentReady();
  t.diagnostic(`start to agent: ${Math.round(bootMs)} ms`);
  const agent = await agentOf(t, machine);
  await agent.ping();
  assert.match(await readFile(machine.serialPath, 'latin1'), /lab guest up/);

  const nonce = systemRandom.bytes(8).toString('hex');
  const { path, args } = consoleCommand(nonce);
  assert.equal((await agent.exec(path, args)).exitCode, 0);
  const picture = join(machine.directory, 'console.ppm');
  await machine.screendump(picture);
  const ppm = await readFile(picture);
  assert.equal(readNonce(ppm), nonce);
  assert.ok(distinctColours(decodePpm(ppm)!) > 1);
});

test('S0.11 after SIGKILL the disks hold every record that was reported and no gap', async (t) => {
  const machine = await started(t);
  const port = await ledgerPortOf(t, machine);
  const first = await port.next();
  const later = await port.reached(first.seq + 50);
  const rate = ((later.seq - first.seq) * 1000) / (later.hostMonotonicMs - first.hostMonotonicMs);
  t.diagnostic(`ledger: ${Math.round(rate)} records/s`);
  await machine.kill();
  const check = await ledgerOf(t, machine);
  assert.equal(check.firstBad, undefined);
  assert.equal(check.contiguous, true);
  assert.ok(check.last >= port.last!.seq, `${check.last} on disk, ${port.last!.seq} reported`);
});

test('S0.6 freeze and thaw run the hooks; in between the database has neither WAL frames nor writers', async (t) => {
  const machine = await started(t);
  const agent = await agentOf(t, machine);
  await inGuest(agent, 'while [ ! -e /data/app.db ]; do usleep 20000; done; touch /data/run-sqlite');
  await inGuest(
    agent,
    'n=0; while [ ! -s /data/app.db-wal ] && [ $n -lt 500 ]; do usleep 20000; n=$((n+1)); done; [ -s /data/app.db-wal ]',
  );
  await agent.freeze({ timeoutMs: 20_000 });
  assert.equal(await agent.freezeStatus(), 'frozen');
  // QEMU flushes its images when it stops the machine, so the file now holds what a copy of this instant would.
  await machine.execute('stop');
  const frozen = join(machine.directory, 'frozen.raw');
  await runCommand('qemu-img', ['convert', '-U', '-f', 'qcow2', '-O', 'raw', machine.disks[1]!.path, frozen]);
  await machine.execute('cont');
  await agent.thaw();
  assert.equal(await agent.freezeStatus(), 'thawed');
  assert.match(await inGuest(agent, 'cat /run/freeze.log'), / freeze\n.* thaw$/);
  const count = 'sqlite3 -cmd ".timeout 5000" /data/app.db "SELECT count(*) FROM transfers"';
  const before = Number(await inGuest(agent, count));
  const after = Number(await inGuest(agent, `sleep 1; ${count}`));
  assert.ok(after > before, `the application goes on after the thaw: ${before}, ${after}`);

  const inCopy = async (request: string) => {
    const image = `${frozen}?offset=${133_120 * 512}`;
    return (await runCommand('debugfs', ['-R', request, image])).stdout;
  };
  assert.match(await inCopy('stat /app.db-wal'), /Size: 0\b/);
  assert.doesNotMatch(await inCopy('features'), /needs_recovery/);
  const database = join(machine.directory, 'app.db');
  await inCopy(`dump /app.db ${database}`);
  const { stdout } = await runCommand('sqlite3', [
    database,
    'PRAGMA integrity_check; SELECT sum(amount) = 0 AND count(*) > 0 FROM transfers;',
  ]);
  assert.equal(stdout, 'ok\n1\n');
});

test('two callers at once get the same guest and leave nothing half-made', async (t) => {
  await buildLabGuest();
  const directory = await temporaryDirectory(t);
  const options = { directory, kernelDirectory: join(LAB_CACHE, 'kernel') };
  const [one, other] = await Promise.all([buildLabGuest(options), buildLabGuest(options)]);
  assert.deepEqual(one, other);
  assert.deepEqual(
    (await readdir(directory)).filter((name) => name.includes('aside')),
    [],
  );
  const before = systemClock.monotonicMs();
  assert.deepEqual(await buildLabGuest(options), one);
  t.diagnostic(`found again in ${Math.round(systemClock.monotonicMs() - before)} ms`);
});

test('a machine that QEMU refuses is a failure with its words', async (t) => {
  const directory = await temporaryDirectory(t);
  await assert.rejects(startLabMachine({ directory, extraArgs: ['-device', 'no-such-device'] }), (error) => {
    assert.ok(isFailure(error, 'LAB_MACHINE_FAILED'));
    assert.match(error.message, /no-such-device/);
    return true;
  });
});
