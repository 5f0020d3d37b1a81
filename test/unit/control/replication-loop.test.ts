import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { AlertView } from '../../../src/api/index.ts';
import type { AuditedAct } from '../../../src/control/base/audit.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { LOOK_EVERY_MS, ReplicationLoop } from '../../../src/control/machines/replication-loop.ts';
import { ROOM_LOOK_EVERY_MS } from '../../../src/control/machines/standstill-watch.ts';
import { RETRY_PAUSE_MAX_MS } from '../../../src/control/machines/target-sender.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { emptyLayerBytes } from '../../../src/qcow2/index.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import type { Protection, ReplicationTarget } from '../../../src/replication/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeMachine, failure, MACHINE_ID, SITE_ID } from './fake-machine.ts';

function every(copyType: string, everyMs: number): Protection['schedules'][number] {
  return { copyType, triggers: [{ kind: 'interval', everyMs }] };
}

const MIB = 1024 * 1024;
const EVERY_5_S: Partial<Protection> = { schedules: [every('crash', 5000)] };

async function looping(
  t: TestContext,
  protection: Partial<Protection>,
  prepare?: (machine: FakeMachine) => void,
) {
  const clock = new FakeClock();
  const machine = new FakeMachine(protection, () => clock.wallMs());
  prepare?.(machine);
  const alerts = new Map<string, { severity: AlertView['severity']; failure: Failure }>();
  const tip = { sizeBytes: 1 };
  const space = { freeBytes: 0, totalBytes: 10_000 * MIB };
  const notes: AuditedAct[] = [];
  const loop = new ReplicationLoop(machine, {
    ...{ clock, random: systemRandom, log: silentLog, events: new EventHub(), zones: new Zones() },
    files: { sizeOf: async () => tip.sizeBytes },
    spaceAt: async () => space,
    alerts: {
      raise: (key, severity, raised) => void alerts.set(key, { severity, failure: raised }),
      clear: (key) => void alerts.delete(key),
    },
    audit: { note: (act) => void notes.push(act) },
    identities: { look: async () => undefined, forget: () => undefined },
    target: (siteId) => ({ siteId }) as ReplicationTarget,
  });
  loop.start();
  await clock.turn(0);
  t.after(async () => {
    await loop.stop();
    assert.equal(clock.pending, 0, 'no timer outlives the loop');
  });
  return { clock, machine, loop, alerts, tip, space, notes };
}

