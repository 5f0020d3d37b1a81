/** A guest that nobody thaws any more: the site process and its freeze guard were killed in the same instant. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { GuestAgent } from '../../../src/qmp/index.ts';
import { guardsOf } from '../../support/guards.ts';
import { labSites } from '../../support/lab-sites.ts';
import { siteUntil } from '../../support/site-until.ts';
import { reopenMachine } from '../../support/two-sites.ts';

test('S0.6 a guest whose site and freeze guard were killed at once is thawed by the next process', async (t) => {
  const { machine, sites, ledger } = await labSites(t);
  const port = await ledger();
  await port.reached(20, 60_000);
  await machine.release();
  const agentPath = machine.record.sockets.agentPath!;
  const site = await siteUntil(t, sites, ['freeze'], 'frozen');
  const [guard] = await guardsOf(agentPath);
  // Stopped first, so that it has no instant in which it could outlive the site.
  process.kill(guard!, 'SIGSTOP');
  site.kill('SIGKILL');
  process.kill(guard!, 'SIGKILL');
  await exitOf(site);
  while ((await guardsOf(agentPath)).length > 0) await sleep(systemClock, 10);
  {
    await using agent = await GuestAgent.connect({
      ...{ path: agentPath, clock: systemClock, random: systemRandom },
      timeoutMs: 20_000,
    });
    assert.equal(await agent.freezeStatus(), 'frozen', 'nobody is left to thaw it');
  }

  const again = await reopenMachine(sites);
  t.after(() => again.release());
  const { promise: thawed, resolve } = Promise.withResolvers<number>();
  again.onEvent(({ name }) => {
    if (name === 'WARMSITE_THAWED') resolve(systemClock.monotonicMs());
  });
  const beforeMs = systemClock.monotonicMs();
  assert.equal((await again.attach()).state, 'running');
  t.diagnostic(`attached in ${Math.round(systemClock.monotonicMs() - beforeMs)} ms`);
  t.diagnostic(`thawed after ${Math.round((await thawed) - beforeMs)} ms`);
  assert.ok(sites.log.events.some(({ event }) => event === 'machine.thawed'));
  await port.next(20_000);
  assert.equal((await again.cut('app')).consistency, 'application');
});

test('S0.6 a guest that somebody else has frozen is left alone', async (t) => {
  const { machine, sites } = await labSites(t);
  await machine.release();
  const path = machine.record.sockets.agentPath!;
  const connection = { path, clock: systemClock, random: systemRandom, timeoutMs: 20_000 };
  {
    await using agent = await GuestAgent.connect(connection);
    await agent.freeze();
  }
  const again = await reopenMachine(sites);
  assert.equal((await again.attach()).state, 'running');
  assert.equal((await again.cut('crash')).consistency, 'crash');
  await again.release();
  await using agent = await GuestAgent.connect(connection);
  assert.equal(await agent.freezeStatus(), 'frozen');
  await agent.thaw();
});

test('S0.6 a guest agent that does not answer holds no attach up', async (t) => {
  const { machine, sites } = await labSites(t);
  await machine.release();
  // Its one place is taken, as by a client that hangs.
  await using holder = await GuestAgent.connect({
    ...{ path: machine.record.sockets.agentPath!, clock: systemClock, random: systemRandom },
    timeoutMs: 60_000,
  });
  const again = await reopenMachine(sites);
  const beforeMs = systemClock.monotonicMs();
  assert.equal((await again.attach()).state, 'running');
  assert.equal((await again.cut('crash')).consistency, 'crash');
  await again.release();
  const tookMs = systemClock.monotonicMs() - beforeMs;
  assert.ok(tookMs < 4000, `attach, copy and release took ${tookMs} ms`);
  await holder.ping();
});
