import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { systemRandom as random } from '../../../src/lib/random.ts';
import { GuestAgent } from '../../../src/qmp/index.ts';
import { type AgentScript, errorReply, FakeGuestAgent, reply } from '../../support/fake-guest-agent.ts';
import { scriptedServer } from '../../support/scripted-server.ts';

async function connected(t: TestContext, script?: AgentScript) {
  const fake = await FakeGuestAgent.start(t, script);
  const agent = await GuestAgent.connect({ path: fake.path, clock, random });
  t.after(() => agent.close());
  return { fake, agent };
}

test('bytes left by an earlier client are dropped before the first answer', async (t) => {
  const stale = `${reply(1)}{"return": {"half": \xff${reply(4711)}`;
  let first = true;
  const { agent } = await connected(t, ({ execute, arguments: { id } }) => {
    if (execute !== 'guest-sync-delimited' || !first) return undefined;
    first = false;
    return `${stale}\xff${reply(id)}`;
  });
  assert.equal(await agent.freezeStatus(), 'thawed');
});

test('a guest without an agent is QMP_AGENT_NO_ANSWER', async (t) => {
  const { path } = await scriptedServer(t, () => undefined);
  await assert.rejects(GuestAgent.connect({ path, clock, random, timeoutMs: 30 }), {
    code: 'QMP_AGENT_NO_ANSWER',
  });
});

test('a path on which nobody listens is QMP_AGENT_UNREACHABLE', async () => {
  await assert.rejects(GuestAgent.connect({ path: '/nonexistent/ga', clock, random }), {
    code: 'QMP_AGENT_UNREACHABLE',
  });
});

test('an answer to a sync without the delimiter, or with a foreign id, is not taken', async (t) => {
  const fake = await FakeGuestAgent.start(t, ({ execute, arguments: { id } }) =>
    execute === 'guest-sync-delimited' ? `${reply(id)}\xff${reply(Number(id) + 1)}` : undefined,
  );
  await assert.rejects(GuestAgent.connect({ path: fake.path, clock, random, timeoutMs: 30 }), {
    code: 'QMP_AGENT_NO_ANSWER',
  });
});

test('a late answer is not taken for that of the next command', async (t) => {
  let late = '';
  const { agent } = await connected(t, ({ execute, arguments: { id } }) => {
    if (execute === 'guest-fsfreeze-freeze') {
      late = reply(7);
      return 'silence';
    }
    return execute === 'guest-sync-delimited' ? `${late}\xff${reply(id)}` : undefined;
  });
  await assert.rejects(agent.freeze({ timeoutMs: 30 }), { code: 'QMP_AGENT_TIMEOUT' });
  assert.equal(await agent.freezeStatus(), 'thawed');
});

test('an agent that answers twice does not get out of step', async (t) => {
  const { agent } = await connected(t, ({ execute }) =>
    execute === 'guest-fsfreeze-freeze' ? reply(3) + reply(3) : undefined,
  );
  assert.equal(await agent.freeze(), 3);
  assert.equal(await agent.freezeStatus(), 'thawed');
});

test('an agent that hangs never gets a command whose caller would have given up', async (t) => {
  let hangs = false;
  const { agent, fake } = await connected(t, () => (hangs ? 'silence' : undefined));
  hangs = true;
  await assert.rejects(agent.freeze({ timeoutMs: 30 }), { code: 'QMP_AGENT_NO_ANSWER' });
  assert.ok(!fake.commands.includes('guest-fsfreeze-freeze'));
});

for (const [what, bytes] of [
  ['text', 'hello\n'],
  ['broken JSON', '{"return": \n'],
  ['a list', '[]\n'],
  ['a value of the wrong type', reply('many')],
  ['a negative number', reply(-1)],
  ['a fraction', reply(0.5)],
  ['an error without class', '{"error": {"desc": "x"}}\n'],
] as const) {
  test(`${what} in place of a number is QMP_AGENT_PROTOCOL, and the next command works`, async (t) => {
    const { agent } = await connected(t, ({ execute }) =>
      execute === 'guest-fsfreeze-thaw' ? bytes : undefined,
    );
    await assert.rejects(agent.thaw(), { code: 'QMP_AGENT_PROTOCOL' });
    await agent.ping();
  });
}

