import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { LedgerPort } from '../../../lab/ledger-port.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

async function connected(t: TestContext): Promise<{ port: LedgerPort; guest: Socket }> {
  const path = join(await temporaryDirectory(t), 's');
  const server: Server = createServer().listen(path);
  await once(server, 'listening');
  t.after(() => server.close());
  const accepted = once(server, 'connection');
  const port = await LedgerPort.connect({ path, clock: systemClock });
  t.after(() => port.close());
  const [guest] = (await accepted) as [Socket];
  t.after(() => guest.destroy());
  return { port, guest };
}

test('the newest report is kept, whatever the pieces in which it arrives', async (t) => {
  const { port, guest } = await connected(t);
  const reached = port.reached(12);
  guest.write('9 1000\n1');
  guest.write('1 1001\n12 10');
  guest.write('02\n');
  const report = await reached;
  assert.deepEqual([report.seq, report.guestMs], [12, 1002]);
  assert.equal(port.last, report);
  assert.equal(await port.reached(5), report);
});

test('noise and endless lines are left alone', async (t) => {
  const { port, guest } = await connected(t);
  const reached = port.reached(3);
  guest.write(`${'x'.repeat(100_000)}\n-1 2\n999999999999999999999 1\n3 4\n`);
  assert.equal((await reached).seq, 3);
});

test('waiting ends when the machine goes', async (t) => {
  const { port, guest } = await connected(t);
  const reached = port.reached(1);
  guest.destroy();
  await assert.rejects(reached, (error) => isFailure(error, 'LAB_PORT_CLOSED'));
});

test('waiting ends by its limit', async (t) => {
  const { port } = await connected(t);
  await assert.rejects(port.reached(1, 10), (error) => isFailure(error, 'LAB_TIMEOUT'));
});

test('a socket that nobody listens on is a failure', async (t) => {
  const path = join(await temporaryDirectory(t), 'none');
  await assert.rejects(LedgerPort.connect({ path, clock: systemClock }), (error) =>
    isFailure(error, 'LAB_PORT_CLOSED'),
  );
});
