/** What the lab guest offers beside what every test of a guest would miss at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentOf, inGuest, ledgerOf, ledgerPortOf, started } from '../../support/lab-guest.ts';

test('the ledger goes on after the largest record when the guest starts again', async (t) => {
  const machine = await started(t);
  const port = await ledgerPortOf(t, machine);
  const { seq } = await port.reached(20);
  await machine.kill();
  const again = await started(t, { disks: machine.disks });
  const next = await (await ledgerPortOf(t, again)).next();
  assert.ok(next.seq > seq);
  await again.stop();
  assert.equal((await ledgerOf(t, again)).contiguous, true);
});

test('the power button and the agent shut the guest down in order', async (t) => {
  const byButton = await started(t);
  const port = await ledgerPortOf(t, byButton);
  // The ledger starts before the button's driver: the port alone does not say that the button works yet.
  const agent = await agentOf(t, byButton);
  await inGuest(
    agent,
    'n=0; while [ ! -e /run/acpid.pid ] && [ $n -lt 500 ]; do usleep 20000; n=$((n+1)); done',
  );
  await byButton.pressPowerButton();
  assert.equal((await byButton.exited).code, 0);
  assert.equal((await ledgerOf(t, byButton)).contiguous, true);
  assert.ok((await ledgerOf(t, byButton)).last >= port.last!.seq);
});

test('the web server answers with the host name over the network', async (t) => {
  const machine = await started(t, {
    network: 'user',
  });
  const agent = await agentOf(t, machine);
  await inGuest(
    agent,
    'n=0; while ! ip address show dev eth0 | grep -q 10.0.2 && [ $n -lt 500 ]; do usleep 20000; n=$((n+1)); done',
  );
  assert.equal(await inGuest(agent, 'wget -q -O - http://10.0.2.15/'), 'lab');
});

test('the latency and fill tools work on the guest’s devices', async (t) => {
  const agent = await agentOf(t, await started(t));
  const latency = JSON.parse(
    await inGuest(
      agent,
      'ledger stop; labtool latency --device /dev/vdb1 --pattern random4k --count 50 --span 1048576',
    ),
  );
  assert.equal(latency.count, 50);
  assert.ok(latency.minUs <= latency.p50Us && latency.p50Us <= latency.maxUs);
  const digests = await inGuest(
    agent,
    'for f in a b; do labtool fill --file /data/$f --bytes 300000 --seed 7 --pattern random; sha256sum < /data/$f; done',
  );
  const [one, other] = digests.split('\n');
  assert.equal(one, other);
});
