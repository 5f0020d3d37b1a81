/**
 * The real agent, run on this host in place of a guest. It is never asked to freeze here: that would freeze
 * the host's own file systems.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { systemRandom as random } from '../../../src/lib/random.ts';
import { GuestAgent } from '../../../src/qmp/index.ts';
import { socketListens, startedProcess } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

async function hostAgent(t: TestContext) {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'ga');
  await startedProcess(t, 'qemu-ga', ['-m', 'unix-listen', '-p', path, '-t', directory]);
  await socketListens(path);
  return { path, directory };
}

test('the real agent synchronises, answers, and tells about its system', async (t) => {
  const { path } = await hostAgent(t);
  await using agent = await GuestAgent.connect({ path, clock, random });
  await agent.ping();
  assert.equal(await agent.freezeStatus(), 'thawed');
  assert.ok((await agent.osInfo()).kernelRelease);
  const loopback = (await agent.interfaces()).find(({ name }) => name === 'lo');
  assert.ok(loopback?.addresses.some(({ address, family }) => address === '127.0.0.1' && family === 'ipv4'));
  assert.ok(Array.isArray(await agent.fileSystems()));
});

test('programs run in the guest with their exit code, input and output', async (t) => {
  const { path } = await hostAgent(t);
  await using agent = await GuestAgent.connect({ path, clock, random });
  assert.deepEqual(await agent.exec('/bin/true', []), {
    exitCode: 0,
    stdout: '',
    stderr: '',
    truncated: false,
  });
  const script = 'cat; echo oops >&2; exit 3';
  const result = await agent.exec('/bin/sh', ['-c', script], { input: 'hello', captureBytesMax: 4 });
  assert.deepEqual(result, { exitCode: 3, stdout: 'hell', stderr: 'oops', truncated: true });
  assert.equal((await agent.exec('/bin/sh', ['-c', 'kill -9 $$'])).exitCode, 137);
  await assert.rejects(agent.exec('/no/such/program', []), { code: 'QMP_AGENT_COMMAND_FAILED' });
  // What it prints is more than the agent's answers may hold: it is cut, and the exit code is not lost.
  const huge = await agent.exec('/bin/sh', ['-c', 'head -c 8000000 /dev/zero; exit 4']);
  assert.deepEqual([huge.exitCode, huge.truncated], [4, true]);
  await agent.ping();
});

test('files of the guest are written and read in parts, up to a limit', async (t) => {
  const { path, directory } = await hostAgent(t);
  await using agent = await GuestAgent.connect({ path, clock, random });
  const file = join(directory, 'file');
  const data = random.bytes(200_000);
  await agent.writeFile(file, data);
  assert.deepEqual(await readFile(file), data);
  assert.deepEqual(await agent.readFile(file, 200_000), data);
  await assert.rejects(agent.readFile(file, 199_999), { code: 'QMP_AGENT_FILE_TOO_LARGE' });
  await assert.rejects(agent.readFile(join(directory, 'none'), 1), { code: 'QMP_AGENT_COMMAND_FAILED' });
});

test('what an earlier client left half said does not disturb', async (t) => {
  const { path } = await hostAgent(t);
  const earlier = createConnection({ path });
  earlier.write('{"execute": "guest-ping"}\n{"execute": "guest-in');
  // On a socket, unlike in a guest, the agent ends when it answers to a client that has gone: take the answer.
  await once(earlier, 'data');
  earlier.destroy();
  await using agent = await GuestAgent.connect({ path, clock, random });
  await agent.ping();
});
