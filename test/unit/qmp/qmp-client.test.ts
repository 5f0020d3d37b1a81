import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { systemClock as clock, sleep } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { scriptedServer } from '../../support/scripted-server.ts';

const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'test' }, capabilities: ['oob'] },
};
const TIMESTAMP = { seconds: 1, microseconds: 2 };

interface Command {
  execute: string;
  id: number;
}

/** A monitor that greets, negotiates, and leaves every further command to the script. */
async function monitor(
  t: TestContext,
  script: (command: Command, say: (...messages: object[]) => void, socket: Socket) => void,
  { beforeGreeting = [] }: { readonly beforeGreeting?: readonly object[] } = {},
) {
  const { path } = await scriptedServer(t, (socket) => {
    const say = (...messages: object[]) =>
      socket.write(messages.map((each) => `${JSON.stringify(each)}\r\n`).join(''));
    let text = '';
    say(...beforeGreeting, GREETING);
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const lines = text.split('\n');
      text = lines.pop()!;
      for (const line of lines) {
        const command = JSON.parse(line) as Command;
        if (command.execute === 'qmp_capabilities') say({ return: {}, id: command.id });
        else script(command, say, socket);
      }
    });
  });
  const client = await QmpClient.connect({ path, clock });
  t.after(() => client.close());
  return client;
}

test('a client is greeted and negotiates before it is handed out', async (t) => {
  const client = await monitor(t, () => undefined);
  assert.deepEqual(client.greeting, {
    version: { major: 7, minor: 2, micro: 22 },
    package: 'test',
    capabilities: ['oob'],
  });
});

test('what a machine tells before it greets is passed over', async (t) => {
  const client = await monitor(t, ({ id }, say) => say({ return: 'well', id }), {
    beforeGreeting: [{ event: 'RESUME', timestamp: TIMESTAMP }],
  });
  assert.equal(client.greeting.package, 'test');
  assert.equal(await client.execute('x'), 'well');
});

test('a monitor that says nothing is held by another client: QMP_NO_GREETING', async (t) => {
  const { path } = await scriptedServer(t, () => undefined);
  await assert.rejects(QmpClient.connect({ path, clock, greetingTimeoutMs: 50 }), (error) => {
    assert.ok(isFailure(error, 'QMP_NO_GREETING'));
    assert.match(error.hint, /one client/);
    return true;
  });
});

test('a path on which nobody listens is QMP_UNREACHABLE', async () => {
  await assert.rejects(QmpClient.connect({ path: '/nonexistent/qmp', clock }), {
    code: 'QMP_UNREACHABLE',
    retry: 'later',
  });
});

test('a waiting connection can be aborted', async (t) => {
  const { path } = await scriptedServer(t, () => undefined);
  const controller = new AbortController();
  const connecting = QmpClient.connect({ path, clock, signal: controller.signal });
  controller.abort();
  await assert.rejects(connecting, { code: 'CANCELLED' });
});

for (const [what, line] of [
  ['not JSON', 'SSH-2.0-OpenSSH\r\n'],
  ['JSON but no greeting', '{"return": {}}\n'],
  ['an event without timestamp', '{"event": "RESUME"}\n'],
  ['a greeting without a version', '{"QMP": {"version": {"qemu": {"major": "7"}}}}\n'],
  ['not UTF-8', Buffer.of(0xff, 0xfe, 0x0a)],
] as const) {
  test(`a first line that is ${what} is QMP_PROTOCOL`, async (t) => {
    const { path } = await scriptedServer(t, (socket) => socket.write(line));
    await assert.rejects(QmpClient.connect({ path, clock }), { code: 'QMP_PROTOCOL' });
  });
}

test('replies may come in any order', async (t) => {
  const held: Command[] = [];
  const client = await monitor(t, (command, say) => {
    held.push(command);
    if (held.length === 3) say(...held.reverse().map(({ execute, id }) => ({ return: execute, id })));
  });
  assert.deepEqual(await Promise.all(['a', 'b', 'c'].map((name) => client.execute(name))), ['a', 'b', 'c']);
});

test('an error reply is QMP_COMMAND_FAILED with class and description, and the connection lives on', async (t) => {
  const client = await monitor(t, ({ execute, id }, say) => {
    say(execute === 'bad' ? { error: { class: 'DeviceNotFound', desc: 'no disk' }, id } : { return: 1, id });
  });
  await assert.rejects(client.execute('bad'), {
    code: 'QMP_COMMAND_FAILED',
    retry: 'never',
    context: { command: 'bad', class: 'DeviceNotFound', desc: 'no disk' },
  });
  assert.equal(await client.execute('good'), 1);
});

