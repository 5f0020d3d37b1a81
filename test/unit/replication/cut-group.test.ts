/** One cut over several machines, and what becomes of it when one of them cannot take part. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Failure } from '../../../src/lib/errors.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { type CutTogether, cutGroup, type GroupCutOutcome } from '../../../src/replication/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fakeGroup, NOT_STOPPING } from '../../support/fake-group.ts';

/** Every copy that was made is one of its own, with a reason that fits. */
function assertApart(outcome: GroupCutOutcome, reason: RegExp): void {
  assert.match(outcome.apart!, reason);
  for (const { cut } of outcome.members) {
    if (!cut) continue;
    assert.equal(cut.group, undefined);
    assert.equal(cut.consistency, 'crash');
    assert.match(cut.degraded!, reason);
  }
}

describe('S0.28 a cut of a group', () => {
  test('S0.28 has one name, names the points of all members, and tells the pause', async () => {
    const { members, cut } = await fakeGroup(['web', 'db', 'queue']);
    const outcome = await cut();
    assert.equal(outcome.apart, undefined);
    const groups = outcome.members.map((member) => member.cut!.group!);
    assert.deepEqual(groups[0], groups[1]);
    assert.deepEqual(groups[0], groups[2]);
    const { cutId, groupName, pauseMs, members: named } = groups[0]!;
    assert.deepEqual([cutId, groupName], [outcome.cutId, 'shop']);
    assert.ok(pauseMs > 0 && pauseMs === outcome.pauseMs);
    const points = outcome.members.map(({ machineId, cut: made }) => ({ machineId, pointId: made!.cutId }));
    points.sort((a, b) => (a.machineId < b.machineId ? -1 : 1));
    assert.deepEqual(named, points);
    for (const { cut: made } of outcome.members) {
      assert.equal(made!.degraded, undefined);
      assert.ok(made!.pauseMs > 0 && made!.pauseMs <= pauseMs);
    }
    for (const { fake } of members) assert.equal(fake().isPaused, false);
  });

  test('S0.28 is one instant: a row of records striped over all disks of all machines has no hole', async () => {
    const { cut, write, recordsAt } = await fakeGroup(['web', 'db', 'queue']);
    let before = 0;
    for (let round = 0; round < 3; round++) {
      const writing = write(60);
      const outcome = await cut();
      await writing;
      const records = await recordsAt(outcome);
      assert.equal(outcome.apart, undefined);
      assert.deepEqual(records, [...records.keys()]);
      assert.ok(records.length >= before, `${records.length} after ${before}`);
      before = records.length;
    }
  });

  test('S0.28 without the common stop there are holes: the proof above can fail', async () => {
    const { cut, write, recordsAt } = await fakeGroup(['web', 'db', 'queue']);
    let holes = 0;
    for (let round = 0; round < 5 && holes === 0; round++) {
      const writing = write(60);
      const outcome = await cut({ hypervisor: NOT_STOPPING });
      await writing;
      const records = await recordsAt(outcome);
      if (records.some((record, index) => record !== index)) holes += 1;
    }
    assert.ok(holes > 0);
  });

  test('S0.28 a member that is off: the others are single copies, and so is what it left', async () => {
    const { members, cut } = await fakeGroup(['web', 'db']);
    await members[1]!.machine.attach();
    const { gone } = members[1]!.machine.running!;
    members[1]!.fake().kill();
    await gone;
    const outcome = await cut();
    assertApart(outcome, /no cut of the whole group: db: it does not run/);
    assert.equal(outcome.members.filter((member) => member.cut).length, 2);
  });

  test('S0.28 a member that runs on other disks: it has no copy, the others have single ones', async () => {
    const { members, cut } = await fakeGroup(['web', 'db']);
    await cut();
    await cut();
    await members[1]!.runOnOrigins();
    const outcome = await cut();
    assert.ok(outcome.members[0]!.cut);
    assert.equal((outcome.members[1]!.error as Failure).code, 'PROTECTION_STALE_BASE');
    assertApart(outcome, /db: the machine runs on another state/);
    for (const { fake } of members) assert.equal(fake().isPaused, false);
  });

  for (const [command, reason] of [
    ['disks', /db: no answer to be understood/],
    ['pause', /could not be stopped: the machine refused/],
    ['cut', /the machine refused/],
  ] as const) {
    test(`S0.28 a member that refuses «${command}»: every other is a single copy, and all run on`, async () => {
      const { members, cut } = await fakeGroup(['web', 'db', 'queue']);
      members[1]!.mishaps = { [command]: 'refused' };
      const outcome = await cut();
      assertApart(outcome, reason);
      assert.ok(outcome.members[0]!.cut && outcome.members[2]!.cut);
      for (const { fake } of members) assert.equal(fake().isPaused, false);
      members[1]!.mishaps = {};
      assert.equal((await cut()).apart, undefined);
    });
  }

  for (const command of ['pause', 'cut'] as const) {
    test(`S0.28 a member whose answer to «${command}» is lost: single copies, and its own is found again`, async () => {
      const { members, cut } = await fakeGroup(['web', 'db']);
      members[1]!.mishaps = { [command]: 'answer-lost' };
      const outcome = await cut();
      assert.notEqual(outcome.apart, undefined);
      const [web, db] = outcome.members;
      assert.equal(web!.cut!.group, undefined);
      assert.equal((db!.error as Failure).code, 'QMP_DISCONNECTED');
      for (const { fake } of members) assert.equal(fake().isPaused, false);
      members[1]!.mishaps = {};
      await members[1]!.machine.attach();
      // Whether it was cut or not, it is no part of a group.
      for (const { state, group } of members[1]!.machine.cuts) {
        assert.deepEqual([state, group], ['sealed', undefined]);
      }
      assert.equal((await cut()).apart, undefined);
    });
  }

  test('S0.28 of frozen guests: every point is application-consistent and one of the group', async () => {
    const { members, cut } = await fakeGroup(['web', 'db']);
    const outcome = await cut({ copyType: 'app' });
    for (const { cut: made } of outcome.members) {
      assert.deepEqual([made!.consistency, made!.degraded], ['application', undefined]);
      assert.equal(made!.group!.cutId, outcome.cutId);
    }
    members[1]!.mishaps = { freeze: 'refused' };
    const [web, db] = (await cut({ copyType: 'app' })).members;
    assert.deepEqual([web!.cut!.consistency, db!.cut!.consistency], ['application', 'crash']);
    assert.ok(web!.cut!.group && db!.cut!.group, 'one instant it is all the same');
  });

  /** Two members whose steps a test takes. */
  function steps() {
    const clock = new FakeClock();
    const log: string[] = [];
    const running = { prepareCut: async () => ({ seal: async () => ({ pauseMs: 1 }) }) };
    const member = (name: string, ready: Promise<void>, held: Promise<void>) => ({
      ...{ machineId: newId(clock, systemRandom), name },
      cut: async (together: CutTogether) => {
        await ready;
        await together.ready({ running, pointId: name, disks: [] } as never);
        log.push(`${name} freezes`);
        await held;
        const { apart } = await together.seal();
        log.push(`${name}: ${apart}`);
        return {} as never;
      },
    });
    const ready = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    const at = Promise.resolve();
    const members = [member('web', at, at), member('db', ready.promise, held.promise)];
    const group = { groupId: newId(clock, systemRandom), name: 'shop' };
    const done = cutGroup(
      { hypervisor: NOT_STOPPING, clock, random: systemRandom },
      { group, limitMs: 1_000, members },
    );
    return { clock, log, ready, held, done };
  }

  test('S0.28 no guest is held before the last machine is ready', async () => {
    const { clock, log, ready, held, done } = steps();
    held.resolve();
    await clock.turn(14_000);
    assert.deepEqual(log, []);
    ready.resolve();
    assert.equal((await done).apart, undefined);
    assert.deepEqual(log, ['web freezes', 'db freezes', 'web: undefined', 'db: undefined']);
    assert.equal(clock.pending, 0);
  });

  test('S0.28 a member that is not ready in time is not waited for, and is copied when it is', async () => {
    const { clock, log, ready, held, done } = steps();
    held.resolve();
    await clock.turn(14_999);
    assert.deepEqual(log, []);
    await clock.turn(1);
    const reason = 'no cut of the whole group: db: it was not ready in 15 s';
    assert.deepEqual(log, ['web freezes', `web: ${reason}`]);
    ready.resolve();
    assert.equal((await done).apart, reason);
    assert.deepEqual(log.slice(2), ['db freezes', `db: ${reason}`]);
    assert.equal(clock.pending, 0);
  });

  test('S0.28 a guest that is not held in time is not waited for by those that are', async () => {
    const { clock, log, ready, held, done } = steps();
    ready.resolve();
    await clock.turn(4_999);
    assert.deepEqual(log, ['web freezes', 'db freezes']);
    await clock.turn(1);
    const reason = 'no cut of the whole group: db: its guest was not held in 5 s';
    assert.deepEqual(log.slice(2), [`web: ${reason}`]);
    held.resolve();
    assert.equal((await done).apart, reason);
    assert.deepEqual(log.slice(3), [`db: ${reason}`]);
    assert.equal(clock.pending, 0);
  });
});