describe('replication loop', () => {
  it('makes a copy at once and then at every interval, and sends each when it was made', async (t) => {
    const { clock, machine, loop } = await looping(t, EVERY_5_S);
    assert.deepEqual(machine.made, ['crash']);
    assert.equal(machine.unsent.length, 0);
    await clock.turn(4999);
    assert.equal(machine.made.length, 1);
    await clock.turn(1);
    assert.equal(machine.made.length, 2);
    await clock.turn(60_000);
    assert.equal(machine.made.length, 14);
    assert.equal(machine.unsent.length, 0);
    assert.equal(loop.report().phase, 'idle');
    assert.deepEqual(loop.report().nextDue, { copyType: 'crash', why: 'interval', inMs: 5000 });
  });

  it('copies nothing before it knows what the process of the machine does', async (t) => {
    const looked = Promise.withResolvers<void>();
    const { clock, machine, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.presence = { state: 'stopped' };
      fake.hasChanges = true;
      const look = fake.look.bind(fake);
      fake.look = () => looked.promise.then(look);
    });
    assert.deepEqual([machine.made, machine.changeChecks], [[], 0]);
    looked.resolve();
    await clock.turn(0);
    assert.deepEqual([machine.presence.state, machine.made, [...alerts]], ['running', ['crash'], []]);
  });

  it('asks nothing of machine or target while nothing is due', async (t) => {
    const { clock, machine } = await looping(t, { schedules: [] });
    const { looks, sendAttempts } = machine;
    await clock.turn(24 * 3600 * 1000);
    assert.deepEqual([machine.looks, machine.sendAttempts, machine.made.length], [looks, sendAttempts, 0]);
  });

  it('makes one copy, the more consistent one, when two types are due together', async (t) => {
    const schedules = [every('crash', 5000), every('app', 20_000)];
    const { clock, machine } = await looping(t, { schedules });
    await clock.turn(45_000);
    assert.deepEqual(machine.made, [
      ...['app', 'crash', 'crash', 'crash', 'app', 'crash', 'crash', 'crash', 'app', 'crash'],
    ]);
  });

  it('S0.8 makes exactly the copies that intervals, a call and a port of the guest ask for', async (t) => {
    const schedules: Protection['schedules'] = [
      every('crash', 30_000),
      {
        copyType: 'app',
        triggers: [
          { kind: 'interval', everyMs: 300_000 },
          { kind: 'call', name: 'deploy' },
          { kind: 'guest', port: 'copy-now' },
        ],
      },
    ];
    const { clock, machine, loop } = await looping(t, { schedules });
    await clock.turn(70_000);
    assert.deepEqual(loop.call('deploy'), ['app']);
    await clock.turn(0);
    assert.deepEqual(machine.made, ['app', 'crash', 'crash', 'app']);
    await clock.turn(35_000);
    machine.tell({ name: 'VSERPORT_CHANGE', data: { id: 'another', open: true } });
    machine.tell({ name: 'VSERPORT_CHANGE', data: { id: 'copy-now', open: true } });
    machine.tell({ name: 'VSERPORT_CHANGE', data: { id: 'copy-now', open: false } });
    await clock.turn(0);
    assert.deepEqual(machine.made.slice(4), ['crash', 'app']);
    await clock.turn(299_999);
    assert.deepEqual(machine.made.slice(6), new Array(9).fill('crash'));
    await clock.turn(1);
    assert.equal(machine.made.at(-1), 'app');
    assert.throws(() => loop.call('nothing'), { code: 'TRIGGER_UNKNOWN' });
  });

  it('S0.8 makes a copy when as much is written as was said; one that falls due in a blackout at its end', async (t) => {
    const triggers = [{ kind: 'written' as const, bytes: 64 * MIB }];
    const days = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
    const blackouts = [{ days: [...days], from: '01:00', to: '02:00', zone: 'UTC' }];
    const asked: number[] = [];
    const protection = { schedules: [{ copyType: 'crash', triggers }], blackouts };
    const { clock, machine, tip } = await looping(t, protection, (fake) => {
      const watchTips = async ({ dev }: Record<string, number>) => void asked.push(dev!);
      fake.running = { watchTips } as unknown as typeof fake.running;
    });
    const emptyBytes = emptyLayerBytes(512);
    const cut = machine.cut.bind(machine);
    machine.cut = async (copyType) => {
      tip.sizeBytes = emptyBytes;
      return cut(copyType);
    };
    const writes = async (bytes: number) => {
      tip.sizeBytes += bytes;
      machine.tell({ name: 'BLOCK_WRITE_THRESHOLD', data: { 'node-name': '#block1' } });
      await clock.turn(0);
    };
    assert.deepEqual([machine.made, asked.at(-1)], [['crash'], 64 * MIB]);
    tip.sizeBytes = emptyBytes;
    await clock.turn(10 * 60_000);
    await writes(63 * MIB);
    assert.deepEqual([machine.made.length, asked.at(-1)], [1, emptyBytes + 64 * MIB - 1]);
    await writes(2 * MIB);
    assert.deepEqual([machine.made.length, asked.at(-1)], [2, emptyBytes + 64 * MIB - 1]);
    // No storm: however fast the guest writes, there is a second between two copies.
    await writes(200 * MIB);
    assert.equal(machine.made.length, 2);
    await clock.turn(1000);
    assert.equal(machine.made.length, 3);
    await clock.turn(3600_000 - clock.monotonicMs());
    await writes(300 * MIB);
    await clock.turn(3600_000 - 1);
    assert.equal(machine.made.length, 3);
    await clock.turn(1);
    assert.equal(machine.made.length, 4);
    await clock.turn(24 * 3600_000);
    assert.equal(machine.made.length, 4, 'nothing is copied while nothing is written');
  });

  it('S0.8 measures by itself what a machine has written that cannot be had to tell it', async (t) => {
    const schedules = [{ copyType: 'crash', triggers: [{ kind: 'written' as const, bytes: 64 * MIB }] }];
    const { clock, machine, tip } = await looping(t, { schedules }, (fake) => {
      const watchTips = () => Promise.reject(failure('QMP_COMMAND_FAILED', 'never'));
      fake.running = { watchTips } as unknown as typeof fake.running;
    });
    tip.sizeBytes = emptyLayerBytes(512) + 64 * MIB;
    await clock.turn(30_000);
    assert.equal(machine.made.length, 2);
  });

  it('S0.8 a copy that an event asked for and that could not be made is tried again until it is', async (t) => {
    const triggers = [{ kind: 'call' as const, name: 'deploy' }];
    const schedules = [every('crash', 3600_000), { copyType: 'app', triggers }];
    const { clock, machine, loop } = await looping(t, { schedules });
    machine.cutFailure = failure('CUT_FAILED', 'later');
    loop.call('deploy');
    await clock.turn(20_000);
    assert.deepEqual(machine.made, ['crash']);
    machine.cutFailure = undefined;
    await clock.turn(60_000);
    assert.deepEqual(machine.made, ['crash', 'app']);
  });

  it('S0.8 a copy at a fixed time is made in time, though the wall clock is set while nothing else is due', async (t) => {
    const triggers = [{ kind: 'fixed' as const, cron: '0 2 * * *', zone: 'UTC' }];
    const { clock, machine } = await looping(t, { schedules: [{ copyType: 'app', triggers }] });
    assert.deepEqual(machine.made, ['app'], 'the first copy does not wait');
    await clock.turn(3600_000);
    clock.jumpWall(58 * 60_000);
    await clock.turn(119_000);
    assert.equal(machine.made.length, 1);
    await clock.turn(2000);
    assert.equal(machine.made.length, 2);
    clock.jumpWall(-3600_000);
    await clock.turn(7200_000);
    assert.equal(machine.made.length, 2);
  });

  it('goes on copying while nothing can be sent, waits longer and longer, and sends all at once afterwards', async (t) => {
    const { clock, machine, loop, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.sendFailure = failure('PEER_UNREACHABLE', 'later');
    });
    await clock.turn(300_000);
    assert.equal(machine.made.length, 61);
    assert.ok(machine.sendAttempts < 30, `${machine.sendAttempts} attempts in 300 s`);
    assert.equal(loop.report().phase, 'retrying');
    assert.equal(alerts.size, 0, 'a silent peer is the business of its link');
    machine.sendFailure = undefined;
    loop.kick();
    await clock.turn(0);
    assert.equal(machine.unsent.length, 0);
    assert.equal(loop.report().failure, undefined);
  });

  it('reports a conflict and looks again every now and then, without giving up', async (t) => {
    const { clock, machine, loop, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.sendFailure = failure('REPLICATION_CONFLICT', 'never');
    });
    assert.equal(loop.report().phase, 'blocked');
    assert.equal(alerts.get(`replication:${MACHINE_ID}:${SITE_ID}`)!.severity, 'critical');
    await clock.turn(10 * RETRY_PAUSE_MAX_MS);
    const soon = machine.sendAttempts;
    assert.ok(soon >= 10 && soon < 30, `${soon} attempts`);
    await clock.turn(10 * RETRY_PAUSE_MAX_MS);
    const later = machine.sendAttempts - soon;
    assert.ok(later >= 10 && later <= 20, `${later} attempts`);
    machine.sendFailure = undefined;
    await clock.turn(RETRY_PAUSE_MAX_MS);
    assert.equal(alerts.size, 0);
    assert.equal(machine.unsent.length, 0);
  });

  it('S0.17 ends the alert of a conflict when the machine is found to be fenced, which is told by itself', async (t) => {
    const { clock, machine, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.sendFailure = failure('REPLICATION_CONFLICT', 'never');
    });
    assert.deepEqual([...alerts.keys()], [`replication:${MACHINE_ID}:${SITE_ID}`]);
    machine.sendFailure = failure('PROTECTION_FENCED', 'never');
    const claim = { epoch: 2, siteId: SITE_ID };
    const lost = { epoch: 1, siteId: MACHINE_ID };
    machine.record = { ...machine.record, tenure: { state: 'fenced', claim, lost } };
    machine.tell({ name: 'WARMSITE_TENURE', data: {} });
    await clock.turn(RETRY_PAUSE_MAX_MS);
    assert.deepEqual([...alerts.keys()], [`fenced:${MACHINE_ID}`]);
  });

  it('takes an error without a code for a reason to wait and to tell, not to stop', async (t) => {
    const { clock, machine, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.sendFailure = new Error('a bug');
    });
    assert.equal(alerts.get(`replication:${MACHINE_ID}:${SITE_ID}`)!.failure.code, 'INTERNAL');
    machine.sendFailure = undefined;
    await clock.turn(RETRY_PAUSE_MAX_MS);
    assert.equal(machine.unsent.length, 0);
  });

  it('makes one copy of a machine that has stopped with changes, and then none, with the reason', async (t) => {
    const { clock, machine, loop } = await looping(t, EVERY_5_S);
    await clock.turn(1000);
    machine.hasChanges = true;
    machine.end();
    await clock.turn(0);
    assert.equal(machine.made.length, 2, 'at once, not at the next interval');
    const checks = machine.changeChecks;
    await clock.turn(600_000);
    assert.equal(machine.made.length, 2);
    assert.equal(
      machine.changeChecks,
      checks,
      'the files of a stopped machine are not opened again and again',
    );
    assert.match(loop.report().lastSkip!.reason, /does not run/);
    assert.equal(loop.report().rpo.actualMs, 0);
  });

  describe('a guest that stands still', () => {
    const key = `standstill:${MACHINE_ID}`;

    it('for lack of space is told, copied once, and continued when there is room; not sooner, and not by a busy loop', async (t) => {
      const { clock, machine, loop, alerts, space, notes } = await looping(t, EVERY_5_S);
      machine.stop('no-space');
      await clock.turn(0);
      const { severity, failure: raised } = alerts.get(key)!;
      assert.deepEqual([severity, raised.code], ['critical', 'MACHINE_NO_SPACE']);
      assert.match(raised.message, /box stands still: disk disk0 cannot grow, no space is left in \/$/);
      const [made, looks] = [machine.made.length, machine.looks];
      await clock.turn(600_000);
      assert.equal(machine.made.length, made + 1, 'what it has written until then, once');
      assert.match(loop.report().lastSkip!.reason, /stands still/);
      assert.equal(loop.report().rpo.actualMs, 0);
      assert.deepEqual([machine.looks - looks, machine.continued], [600_000 / ROOM_LOOK_EVERY_MS, 0]);
      space.freeBytes = 256 * MIB - 1;
      await clock.turn(ROOM_LOOK_EVERY_MS);
      assert.equal(machine.continued, 0);
      space.freeBytes = 256 * MIB;
      await clock.turn(ROOM_LOOK_EVERY_MS);
      assert.deepEqual([machine.continued, alerts.has(key)], [1, false]);
      assert.deepEqual(notes, [{ actor: 'site', act: 'vm.continue', subject: MACHINE_ID }]);
      await clock.turn(5000);
      assert.equal(machine.made.length, made + 2, 'it is copied as before');
    });

    it('again right after it was continued is left alone for longer and longer', async (t) => {
      const { clock, machine, space } = await looping(t, { schedules: [] });
      space.freeBytes = 1000 * MIB;
      const again = async () => {
        machine.stop('no-space');
        await clock.turn(0);
      };
      await again();
      assert.equal(machine.continued, 1, 'there is room: at once');
      for (const [index, pauseMs] of [5_000, 10_000, 20_000, 40_000].entries()) {
        await again();
        await clock.turn(pauseMs - 1);
        assert.equal(machine.continued, index + 1);
        await clock.turn(1);
        assert.equal(machine.continued, index + 2);
      }
      await clock.turn(10 * 60_000);
      await again();
      assert.equal(machine.continued, 6, 'it has run for long: at once again');
    });

    it('for any other reason is never continued; an I/O error is told', async (t) => {
      const { clock, machine, alerts, space } = await looping(t, EVERY_5_S);
      space.freeBytes = 1000 * MIB;
      for (const why of ['paused', 'io-error', 'crashed', 'shut-down'] as const) {
        machine.stop(why);
        await clock.turn(0);
        assert.equal(alerts.get(key)?.failure.code, why === 'io-error' ? 'MACHINE_IO_ERROR' : undefined);
        const made = machine.made.length;
        await clock.turn(60_000);
        assert.deepEqual([machine.continued, machine.made.length], [0, made + 1], why);
        machine.resume();
        await clock.turn(5000);
        assert.deepEqual([machine.made.length, alerts.has(key)], [made + 2, false]);
      }
    });

    it('takes part in the cuts of its group: one that is missing would cost the others their instant', async (t) => {
      const { clock, machine, loop } = await looping(t, { schedules: [] });
      machine.stop('paused');
      await clock.turn(0);
      await loop.cutNow('crash');
      const { ordinal } = await loop.cutTogether('crash', {} as Parameters<typeof loop.cutTogether>[1]);
      assert.equal(ordinal, machine.made.length);
    });
  });

  it('notices writes to the tip of a stopped machine by its size', async (t) => {
    const { clock, machine, tip } = await looping(t, EVERY_5_S);
    machine.end();
    await clock.turn(20_000);
    const made = machine.made.length;
    machine.hasChanges = true;
    tip.sizeBytes = 2;
    await clock.turn(5000);
    assert.equal(machine.made.length, made + 1);
  });

  it('looks for a machine that does not run and copies it when it is there again', async (t) => {
    const { clock, machine } = await looping(t, EVERY_5_S);
    machine.end();
    await clock.turn(60_000);
    const made = machine.made.length;
    machine.found = { state: 'running', processId: 2 };
    await clock.turn(LOOK_EVERY_MS + 5000);
    assert.ok(machine.made.length > made);
  });

  it('copies nothing of a machine on another state, and raises an alert until it is right again', async (t) => {
    const { clock, machine, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.found = { state: 'stale', reason: 'disk0 runs on another file' };
    });
    await clock.turn(20_000);
    const made = machine.made.length;
    assert.equal(alerts.get(`presence:${MACHINE_ID}`)!.failure.code, 'PROTECTION_STALE_BASE');
    machine.found = { state: 'running', processId: 2 };
    await clock.turn(10_000);
    assert.ok(machine.made.length > made);
    assert.equal(alerts.has(`presence:${MACHINE_ID}`), false);
  });

  it('raises an alert for a copy that failed and clears it with the next good one', async (t) => {
    const { clock, machine, loop, alerts } = await looping(t, EVERY_5_S, (fake) => {
      fake.cutFailure = failure('CUT_FAILED', 'later');
    });
    assert.equal(alerts.get(`copy:${MACHINE_ID}`)!.failure.code, 'CUT_FAILED');
    assert.equal(loop.report().lastSkip!.reason, 'CUT_FAILED');
    machine.cutFailure = undefined;
    await clock.turn(5000);
    assert.equal(alerts.size, 0);
  });

  it('notes a guest that was found left frozen, and raises an alert for one that could not be thawed', async (t) => {
    const { machine, alerts, notes } = await looping(t, EVERY_5_S);
    const error = failure('QMP_FREEZE_THAW_UNCONFIRMED', 'later');
    machine.tell({ name: 'WARMSITE_LEFT_FROZEN', data: { error } });
    assert.deepEqual(alerts.get(`frozen:${MACHINE_ID}`), { severity: 'critical', failure: error });
    assert.deepEqual(notes, []);
    machine.tell({ name: 'WARMSITE_THAWED', data: {} });
    assert.equal(alerts.size, 0);
    assert.deepEqual(notes, [{ actor: 'site', act: 'vm.thaw', subject: MACHINE_ID }]);
    machine.tell({ name: 'WARMSITE_LEFT_FROZEN', data: { error } });
    machine.end();
    assert.equal(alerts.size, 0, 'a machine that has ended is not frozen');
  });

  it('tells the age of the newest acknowledged copy as its RPO', async (t) => {
    const { clock, machine, loop } = await looping(t, EVERY_5_S);
    await clock.turn(4000);
    assert.deepEqual(loop.report().rpo, { targetMs: 5000, actualMs: 4000 });
    machine.sendFailure = failure('PEER_UNREACHABLE', 'later');
    await clock.turn(60_000);
    assert.deepEqual(loop.report().rpo, { targetMs: 5000, actualMs: 64_000 });
  });

  it('knows the RPO from its start on, though the record of the acknowledged cut is gone', async (t) => {
    const point = { pointId: 'merged', ordinal: 7, sequence: 7, statementDigest: '' };
    const restarted = async (acknowledged: typeof point & { atMs: number; cutAtMs?: number }) => {
      const { clock, loop } = await looping(t, { schedules: [] }, (fake) => {
        fake.target = { siteId: SITE_ID, acknowledged, session: null };
      });
      await clock.turn(4000);
      return { report: loop.report(), nowMs: clock.wallMs() };
    };
    const { report, nowMs } = await restarted({ ...point, atMs: 2000, cutAtMs: 1000 });
    assert.deepEqual(report.rpo, { actualMs: nowMs - 1000 });
    assert.equal(report.acknowledged!.cutAtMs, 1000);
    const older = await restarted({ ...point, atMs: 2000 });
    assert.deepEqual(older.report.rpo, {}, 'a record of an earlier version does not tell');
  });

  it('lets somebody wait until a certain copy is acknowledged, and give that up', async (t) => {
    const { clock, machine, loop } = await looping(t, { schedules: [] }, (fake) => {
      fake.sendFailure = failure('PEER_UNREACHABLE', 'later');
    });
    const { ordinal } = await loop.cutNow('crash');
    const giveUp = new AbortController();
    const givenUp = loop.acknowledged(ordinal, giveUp.signal);
    giveUp.abort();
    await assert.rejects(givenUp, { code: 'CANCELLED' });
    const waited = loop.acknowledged(ordinal, new AbortController().signal);
    machine.sendFailure = undefined;
    await clock.turn(60_000);
    await waited;
    assert.equal(machine.target.acknowledged!.ordinal, ordinal);
    assert.equal(machine.target.siteId, SITE_ID);
  });
});
