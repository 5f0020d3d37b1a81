import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditedAct } from '../../../src/control/base/audit.ts';
import { FENCED_GRACE_MS, FenceWatch } from '../../../src/control/machines/fence-watch.ts';
import type { RunningMachine } from '../../../src/hypervisor/index.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeMachine, failure, MACHINE_ID, SITE_ID } from './fake-machine.ts';

/** A machine that runs, and whose guest has no agent and does what it likes when its power button is pressed. */
function running(onButton: (end: () => void) => void) {
  const gone = Promise.withResolvers<void>();
  const did: string[] = [];
  const machine = {
    sockets: { qmpPath: '/qmp' },
    gone: gone.promise,
    state: async () => 'running' as const,
    pressPowerButton: async () => {
      did.push('button');
      onButton(gone.resolve);
    },
    quit: async () => {
      did.push('quit');
      gone.resolve();
    },
  };
  return { machine: machine as unknown as RunningMachine, did };
}

function watching(machine: FakeMachine) {
  const clock = new FakeClock();
  const alerts = new Map<string, Failure>();
  const notes: AuditedAct[] = [];
  const watch = new FenceWatch(machine, {
    ...{ clock, log: silentLog },
    alerts: {
      raise: (key, _severity, failure) => void alerts.set(key, failure),
      clear: (key) => void alerts.delete(key),
    },
    audit: { note: (act) => void notes.push(act) },
  });
  return { clock, alerts, notes, watch };
}

const FENCED = {
  tenure: {
    state: 'fenced' as const,
    claim: { epoch: 2, siteId: SITE_ID },
    lost: { epoch: 1, siteId: MACHINE_ID },
  },
};

function machineOf(fields: object): FakeMachine {
  const machine = new FakeMachine({}, () => 0);
  machine.record = { ...machine.record, epoch: 1, ...fields };
  return machine;
}

test('S0.17 a guest that may run is left alone', async () => {
  const machine = machineOf({});
  const { machine: process, did } = running(() => undefined);
  machine.running = process;
  const { watch, alerts } = watching(machine);
  await watch.look(new AbortController().signal);
  assert.deepEqual([did, alerts.size], [[], 0]);
});

test('S0.17 a fenced guest that shuts down keeps its order; one that does not loses its power', async () => {
  for (const [onButton, acts, outcome] of [
    [(end: () => void) => end(), ['button'], 'shut-down'],
    [() => undefined, ['button', 'quit'], 'powered-off'],
  ] as const) {
    const machine = machineOf(FENCED);
    const { machine: process, did } = running(onButton);
    machine.running = process;
    const { watch, alerts, notes, clock } = watching(machine);
    const looking = watch.look(new AbortController().signal);
    await clock.turn(FENCED_GRACE_MS - 1);
    assert.deepEqual(did, ['button'], 'it has its time');
    await clock.turn(1);
    await looking;
    assert.deepEqual(did, acts);
    assert.deepEqual(notes, [{ actor: 'site', act: 'vm.fence', subject: MACHINE_ID, details: { outcome } }]);
    const [[key, failure]] = [...alerts] as [[string, Failure]];
    assert.deepEqual([key, failure.code], [`fenced:${MACHINE_ID}`, 'PROTECTION_FENCED']);
    assert.equal(clock.pending, 0, 'nothing is waited for any more');
    machine.record = machineOf({}).record;
    await watch.look(new AbortController().signal);
    assert.equal(alerts.size, 0, 'it is its own machine again');
  }
});

test('S0.17 a fenced guest that could not be ended is tried again soon', async () => {
  const machine = machineOf(FENCED);
  const { machine: process, did } = running((end) => end());
  const { watch, notes, clock } = watching(machine);
  const silent = () => Promise.reject(failure('QMP_TIMEOUT', 'later'));
  machine.running = { ...process, state: silent, quit: silent };
  const againMs = await watch.look(new AbortController().signal);
  assert.ok(againMs > 0 && againMs <= 10_000, `${againMs} ms`);
  assert.deepEqual([notes, did, clock.pending], [[], [], 0]);
  machine.running = { ...process, state: async () => 'running' };
  assert.equal(await watch.look(new AbortController().signal), Number.POSITIVE_INFINITY);
  assert.deepEqual([notes.length, did], [1, ['button']]);
});

test('a site that ends while it waits for a fenced guest leaves that for its next start', async () => {
  const machine = machineOf(FENCED);
  const { machine: process, did } = running(() => undefined);
  machine.running = process;
  const { watch, clock } = watching(machine);
  const stop = new AbortController();
  const looking = watch.look(stop.signal);
  await clock.turn(1000);
  stop.abort();
  await assert.rejects(looking, { code: 'CANCELLED' });
  assert.deepEqual([did, clock.pending], [['button'], 0]);
});
