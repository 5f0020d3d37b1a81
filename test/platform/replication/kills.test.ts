/** Both sites' processes, and QEMU itself, killed at any instant; then everything goes on where it was. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { assertLedger, copyAndSend, labSites, sendAll } from '../../support/lab-sites.ts';
import { sized } from '../../support/size.ts';
import { openTwoSites, reopenMachine, type TwoSites } from '../../support/two-sites.ts';

/** Of a machine with 448 MiB of disks that writes a ledger of 512-byte records, a copy that is not incremental is far above. */
const INCREMENT_BYTES_MAX = 8 * 1024 * 1024;
const SITE_PROCESS = join(import.meta.dirname, '..', '..', 'support', 'site-process.ts');

describe('kill -9', { timeout: 3_600_000 }, () => {
  it('S0.10 S0.11 both sites go on where they were when their processes are killed at any instant', async (t) => {
    const lab = await labSites(t);
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    const first = await copyAndSend(lab.machine, lab.sites.target);
    await lab.machine.release();
    const identity = join(lab.sites.directory, 'identity.json');
    await writeFile(identity, JSON.stringify(lab.sites.identity));

    const kills = sized({ what: 'S0.10: kills of both site processes', normal: 10, full: 200 });
    let acknowledged = 0;
    for (let i = 0; i < kills; i++) {
      const child = spawn(process.execPath, [SITE_PROCESS, identity, 'replicate'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      t.after(() => child.kill('SIGKILL'));
      acknowledged += await killedWithin(child, randomBelow(systemRandom, 2500));
      // The guest was never asked to wait for any of this.
      await ledger.next();
    }
    t.diagnostic(`${acknowledged} points in ${kills} lives`);

    const sites = await openTwoSites(t, lab.sites.identity);
    const machine = await reopenMachine(sites);
    t.after(() => machine.release());
    assert.equal((await machine.attach()).state, 'running');
    const promised = ledger.last!.seq;
    await sendAll(machine, sites.target);
    const last = await copyAndSend(machine, sites.target);
    assert.ok(last.wireBytes < INCREMENT_BYTES_MAX, `${last.wireBytes} bytes`);
    await assertWholeReplica(sites, promised);
    assert.notEqual(sites.replicas.list()[0]!.newest!.statement.pointId, first.pointId);
    for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
    for (const { diskId } of machine.record.disks) {
      const layers = (await sites.protectedTools.files.list(machine.layout.disk(diskId)))!;
      assert.ok(layers.length <= 2, `left over: ${layers.join(' ')}`);
    }
  });

  it('S0.11 after SIGKILL of QEMU at any instant the next copy is incremental and nothing reported is lost', async (t) => {
    const lab = await labSites(t);
    const { machine, sites } = lab;
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    await copyAndSend(machine, sites.target);
    ledger.close();
    const kills = sized({ what: 'S0.11: kills of QEMU', normal: 3, full: 200 });
    let promised = 0;
    for (let i = 0; i < kills; i++) {
      const port = await lab.ledger();
      const gone = machine.running!.gone;
      const cutting = cutsUntilGone(lab.machine, sites.target);
      if (i % 2 === 0) await port.next(60_000);
      await sleep(systemClock, randomBelow(systemRandom, 1000));
      process.kill(machine.running!.processId!, 'SIGKILL');
      await gone;
      await cutting;
      promised = Math.max(promised, port.last?.seq ?? 0);
      port.close();
      assert.equal((await machine.attach()).state, 'stopped');
      await machine.start();
      assert.equal(machine.presence.state, 'running');
      await sendAll(machine, sites.target);
      const { pointId, wireBytes } = await copyAndSend(machine, sites.target);
      assert.ok(wireBytes < INCREMENT_BYTES_MAX, `${wireBytes} bytes after a crash`);
      await assertLedger(sites.protectedTools.images, (disk) => lab.replica().chain(pointId, disk), promised);
    }
    const port = await lab.ledger();
    await port.next(60_000);
    await assertWholeReplica(sites, promised);
  });

  it('S0.14 SIGKILL of QEMU in the middle of a merge costs nothing', async (t) => {
    const lab = await labSites(t);
    const { machine, sites } = lab;
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    await copyAndSend(machine, sites.target);
    ledger.close();
    const kills = sized({ what: 'S0.14: kills of QEMU in a merge', normal: 2, full: 100 });
    for (let i = 0; i < kills; i++) {
      const port = await lab.ledger();
      const { seq } = await port.next(60_000);
      await machine.cut('crash');
      const pid = machine.running!.processId!;
      const gone = machine.running!.gone;
      const merging = new Promise<void>((resolve) => {
        const end = machine.onEvent(({ name }) => {
          if (name !== 'JOB_STATUS_CHANGE') return;
          end();
          resolve();
        });
      });
      const sending = sendAll(machine, sites.target).catch(() => {
        // It may end with whatever the death of QEMU makes of it; what is left is looked at below.
      });
      await merging;
      process.kill(pid, 'SIGKILL');
      await gone;
      await sending;
      port.close();
      assert.equal((await machine.attach()).state, 'stopped');
      await machine.start();
      const { pointId } = await copyAndSend(machine, sites.target);
      await assertLedger(sites.protectedTools.images, (disk) => lab.replica().chain(pointId, disk), seq);
      await verifyPoint(sites.replicaTools, lab.replica(), pointId);
      for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
    }
  });

  it('S0.11 a machine that is off is copied, merged and started again on its chain', async (t) => {
    const lab = await labSites(t);
    const { machine, sites } = lab;
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    await copyAndSend(machine, sites.target);
    await ledger.next();
    const gone = machine.running!.gone;
    await machine.running!.pressPowerButton();
    await gone;
    const promised = ledger.last!.seq;
    assert.equal((await machine.attach()).state, 'stopped');
    assert.equal(await machine.hasUncutChanges(), true);
    const { pointId } = await copyAndSend(machine, sites.target);
    assert.equal(await machine.hasUncutChanges(), false);
    const { images } = sites.protectedTools;
    await assertLedger(images, (disk) => lab.replica().chain(pointId, disk), promised);
    await copyAndSend(machine, sites.target);
    for (const { diskId } of machine.record.disks) assert.ok(machine.chain(diskId).length <= 3);
    await machine.start();
    ledger.close();
    const port = await lab.ledger();
    const { seq } = await port.next(60_000);
    assert.ok(seq > promised);
    const last = await copyAndSend(machine, sites.target);
    await assertLedger(images, (disk) => lab.replica().chain(last.pointId, disk), seq);
    await assertWholeReplica(sites, seq);
  });
});

/** Kills the child `delayMs` after it began to work. Returns how many points it had acknowledged. */
async function killedWithin(child: ChildProcess, delayMs: number): Promise<number> {
  let acknowledged = 0;
  const ready = Promise.withResolvers<void>();
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const { news, state } = JSON.parse(line);
    if (news === 'ready' && state === 'running') ready.resolve();
    else if (news === 'ready') ready.reject(new Error(`the machine is ${state}`));
    else acknowledged += 1;
  });
  const exited = exitOf(child);
  await Promise.race([ready.promise, exited.then(() => assert.fail('the site process ended by itself'))]);
  await sleep(systemClock, delayMs);
  assert.equal(child.exitCode, null, 'the site process ended by itself');
  child.kill('SIGKILL');
  await exited;
  return acknowledged;
}

