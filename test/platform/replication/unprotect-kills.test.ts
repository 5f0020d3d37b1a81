/** The end of a protection whose site process is killed in the very moment in which the guest changes over to its owner's files. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemClock as clock, sleep } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { guardsOf } from '../../support/guards.ts';
import { PIVOT_STEPS, type PivotStep } from '../../support/hanging-pivot.ts';
import { bytesOf } from '../../support/image-bytes.ts';
import { monitoredMachine } from '../../support/monitored-machine.ts';
import { siteUntil } from '../../support/site-until.ts';
import { sized } from '../../support/size.ts';
import { reopenMachine } from '../../support/two-sites.ts';

const BLOCK = 65_536;

/** Two layers that no target has acknowledged on each of two disks, and later writes above them. */
async function withTwoCuts(t: TestContext) {
  const box = await monitoredMachine(t);
  let written = 0;
  const write = async () => {
    for (const diskId of ['disk', 'steady']) {
      // One block that every write hits, and one that only this one does.
      await box.write(10 + written, 0, BLOCK, diskId);
      await box.write(10 + written, (1 + written) * BLOCK, BLOCK, diskId);
    }
    written += 1;
  };
  for (let cuts = 0; cuts < 2; cuts++) {
    await write();
    await box.machine.cut('crash');
  }
  await write();
  return { ...box, write };
}

type Box = Awaited<ReturnType<typeof withTwoCuts>>;

async function status({ monitor }: Box): Promise<string> {
  return (await monitor().execute<{ status: string }>('query-status')).status;
}

/** The next process of the site, as soon as nobody else holds the monitor. */
async function lookedAt(box: Box): Promise<ProtectedMachine> {
  const machine = await reopenMachine(box.sites);
  for (let tries = 0; (await machine.attach()).state === 'unreachable'; tries++)
    assert.ok(tries < 20, 'the monitor is not let go of');
  return machine;
}

async function assertGivenBack(box: Box, machine: ProtectedMachine, when: string): Promise<void> {
  assert.deepEqual([machine.record.protection, machine.record.dissolving], [null, undefined], when);
  for (const [diskId, expected] of box.contents()) {
    const chain = machine.chain(diskId);
    assert.equal(chain.length, 1, when);
    const found = await bytesOf(box.sites.protectedTools.images, chain);
    assert.ok(found.equals(expected), `${when}: the owner's ${diskId} is not what was written last`);
  }
}

async function off(box: Box): Promise<void> {
  await box.monitor().execute('quit');
  await box.monitor().closed;
}

/** Kills a site process that stands at this step, with its guard or without. The guest runs then, or nobody continues it. */
async function killedAt(t: TestContext, box: Box, step: PivotStep, guard: 'lives' | 'is killed') {
  const { qmpPath } = box.machine.record.sockets;
  const site = await siteUntil(t, box.sites, ['unprotect', step], 'stands still');
  assert.equal(await status(box), 'paused');
  const [guardId] = await guardsOf(qmpPath, 'pivot-guard-main');
  assert.ok(guardId !== undefined, 'a guard watches');
  if (guard === 'is killed') process.kill(guardId, 'SIGKILL');
  const beforeMs = clock.monotonicMs();
  site.kill('SIGKILL');
  await exitOf(site);
  for (let tries = 0; (await guardsOf(qmpPath, 'pivot-guard-main')).length > 0; tries++) {
    assert.ok(tries < 1000, 'the guard does not end');
    await sleep(clock, 20);
  }
  assert.equal(await status(box), guard === 'lives' ? 'running' : 'paused');
  if (guard === 'lives') t.diagnostic(`${step}: settled in ${Math.round(clock.monotonicMs() - beforeMs)} ms`);
}

const STANDS: Readonly<Record<PivotStep, string>> = {
  none: 'no disk has changed over',
  one: 'one disk of two has changed over',
  all: 'both disks have changed over',
  said: 'both disks have changed over and their tips have lost their names',
};
/** Every step is stood at; at full size with every fate. */
const LIVES = PIVOT_STEPS.flatMap((step) =>
  (['ends', 'runs on'] as const).flatMap((fate) =>
    (['lives', 'is killed'] as const).map((guard) => ({ step, fate, guard })),
  ),
);
const CHOSEN = [0, 6, 8, 11, 13].map((index) => LIVES[index]!);
const lives = sized({
  what: 'S0.14: kills while disks change over',
  normal: CHOSEN.length,
  full: LIVES.length,
});

for (const { step, fate, guard } of lives === LIVES.length ? LIVES : CHOSEN) {
  const when = `S0.14 a site is killed when ${STANDS[step]}, its guard ${guard}, the machine ${fate}`;
  test(`${when}: what was written last is there`, { timeout: 120_000 }, async (t) => {
    const box = await withTwoCuts(t);
    await box.machine.release();
    await killedAt(t, box, step, guard);
    if (guard === 'lives') await box.write();
    if (fate === 'ends') await off(box);
    const machine = await lookedAt(box);
    t.after(() => machine.release());
    if (fate === 'runs on') {
      assert.equal(await status(box), 'running');
      await box.write();
      await off(box);
      await machine.running?.gone;
    }
    await assertGivenBack(box, machine, when);
  });
}

test('S0.14 a machine that nobody hinders stands still for a moment, and none of its disks is ours afterwards', async (t) => {
  const box = await withTwoCuts(t);
  const { machine, sites } = box;
  await machine.unprotect();
  const { fields } = sites.log.events.find(({ event }) => event === 'protection.changed-over')!;
  t.diagnostic(`it stood still for ${Math.round(Number(fields!.pausedMs))} ms`);
  assert.ok(Number(fields!.pausedMs) < 5_000);
  await box.write();
  const nodes = await box
    .monitor()
    .execute<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true });
  assert.deepEqual(
    nodes.filter((node) => node['node-name'].startsWith('warmsite-')),
    [],
  );
  await off(box);
  await machine.running?.gone;
  await assertGivenBack(box, machine, 'nobody hinders it');
});