test('a reply of more than 4 MiB is dropped, and the next command works', async (t) => {
  const { agent } = await connected(t, ({ execute }) =>
    execute === 'guest-get-osinfo' ? reply({ id: 'x'.repeat(5_000_000) }) : undefined,
  );
  await assert.rejects(agent.osInfo(), { code: 'QMP_AGENT_REPLY_TOO_LONG' });
  await agent.ping();
});

test('an error of the agent is QMP_AGENT_COMMAND_FAILED with class and description', async (t) => {
  const { agent } = await connected(t, () => undefined);
  await assert.rejects(agent.fileSystems(), (error: { code: string; context: Record<string, unknown> }) => {
    assert.equal(error.code, 'QMP_AGENT_COMMAND_FAILED');
    assert.equal(error.context.class, 'CommandNotFound');
    return true;
  });
});

test('calls at the same time reach the agent one after the other and get their own answers', async (t) => {
  const { agent } = await connected(t, async ({ execute }) => {
    await new Promise((resolve) => setImmediate(resolve));
    return execute === 'guest-fsfreeze-thaw' ? reply(5) : undefined;
  });
  assert.deepEqual(await Promise.all([agent.thaw(), agent.freezeStatus(), agent.thaw()]), [5, 'thawed', 5]);
});

test('a disconnect ends the running call and all later ones', async (t) => {
  const { path } = await scriptedServer(t, (socket) => {
    let lines = 0;
    socket.on('data', (chunk: Buffer) => {
      const id = /"id":(\d+)/.exec(chunk.toString('latin1'))?.[1];
      if (++lines > 2) socket.destroy();
      else if (id) socket.write(`\xff${reply(Number(id))}`, 'latin1');
    });
  });
  await using agent = await GuestAgent.connect({ path, clock, random });
  const calls = [agent.ping(), agent.ping()];
  for (const call of calls) await assert.rejects(call, { code: 'QMP_AGENT_DISCONNECTED' });
});

test('a program is polled until it ends', async (t) => {
  let polls = 0;
  const { agent } = await connected(t, ({ execute }) => {
    if (execute === 'guest-exec') return reply({ pid: 7 });
    if (execute !== 'guest-exec-status') return undefined;
    return reply(++polls < 4 ? { exited: false } : { exited: true, exitcode: 2, 'out-data': 'aGk=' });
  });
  assert.deepEqual(await agent.exec('x', []), { exitCode: 2, stdout: 'hi', stderr: '', truncated: false });
  assert.equal(polls, 4);
});

test('a program that goes on is QMP_AGENT_TIMEOUT', async (t) => {
  const { agent } = await connected(t, ({ execute }) => {
    if (execute === 'guest-exec') return reply({ pid: 7 });
    return execute === 'guest-exec-status' ? reply({ exited: false }) : undefined;
  });
  await assert.rejects(agent.exec('x', [], { timeoutMs: 50 }), { code: 'QMP_AGENT_TIMEOUT' });
});

test('a guest that gives an endless or an empty file is stopped, and its handle closed', async (t) => {
  let piece = Buffer.alloc(1024).toString('base64');
  const { agent, fake } = await connected(t, ({ execute }) => {
    if (execute === 'guest-file-open') return reply(1000);
    if (execute === 'guest-file-read') return reply({ count: 1024, 'buf-b64': piece, eof: false });
    return execute === 'guest-file-close' ? reply({}) : undefined;
  });
  await assert.rejects(agent.readFile('/f', 10_000), { code: 'QMP_AGENT_FILE_TOO_LARGE' });
  piece = '';
  await assert.rejects(agent.readFile('/f', 10_000), { code: 'QMP_AGENT_PROTOCOL' });
  assert.equal(fake.commands.filter((name) => name === 'guest-file-close').length, 2);
});

test('a shutdown is done when the agent took it, or is gone, but not when it refuses', async (t) => {
  const taking = await connected(t, ({ execute }) => (execute === 'guest-shutdown' ? 'silence' : undefined));
  await taking.agent.shutdown('powerdown');
  const refusing = await connected(t, ({ execute }) =>
    execute === 'guest-shutdown' ? errorReply('GenericError', 'no') : undefined,
  );
  await assert.rejects(refusing.agent.shutdown('reboot'), { code: 'QMP_AGENT_COMMAND_FAILED' });
  await refusing.agent.ping();
});