/** Copies as fast as it goes. A machine that dies ends it; what that fails with is of no interest here. */
async function cutsUntilGone(
  machine: Parameters<typeof copyAndSend>[0],
  target: TwoSites['target'],
): Promise<void> {
  let isGone = false;
  void machine.running!.gone.then(() => {
    isGone = true;
  });
  while (!isGone) {
    await copyAndSend(machine, target).catch(() => {
      // What a copy fails with while its machine dies is of no interest here.
    });
  }
}

/** Every retained point is what was signed, they follow each other without gap or double, and the ledger holds. */
async function assertWholeReplica(sites: TwoSites, promised: number): Promise<void> {
  const replica = sites.replicas.list()[0]!;
  const sequences = replica.points.map(({ statement }) => statement.sequence);
  assert.deepEqual(
    [...new Set(sequences)].sort((a, b) => a - b),
    sequences,
  );
  assert.equal(new Set(replica.points.map(({ statement }) => statement.pointId)).size, sequences.length);
  const { images } = sites.protectedTools;
  let last = 0;
  for (const { statement } of replica.points) {
    await verifyPoint(sites.replicaTools, replica, statement.pointId);
    const seq = await assertLedger(images, (disk) => replica.chain(statement.pointId, disk), last);
    last = seq;
  }
  assert.ok(last >= promised, `the newest point ends with ${last}, ${promised} were promised`);
}
