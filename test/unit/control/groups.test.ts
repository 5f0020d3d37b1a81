import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GroupLoop } from '../../../src/control/groups/group-loop.ts';
import { GROUP_RECORD, type GroupRecord, groupPath } from '../../../src/control/groups/group-record.ts';
import { Groups, type GroupsTools } from '../../../src/control/groups/groups.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { storeRecord } from '../../../src/lib/records.ts';
import type { PeerClient } from '../../../src/peer/index.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import { type GroupCutOutcome, PeerTarget, type ProtectedMachine } from '../../../src/replication/index.ts';
import { AT_ONCE } from '../../support/actor.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fakeGroup } from '../../support/fake-group.ts';
import { FakeHypervisor } from '../../support/fake-hypervisor.ts';
import { failure } from './fake-machine.ts';

const ID = '01hzzzzzzzzzzzzzzzzzzzzzzz';

function recordedAlerts() {
  const standing = new Map<string, Failure>();
  return {
    standing,
    raise: (key: string, _severity: string, failure: Failure) => void standing.set(key, failure),
    clear: (key: string) => void standing.delete(key),
  };
}

async function site(names: readonly string[], o: { knowsGroups?: boolean; sameTarget?: boolean } = {}) {
  const { members, files } = await fakeGroup(names, o);
  const machines = new Map(members.map(({ machine }) => [machine.record.machineId, machine]));
  const alerts = recordedAlerts();
  const tools: GroupsTools = {
    ...{ files, clock: systemClock, random: systemRandom, log: silentLog, zones: new Zones(), alerts },
    ...{
      dataDirectory: '/data',
      hypervisor: new FakeHypervisor({ host: { machines: new Map() } as never, actor: AT_ONCE }),
    },
    machines: {
      list: () => [],
      get: (machineId) => {
        const machine = machines.get(machineId);
        return machine && { machine, loop: undefined };
      },
      loopOf: (machine) => ({ cutTogether: machine.cut.bind(machine) as ProtectedMachine['cut'] }) as never,
    },
    target: () => ({ knowsGroups: async () => o.knowsGroups ?? true }),
  };
  const groups = await Groups.open(tools);
  return { groups, machines, alerts, tools, members: members.map(({ machine }) => machine) };
}

describe('S0.28 groups of a site', () => {
  it('S0.28 are records that outlive the process, and cut their members together', async () => {
    const { groups, members, tools } = await site(['web', 'db']);
    const loop = await groups.create({ name: 'shop', members: [] }, members);
    const cut = await loop.cutNow('crash');
    assert.equal(cut.reason, undefined);
    assert.deepEqual([cut.together, cut.members.map(({ name }) => name)], [true, ['web', 'db']]);
    await groups.close();
    const again = await Groups.open(tools);
    assert.partialDeepStrictEqual(again.list()[0]!.record, loop.record);
    assert.equal(again.of(members[0]!.record.machineId)!.name, 'shop');
    await again.change(again.find('shop')!, { limitMs: 500 }, members.slice(0, 1));
    assert.equal(again.of(members[1]!.record.machineId), undefined);
    await again.remove(again.find('shop')!);
    assert.deepEqual([again.list(), (await Groups.open(tools)).list()], [[], []]);
  });

  it('S0.28 refuses members that cannot be of one group, and targets that would not keep it', async () => {
    const { groups, members, machines } = await site(['web', 'db', 'queue']);
    const create = (name: string, of: readonly ProtectedMachine[], every = {}) =>
      groups.create({ name, members: [], every }, of);
    await create('shop', members.slice(0, 2));
    const unsuitable = (message: RegExp) => ({ code: 'GROUP_MEMBER_UNSUITABLE', message });
    await assert.rejects(create('shop', members.slice(2)), { code: 'GROUP_EXISTS' });
    await assert.rejects(create('other', members.slice(1)), unsuitable(/db is in the group shop/));
    await assert.rejects(create('other', [members[2]!, members[2]!]), unsuitable(/named twice/));
    await assert.rejects(create('other', members.slice(2), { nightly: 1000 }), { code: 'COPY_TYPE_UNKNOWN' });
    await members[2]!.changeProtection({ retention: { types: { crash: 128, app: 1 } } });
    await assert.rejects(create('other', members.slice(2)), { code: 'GROUP_TOO_DEEP' });
    await members[2]!.unprotect();
    await assert.rejects(create('other', members.slice(2)), unsuitable(/queue is not protected/));
    const tooDeep = { types: { crash: 125 } };
    const { machineId, protection } = members[0]!.record;
    const { targetSiteId } = protection!;
    assert.throws(() => groups.checkRetention(machineId, targetSiteId, tooDeep), {
      code: 'GROUP_TOO_DEEP',
    });
    groups.checkRetention(machineId, targetSiteId, { types: { crash: 124 } });
    groups.checkRetention(machineId, ID, tooDeep);
    groups.checkRetention(members[2]!.record.machineId, targetSiteId, tooDeep);
    assert.equal(groups.list().length, 1);
    const elsewhere = await site(['web', 'db'], { sameTarget: false });
    await assert.rejects(
      elsewhere.groups.create({ name: 'shop', members: [] }, elsewhere.members),
      unsuitable(/db has another target/),
    );
    const old = await site(['web'], { knowsGroups: false });
    await assert.rejects(old.groups.create({ name: 'shop', members: [] }, old.members), {
      code: 'GROUP_TARGET_OUTDATED',
    });
    assert.equal(old.groups.list().length, 0);
    machines.clear();
  });

  it('S0.28 a member whose machine has gone makes the others single copies, with an alert', async () => {
    const { groups, members, machines, alerts } = await site(['web', 'db']);
    const loop = await groups.create({ name: 'shop', members: [] }, members);
    machines.delete(members[1]!.record.machineId);
    const cut = await loop.cutNow('crash');
    assert.equal(cut.together, false);
    assert.match(cut.reason!, /this site has no machine/);
    const key = `group:${loop.record.groupId}`;
    assert.equal(alerts.standing.get(key)!.code, 'GROUP_CUT_APART');
    machines.set(members[1]!.record.machineId, members[1]!);
    assert.equal((await loop.cutNow('crash')).together, true);
    assert.equal(alerts.standing.has(key), false);
  });
});

