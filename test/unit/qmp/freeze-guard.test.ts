import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { systemClock as clock, sleep } from '../../../src/lib/clock.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { FreezeGuard } from '../../../src/qmp/index.ts';
import { errorReply, FakeGuestAgent } from '../../support/fake-guest-agent.ts';
import { guardsOf } from '../../support/guards.ts';
import { FREEZE_PARENT } from './freeze-parent.ts';

async function noGuardLeft(agentPath: string): Promise<void> {
  for (let tries = 0; (await guardsOf(agentPath)).length > 0; tries++) {
    assert.ok(tries < 500, 'the guard process has not ended');
    await sleep(clock, 20);
  }
}

test('a freeze that is thawed in time says so, and leaves no process behind', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  const guard = await FreezeGuard.start({ agentPath: fake.path, clock });
  assert.ok(!fake.commands.includes('guest-fsfreeze-freeze'), 'nothing is frozen by the start');
  assert.deepEqual(await guard.freeze(), { fileSystems: 2 });
  assert.ok(fake.frozen);
  const result = await guard.thaw();
  assert.ok(!fake.frozen);
  assert.equal(result.inTime, true);
  assert.equal(result.cause, 'asked');
  assert.ok(result.frozenMs >= 0 && result.frozenMs < 5000);
  await guard.close();
  assert.deepEqual(await guardsOf(fake.path), []);
});

test('a guard that was not used ends without freezing', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  const guard = await FreezeGuard.start({ agentPath: fake.path, clock });
  await guard.close();
  assert.deepEqual(await guardsOf(fake.path), []);
  assert.deepEqual(fake.commands, ['guest-sync-delimited']);
});

test('the guard thaws by itself when the limit passes, and the caller learns it', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  await using guard = await FreezeGuard.start({ agentPath: fake.path, limitMs: 100, clock });
  await guard.freeze();
  await fake.until(() => fake.commands.includes('guest-fsfreeze-thaw') && !fake.frozen);
  const { inTime, cause } = await guard.thaw();
  assert.deepEqual({ inTime, cause }, { inTime: false, cause: 'limit' });
});

test('the guard goes on with the thaw for longer than the freeze might have lasted', async (t) => {
  let refusals = 6;
  const fake = await FakeGuestAgent.start(t, ({ execute }) =>
    execute === 'guest-fsfreeze-thaw' && refusals-- > 0 ? errorReply('GenericError', 'busy') : undefined,
  );
  await using guard = await FreezeGuard.start({ agentPath: fake.path, limitMs: 100, clock });
  await guard.freeze();
  const { cause } = await guard.thaw();
  assert.deepEqual([fake.frozen, refusals < 0], [false, true]);
  assert.notEqual(cause, 'asked');
});

/** A parent with a process group of its own, killed with the whole group. */
function startParent(t: TestContext, agentPath: string, limitMs: number) {
  const parent = spawn(process.execPath, [FREEZE_PARENT, agentPath, String(limitMs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  const kill = async () => {
    if (parent.exitCode === null && parent.signalCode === null) process.kill(-parent.pid!, 'SIGKILL');
    await exitOf(parent);
  };
  t.after(kill);
  return { parent, kill };
}

test('the guard thaws when its parent is killed between freeze and thaw', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  const { parent, kill } = startParent(t, fake.path, 10_000);
  await once(parent.stdout, 'data');
  assert.ok(fake.frozen);
  const killedMs = clock.monotonicMs();
  await kill();
  await fake.until(() => !fake.frozen);
  assert.ok(clock.monotonicMs() - killedMs < 5000, 'long before the limit');
  await noGuardLeft(fake.path);
});

test('the guard thaws when its parent is killed while the freeze is under way', async (t) => {
  const asked = Promise.withResolvers<void>();
  const killed = Promise.withResolvers<void>();
  const fake = await FakeGuestAgent.start(t, async ({ execute }) => {
    if (execute !== 'guest-fsfreeze-freeze') return undefined;
    asked.resolve();
    await killed.promise;
    return undefined;
  });
  const { kill } = startParent(t, fake.path, 10_000);
  await asked.promise;
  await kill();
  killed.resolve();
  await fake.until(() => fake.commands.includes('guest-fsfreeze-thaw'));
  assert.ok(!fake.frozen);
  await noGuardLeft(fake.path);
});

test('the guard thaws on SIGTERM', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  await using guard = await FreezeGuard.start({ agentPath: fake.path, limitMs: 10_000, clock });
  await guard.freeze();
  for (const pid of await guardsOf(fake.path)) process.kill(pid, 'SIGTERM');
  await fake.until(() => !fake.frozen);
  const { inTime, cause } = await guard.thaw();
  assert.deepEqual({ inTime, cause }, { inTime: false, cause: 'signal' });
});

test('this process thaws when the guard itself is killed', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  await using guard = await FreezeGuard.start({ agentPath: fake.path, limitMs: 10_000, clock });
  await guard.freeze();
  for (const pid of await guardsOf(fake.path)) process.kill(pid, 'SIGKILL');
  await fake.until(() => !fake.frozen);
  const { inTime, cause } = await guard.thaw();
  assert.deepEqual({ inTime, cause }, { inTime: false, cause: 'guard-gone' });
});

