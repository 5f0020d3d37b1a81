/** What a lease guard does with a monitor that is slow, or a directory that takes no mark. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { LeaseGuardProcess } from '../../../src/hypervisor/qemu/lease-guard-process.ts';
import { systemClock as clock, sleep } from '../../../src/lib/clock.ts';
import { scriptedServer } from '../../support/scripted-server.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 } }, capabilities: [] } };
const TIMESTAMP = { seconds: 0, microseconds: 0 };
type Say = (message: object) => void;

/** A guard whose guest answers `stop` as told, and what it has done to it. */
async function guard(
  t: TestContext,
  o: {
    readonly onStop: (say: Say, id: number) => void;
    mark?: string;
    /** What a `stop` takes: everything that is asked after it is answered when that has passed. */
    readonly stopTakesMs?: number;
    /** What is asked in vain. */
    readonly unheard?: string;
  },
) {
  const done: string[] = [];
  let status = 'running';
  /** Its monitor answers nothing until then. */
  let hung: Promise<unknown> = Promise.resolve();
  const monitor = await scriptedServer(t, (socket) => {
    const say: Say = (message) => void socket.write(`${JSON.stringify(message)}\r\n`);
    say(GREETING);
    createInterface({ input: socket }).on('line', async (line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number };
      const before = hung;
      if (execute === 'stop' && o.stopTakesMs) hung = sleep(clock, o.stopTakesMs);
      await before;
      if (execute === o.unheard) return void done.push(`${execute} unheard`);
      if (!['qmp_capabilities', 'query-status'].includes(execute)) done.push(execute);
      if (execute === 'stop') {
        status = 'paused';
        o.onStop(say, id);
      } else say({ return: execute === 'query-status' ? { status } : {}, id });
    });
  });
  const directory = await temporaryDirectory(t);
  const socketPath = join(directory, 'orders');
  const ready = Promise.withResolvers<void>();
  const ended = LeaseGuardProcess.run(
    {
      ...{ monitorPath: monitor.path, socketPath, markPath: join(directory, o.mark ?? 'mark'), clock },
      patienceMs: 60_000,
      cutPower: async () => void done.push('cut power'),
    },
    ready.resolve,
  );
  await ready.promise;
  const orders = createConnection({ path: socketPath });
  const answers = createInterface({ input: orders })[Symbol.asyncIterator]();
  const told = async (order: object): Promise<unknown> => {
    orders.write(`${JSON.stringify(order)}\n`);
    return JSON.parse(String((await answers.next()).value));
  };
  t.after(async () => {
    await told({ dismiss: true });
    orders.destroy();
    await once(orders, 'close');
    await ended;
  });
  return { done, told };
}

const OVER = { untilMs: 0 };
const stopped = (say: Say) => say({ event: 'STOP', timestamp: TIMESTAMP });

test('S0.17 a guest whose processors stand still keeps its power, however long its last writes take', async (t) => {
  const { done, told } = await guard(t, { onStop: (say) => stopped(say) });
  assert.deepEqual(await told(OVER), { guest: 'stopped' });
  assert.deepEqual(done, ['stop']);
});

test('S0.17 one that says nothing of that loses it', async (t) => {
  const { done, told } = await guard(t, { onStop: () => undefined });
  assert.deepEqual(await told(OVER), { guest: 'stopped' });
  assert.deepEqual(done.slice(0, 2), ['stop', 'cut power']);
});

test('S0.17 a guest is continued by who has stopped it, also where that could not be marked', async (t) => {
  const onStop = (say: Say, id: number) => {
    stopped(say);
    say({ return: {}, id });
  };
  const { done, told } = await guard(t, { onStop, mark: 'missing/mark' });
  assert.deepEqual(await told(OVER), { guest: 'stopped' });
  assert.deepEqual(await told({ untilMs: clock.monotonicMs() + 60_000 }), { guest: 'runs' });
  assert.deepEqual(done, ['stop', 'cont']);
});

test('S0.17 a guest is not continued behind a stop that still writes: when it has written, its lease may be over', async (t) => {
  const { done, told } = await guard(t, { onStop: (say) => stopped(say), stopTakesMs: 3_000 });
  assert.deepEqual(await told(OVER), { guest: 'stopped' });
  assert.ok('failure' in ((await told({ untilMs: clock.monotonicMs() + 1_200 })) as object));
  await sleep(clock, 2_500);
  assert.deepEqual(done, ['stop']);
  assert.deepEqual(await told({ untilMs: clock.monotonicMs() + 60_000 }), { guest: 'runs' });
  assert.deepEqual(done, ['stop', 'cont']);
});

test('S0.17 a guest that may still be continued is stopped again when its lease is over', async (t) => {
  const onStop = (say: Say, id: number) => {
    stopped(say);
    say({ return: {}, id });
  };
  const { done, told } = await guard(t, { onStop, unheard: 'cont' });
  assert.deepEqual(await told(OVER), { guest: 'stopped' });
  assert.ok('failure' in ((await told({ untilMs: clock.monotonicMs() + 1_200 })) as object));
  await sleep(clock, 1_500);
  assert.deepEqual(done, ['stop', 'cont unheard', 'stop']);
});