it('S0.28 a group of a newer version is left as it is, with an alert, and hinders no other', async () => {
  const { groups, members, tools, alerts } = await site(['web', 'db']);
  const { record } = await groups.create({ name: 'shop', members: [] }, members.slice(0, 1));
  const newer = await groups.create({ name: 'newer', members: [] }, members.slice(1));
  await groups.close();
  const { groupId } = newer.record;
  await storeRecord(tools.files, groupPath('/data', groupId), { ...GROUP_RECORD, version: 2 }, newer.record);
  const again = await Groups.open(tools);
  assert.deepEqual(
    again.list().map((loop) => loop.record.groupId),
    [record.groupId],
  );
  assert.equal(alerts.standing.get(`group-record:${groupId}`)!.code, 'RECORD_NEWER');
});

it('S0.28 a site that does not know the call keeps no groups; one that is away says nothing of it', async () => {
  const target = (code: string) =>
    new PeerTarget({
      ...{ siteId: ID, clock: systemClock },
      client: { call: () => Promise.reject(failure(code, 'never')) } as unknown as PeerClient,
    });
  assert.equal(await target('PEER_CALL_UNKNOWN').knowsGroups(), false);
  await assert.rejects(target('PEER_UNREACHABLE').knowsGroups(), { code: 'PEER_UNREACHABLE' });
});

describe('S0.28 the schedule of a group', () => {
  const record: GroupRecord = {
    ...{ groupId: ID, name: 'shop', createdAtMs: 0, targetSiteId: ID, members: [ID] },
    ...{ every: { crash: 5_000 }, limitMs: 1_000 },
  };
  function looping() {
    const clock = new FakeClock();
    const made: number[] = [];
    const alerts = recordedAlerts();
    const outcome = { apart: undefined as string | undefined };
    const loop = new GroupLoop(record, {
      ...{ clock, zones: new Zones(), log: silentLog, alerts },
      cut: async () => {
        made.push(clock.monotonicMs());
        return { cutId: ID, pauseMs: 1, members: [], ...outcome } as GroupCutOutcome;
      },
    });
    loop.start();
    return { clock, made, alerts, outcome, loop };
  }

  it('S0.28 cuts at once and then at every interval; a change counts from then on', async () => {
    const { clock, made, loop } = looping();
    await clock.turn(0);
    await clock.turn(10_000);
    assert.deepEqual(made, [0, 5_000, 10_000]);
    assert.deepEqual(loop.nextDue, { copyType: 'crash', inMs: 5_000 });
    loop.change({ ...record, every: {} });
    await clock.turn(60_000);
    assert.deepEqual([made.length, loop.nextDue], [3, undefined]);
    await loop.cutNow('app');
    assert.deepEqual([made.length, loop.lastCut!.copyType], [4, 'app']);
    await loop.stop();
    assert.equal(clock.pending, 0);
  });

  it('S0.28 raises an alert while cuts fail, and goes on', async () => {
    const { clock, made, alerts, outcome, loop } = looping();
    outcome.apart = 'no cut of the whole group: db: it does not run';
    await clock.turn(5_000);
    assert.equal(made.length, 2);
    assert.match(alerts.standing.get(`group:${ID}`)!.message, /shop: no cut of the whole group: db/);
    outcome.apart = undefined;
    await clock.turn(5_000);
    assert.equal(alerts.standing.size, 0);
    await loop.stop();
  });
});