test('a freeze that does not answer in time fails, and is thawed once the agent wakes up', async (t) => {
  const waking = Promise.withResolvers<void>();
  const fake = await FakeGuestAgent.start(t, async ({ execute }, agent) => {
    if (execute !== 'guest-fsfreeze-freeze') return undefined;
    agent.frozen = true;
    await waking.promise;
    return undefined;
  });
  const guard = await FreezeGuard.start({ agentPath: fake.path, limitMs: 100, clock });
  await assert.rejects(guard.freeze(), { code: 'QMP_FREEZE_TIMEOUT' });
  assert.ok(fake.frozen);
  waking.resolve();
  await guard.close();
  assert.ok(!fake.frozen, 'close has waited for the thaw');
  assert.deepEqual(await guardsOf(fake.path), []);
});

test('a freeze that the agent refuses fails, and the guest is looked after', async (t) => {
  const fake = await FakeGuestAgent.start(t, ({ execute }) =>
    execute === 'guest-fsfreeze-freeze' ? errorReply('GenericError', 'failed to open /mnt') : undefined,
  );
  await using guard = await FreezeGuard.start({ agentPath: fake.path, clock });
  await assert.rejects(guard.freeze(), { code: 'QMP_FREEZE_FAILED', message: /failed to open/ });
  await guard.close();
  assert.ok(fake.commands.includes('guest-fsfreeze-status'));
});

test('an agent without freezing fails the freeze and does not hold up the end', async (t) => {
  const fake = await FakeGuestAgent.start(t, ({ execute }) =>
    execute.includes('fsfreeze') ? errorReply('CommandNotFound', 'disabled') : undefined,
  );
  await using guard = await FreezeGuard.start({ agentPath: fake.path, clock });
  await assert.rejects(guard.freeze(), { code: 'QMP_FREEZE_FAILED' });
  await guard.close();
});

test('a guest found thawed already was not in time', async (t) => {
  const fake = await FakeGuestAgent.start(t);
  await using guard = await FreezeGuard.start({ agentPath: fake.path, clock });
  await guard.freeze();
  fake.frozen = false;
  const { inTime, cause } = await guard.thaw();
  assert.deepEqual({ inTime, cause }, { inTime: false, cause: 'not-frozen' });
});

test('the guard thaws again until the guest says that it is thawed', async (t) => {
  const answers = ['nonsense\n', errorReply('GenericError', 'busy'), 'silence' as const];
  // Garbage, a refusal, a double answer in the wrong place, then the truth.
  const fake = await FakeGuestAgent.start(t, ({ execute }) => {
    if (execute !== 'guest-fsfreeze-thaw') return undefined;
    const answer = answers.shift();
    return answer === 'silence' ? '{"return": 0}\n{"return": 0}\n' : answer;
  });
  await using guard = await FreezeGuard.start({ agentPath: fake.path, clock });
  await guard.freeze();
  await guard.thaw();
  assert.ok(!fake.frozen);
  assert.equal(fake.commands.filter((name) => name === 'guest-fsfreeze-thaw').length, 4);
});

test('a guest whose agent does not answer is not frozen at all', async (t) => {
  const fake = await FakeGuestAgent.start(t, () => 'silence');
  await assert.rejects(FreezeGuard.start({ agentPath: fake.path, limitMs: 1, clock }), {
    code: 'QMP_AGENT_NO_ANSWER',
  });
  await noGuardLeft(fake.path);
});

test('a freeze limit above ten seconds is refused as input', async () => {
  for (const limitMs of [0, -1, Number.NaN, 10_001]) {
    await assert.rejects(FreezeGuard.start({ agentPath: '/nowhere', limitMs, clock }), {
      code: 'QMP_FREEZE_LIMIT_INVALID',
      kind: 'input',
    });
  }
});
