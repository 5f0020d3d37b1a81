/** Both sites' processes killed at any instant; then everything goes on where it was. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import {
  assertWholeReplica,
  copyAndSend,
  INCREMENT_BYTES_MAX,
  labSites,
  sendAll,
} from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { openTwoSites, reopenMachine } from '../../support/two-sites.ts';

const SITE_PROCESS = join(import.meta.dirname, '..', '..', 'support', 'site-process.ts');
const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

test(
  'S0.10 S0.11 both sites go on where they were when their processes are killed at any instant',
  LIMIT,
  async (t) => {
    const lab = await labSites(t);
    const ledger = await lab.ledger();
    await ledger.reached(20, 60_000);
    const first = await copyAndSend(lab.machine, lab.sites.target);
    await lab.machine.release();
    const identity = join(lab.sites.directory, 'identity.json');
    await writeFile(identity, JSON.stringify(lab.sites.identity));

    const kills = sized({ what: 'S0.10: kills of both site processes', normal: 5, full: 200 });
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
  },
);

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
