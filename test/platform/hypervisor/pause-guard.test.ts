/** Machines that a site process has stopped run on, whatever becomes of that process. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { systemClock as clock, sleep } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { PAUSE_PARENT } from '../../support/pause-parent.ts';
import { EMPTY_MACHINE, socketListens, startedProcess } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** A QEMU without disks and without a guest, with a monitor for the code under test and one for the test. */
async function machine(t: TestContext, directory: string, name: string) {
  const [qmpPath, otherPath] = ['qmp', 'other'].map((kind) => join(directory, `${name}-${kind}`));
  const child = await startedProcess(t, 'qemu-system-x86_64', [
    ...EMPTY_MACHINE,
    ...['-qmp', `unix:${qmpPath},server=on,wait=off`, '-qmp', `unix:${otherPath},server=on,wait=off`],
  ]);
  await socketListens(qmpPath!);
  await socketListens(otherPath!);
  const other = await QmpClient.connect({ path: otherPath!, clock });
  t.after(() => other.close());
  const status = async () => (await other.execute<{ status: string }>('query-status')).status;
  return { child, qmpPath: qmpPath!, other, status };
}

type Machine = Awaited<ReturnType<typeof machine>>;

async function parentOf(t: TestContext, limitMs: number, machines: readonly Machine[]) {
  const args = [PAUSE_PARENT, String(limitMs), ...machines.map(({ qmpPath }) => qmpPath)];
  const parent = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  t.after(async () => {
    parent.kill('SIGKILL');
    await exitOf(parent);
  });
  await once(parent.stdout, 'data');
  return parent;
}

async function allRun(machines: readonly Machine[]): Promise<void> {
  for (let tries = 0; ; tries++) {
    const states = await Promise.all(machines.map(({ status }) => status()));
    if (states.every((state) => state === 'running')) return;
    assert.ok(tries < 250, `they do not run on: ${states}`);
    await sleep(clock, 20);
  }
}

function killGroup(parent: ChildProcess, signal: NodeJS.Signals): void {
  process.kill(-parent.pid!, signal);
}

describe('S0.28 machines that stand still for a common cut', { timeout: 120_000 }, () => {
  it('S0.28 a site process that is killed leaves them running, and their monitors free', async (t) => {
    const directory = await temporaryDirectory(t);
    const machines = [await machine(t, directory, 'a'), await machine(t, directory, 'b')];
    const parent = await parentOf(t, 60_000, machines);
    for (const { status } of machines) assert.equal(await status(), 'paused');
    killGroup(parent, 'SIGKILL');
    await exitOf(parent);
    await allRun(machines);
    for (const { qmpPath } of machines) {
      await using again = await QmpClient.connect({ path: qmpPath, clock, greetingTimeoutMs: 10_000 });
      assert.ok(again.greeting);
    }
  });

  it('S0.28 a site process that is stopped holds them no longer than the limit', async (t) => {
    const directory = await temporaryDirectory(t);
    const machines = [await machine(t, directory, 'a'), await machine(t, directory, 'b')];
    const parent = await parentOf(t, 2_000, machines);
    killGroup(parent, 'SIGSTOP');
    await allRun(machines);
    const said = once(parent.stdout!, 'data');
    killGroup(parent, 'SIGCONT');
    assert.equal(JSON.parse(String((await said)[0])).together, false);
    assert.deepEqual(await exitOf(parent), { code: 0, signal: null });
  });

  it('S0.28 a machine that hangs costs the others the limit, and runs on when it wakes up', async (t) => {
    const directory = await temporaryDirectory(t);
    const machines = [await machine(t, directory, 'a'), await machine(t, directory, 'b')];
    const parent = await parentOf(t, 60_000, machines);
    machines[1]!.child.kill('SIGSTOP');
    t.after(() => void machines[1]!.child.kill('SIGCONT'));
    killGroup(parent, 'SIGKILL');
    await exitOf(parent);
    await allRun([machines[0]!]);
    machines[1]!.child.kill('SIGCONT');
    await allRun(machines);
  });
});
