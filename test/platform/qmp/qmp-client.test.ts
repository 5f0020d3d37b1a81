import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { socketListens, startedProcess } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

async function emptyMachine(t: TestContext) {
  const path = join(await temporaryDirectory(t), 'qmp');
  const process = await startedProcess(t, 'qemu-system-x86_64', [
    ...['-machine', 'none', '-nodefaults', '-display', 'none'],
    ...['-qmp', `unix:${path},server=on,wait=off`],
  ]);
  await socketListens(path);
  return { path, process };
}

test('the monitor of a real QEMU greets, answers, and ends with quit', async (t) => {
  const { path, process } = await emptyMachine(t);
  await using client = await QmpClient.connect({ path, clock });
  const { version } = client.greeting;
  assert.ok(version.major > 7 || (version.major === 7 && version.minor >= 2), 'QEMU 7.2 or newer');

  const answered = await client.execute<{ qemu: { major: number } }>('query-version');
  assert.equal(answered.qemu.major, version.major);
  const schema = await client.execute<unknown[]>('query-qmp-schema');
  assert.ok(schema.length > 500);
  await assert.rejects(client.execute('blockdev-del', { 'node-name': 'nothing' }), (error) => {
    assert.ok(isFailure(error, 'QMP_COMMAND_FAILED'));
    assert.equal(error.context.class, 'GenericError');
    return true;
  });

  const shutdown = client.expectEvent(({ event }) => event === 'SHUTDOWN', { timeoutMs: 10_000 });
  await client.execute('quit');
  assert.deepEqual((await shutdown).data, { guest: false, reason: 'host-qmp-quit' });
  assert.equal((await client.closed)?.code, 'QMP_DISCONNECTED');
  assert.equal((await exitOf(process)).code, 0);
});

test('a second client of the same monitor is told that another holds it', async (t) => {
  const { path } = await emptyMachine(t);
  const first = await QmpClient.connect({ path, clock });
  await assert.rejects(QmpClient.connect({ path, clock, greetingTimeoutMs: 300 }), {
    code: 'QMP_NO_GREETING',
  });
  await first.execute('query-status');
  await first.close();
  await using next = await QmpClient.connect({ path, clock, greetingTimeoutMs: 10_000 });
  await next.execute('query-status');
});
