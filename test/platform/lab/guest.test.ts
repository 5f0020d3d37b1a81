import assert from 'node:assert/strict';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { buildLabGuest, LAB_CACHE, LEDGER_AREAS } from '../../../lab/build-guest.ts';
import { checkLedgerDisks } from '../../../lab/ledger.ts';
import { LedgerPort } from '../../../lab/ledger-port.ts';
import { type LabMachine, type LabMachineOptions, startLabMachine } from '../../../lab/qemu.ts';
import { consoleCommand, decodePpm, distinctColours, readNonce } from '../../../src/failover/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { GuestAgent } from '../../../src/qmp/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

async function started(t: TestContext, options: Partial<LabMachineOptions> = {}): Promise<LabMachine> {
  const directory = await temporaryDirectory(t);
  const machine = await startLabMachine({ directory, guest: await buildLabGuest(), ...options });
  t.after(() => machine.stop());
  return machine;
}

async function agentOf(t: TestContext, machine: LabMachine): Promise<GuestAgent> {
  await machine.agentReady();
  const agent = await GuestAgent.connect({
    path: machine.agentPath,
    clock: systemClock,
    random: systemRandom,
  });
  t.after(() => agent.close());
  return agent;
}

async function ledgerPortOf(t: TestContext, machine: LabMachine): Promise<LedgerPort> {
  const port = await LedgerPort.connect({ path: machine.ledgerPath, clock: systemClock });
  t.after(() => port.close());
  return port;
}

/** Runs a shell command in the guest; anything but success fails the test with what it said. */
async function inGuest(agent: GuestAgent, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await agent.exec('/bin/sh', ['-c', script]);
  assert.equal(exitCode, 0, `${script}: ${stdout}${stderr}`);
  return stdout.trim();
}

/** The ledger on the disks of a machine that has ended. */
async function ledgerOf(t: TestContext, machine: LabMachine) {
  const disks = [];
  for (const { disk, partition } of LEDGER_AREAS) {
    const raw = join(machine.directory, `${disk}.raw`);
    const { path } = machine.disks.find(({ name }) => name === disk)!;
    await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
    const file = await open(raw, 'r');
    t.after(() => file.close());
    const read = async (offset: number, length: number) => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    };
    disks.push({ read, partition });
  }
  return checkLedgerDisks(disks);
}

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

test('the ledger goes on after the largest record when the guest starts again', async (t) => {
  const machine = await started(t);
  const port = await ledgerPortOf(t, machine);
  const { seq } = await port.reached(20);
  await machine.kill();
  const again = await started(t, { disks: machine.disks });
  const next = await (await ledgerPortOf(t, again)).next();
  assert.ok(next.seq > seq);
  await again.stop();
  assert.equal((await ledgerOf(t, again)).contiguous, true);
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

test('the power button and the agent shut the guest down in order', async (t) => {
  const byButton = await started(t);
  const port = await ledgerPortOf(t, byButton);
  // The ledger starts before the button's driver: the port alone does not say that the button works yet.
  const agent = await agentOf(t, byButton);
  await inGuest(
    agent,
    'n=0; while [ ! -e /run/acpid.pid ] && [ $n -lt 500 ]; do usleep 20000; n=$((n+1)); done',
  );
  await byButton.pressPowerButton();
  assert.equal((await byButton.exited).code, 0);
  assert.equal((await ledgerOf(t, byButton)).contiguous, true);
  assert.ok((await ledgerOf(t, byButton)).last >= port.last!.seq);
});

test('the web server answers with the host name over the network', async (t) => {
  const machine = await started(t, {
    network: 'user',
  });
  const agent = await agentOf(t, machine);
  await inGuest(
    agent,
    'n=0; while ! ip address show dev eth0 | grep -q 10.0.2 && [ $n -lt 500 ]; do usleep 20000; n=$((n+1)); done',
  );
  assert.equal(await inGuest(agent, 'wget -q -O - http://10.0.2.15/'), 'lab');
});

test('the latency and fill tools work on the guest’s devices', async (t) => {
  const agent = await agentOf(t, await started(t));
  const latency = JSON.parse(
    await inGuest(
      agent,
      'ledger stop; labtool latency --device /dev/vdb1 --pattern random4k --count 50 --span 1048576',
    ),
  );
  assert.equal(latency.count, 50);
  assert.ok(latency.minUs <= latency.p50Us && latency.p50Us <= latency.maxUs);
  const digests = await inGuest(
    agent,
    'for f in a b; do labtool fill --file /data/$f --bytes 300000 --seed 7 --pattern random; sha256sum < /data/$f; done',
  );
  const [one, other] = digests.split('\n');
  assert.equal(one, other);
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