for (const [what, message] of [
  ['a reply with an unknown id', { return: {}, id: 999 }],
  ['a reply without id', { error: { class: 'GenericError', desc: 'JSON parse error' } }],
  ['an error that is no error', { error: 'bad', id: 2 }],
  ['an event without timestamp', { event: 'STOP' }],
  ['a list', ['return']],
] as const) {
  test(`${what} ends the connection with QMP_PROTOCOL`, async (t) => {
    const client = await monitor(t, (_, say) => say(message));
    await assert.rejects(client.execute('x'), { code: 'QMP_PROTOCOL' });
    assert.equal((await client.closed)?.code, 'QMP_PROTOCOL');
    await assert.rejects(client.execute('y'), { code: 'QMP_PROTOCOL' });
  });
}

test('a line without end is QMP_PROTOCOL once it is larger than 16 MiB, and never kept', async (t) => {
  const client = await monitor(t, (_, __, socket) => {
    const piece = Buffer.alloc(1024 * 1024, 'a');
    for (let i = 0; i < 17; i++) socket.write(piece);
    socket.write('\n');
  });
  await assert.rejects(client.execute('x'), { code: 'QMP_PROTOCOL' });
});

test('a disconnect rejects every pending command and event with QMP_DISCONNECTED', async (t) => {
  const client = await monitor(t, ({ execute }, _, socket) => {
    if (execute === 'b') socket.destroy();
  });
  const event = client.expectEvent(() => true, { timeoutMs: 10_000 });
  for (const pending of [client.execute('a'), client.execute('b'), event]) {
    await assert.rejects(pending, { code: 'QMP_DISCONNECTED', retry: 'reconnect' });
  }
  assert.equal((await client.closed)?.code, 'QMP_DISCONNECTED');
});

test('S0.11 an event that is expected just after QEMU has died ends no process: it may be awaited later', async (t) => {
  const client = await monitor(t, (_command, _say, socket) => socket.destroy());
  await assert.rejects(client.execute('query-status'), { code: 'QMP_DISCONNECTED' });
  const event = client.expectEvent(() => true, { timeoutMs: 1000 });
  const reply = client.execute('query-block-jobs');
  // Long enough for Node to find that nobody listens.
  await sleep(clock, 1);
  await assert.rejects(event, { code: 'QMP_DISCONNECTED' });
  await assert.rejects(reply, { code: 'QMP_DISCONNECTED' });
});

test('a close of our own rejects what is pending and is no failure in `closed`', async (t) => {
  const client = await monitor(t, () => undefined);
  const pending = client.execute('a');
  const refused = assert.rejects(pending, { code: 'QMP_DISCONNECTED' });
  await client.close();
  await client.close();
  await refused;
  assert.equal(await client.closed, undefined);
});

test('a timed-out command is QMP_TIMEOUT and its late reply disturbs nobody', async (t) => {
  let late: Command | undefined;
  const client = await monitor(t, (command, say) => {
    if (command.execute === 'slow') late = command;
    else say({ return: 'late', id: late!.id }, { return: 'in time', id: command.id });
  });
  await assert.rejects(client.execute('slow', {}, { timeoutMs: 20 }), { code: 'QMP_TIMEOUT' });
  assert.equal(await client.execute('next'), 'in time');
});

test('an aborted command rejects at once, and one aborted before is not sent', async (t) => {
  const sent: string[] = [];
  const client = await monitor(t, ({ execute, id }, say) => {
    sent.push(execute);
    if (execute === 'last') say({ return: {}, id });
  });
  const controller = new AbortController();
  const pending = client.execute('first', {}, { signal: controller.signal });
  controller.abort();
  await assert.rejects(pending, { code: 'CANCELLED' });
  await assert.rejects(client.execute('second', {}, { signal: controller.signal }), { code: 'CANCELLED' });
  await client.execute('last');
  assert.deepEqual(sent, ['first', 'last']);
});

test('an event that comes before the reply of its command is not missed', async (t) => {
  const client = await monitor(t, ({ id }, say) => {
    say(
      { event: 'STOP', timestamp: TIMESTAMP },
      { event: 'RESUME', data: { a: 1 }, timestamp: TIMESTAMP },
      { return: {}, id },
    );
  });
  const seen: string[] = [];
  const unsubscribe = client.subscribe(({ event }) => seen.push(event));
  const resumed = client.expectEvent(({ event }) => event === 'RESUME', { timeoutMs: 10_000 });
  await client.execute('x');
  assert.deepEqual(seen, ['STOP', 'RESUME']);
  assert.deepEqual(await resumed, { event: 'RESUME', data: { a: 1 }, timestamp: TIMESTAMP });
  unsubscribe();
  await client.execute('x');
  assert.equal(seen.length, 2);
});

test('an event that does not come is QMP_EVENT_TIMEOUT', async (t) => {
  const client = await monitor(t, () => undefined);
  await assert.rejects(
    client.expectEvent(() => true, { timeoutMs: 20 }),
    { code: 'QMP_EVENT_TIMEOUT' },
  );
});
