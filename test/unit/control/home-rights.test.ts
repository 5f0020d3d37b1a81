/** Copies of a machine that was at home here knock while a person takes it back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HomeRights } from '../../../src/control/acts/home-rights.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { withTenure } from '../../../src/replica/index.ts';
import type { Arrival } from '../../../src/replication/index.ts';
import { type FencedSite, fencedSite } from '../../support/fenced-site.ts';

const HELD_HERE = { code: 'REPLICATION_HELD_HERE' };
const BRANCH = 'the branch that it was';

/** By which a person has the machine run here again. */
const own = ({ ownSiteId }: FencedSite) => ({ epoch: 3, siteId: ownSiteId });

interface Meanwhile {
  /** While it is looked at which of its branches run. */
  readonly onList?: () => Promise<unknown>;
  /** Before the replica is told where it stands. */
  readonly onUpdate?: () => Promise<unknown>;
}

/** The machine of the site was brought up there from a replica, which the site that has fenced it knows a point of. */
function homeOf(site: FencedSite, { onList, onUpdate }: Meanwhile = {}) {
  const { machines, diverged, machine, machineId, claimSiteId, ownSiteId, alerts } = site;
  Object.assign(machine.record, { adopted: { branchId: BRANCH, pointId: 'known' } });
  const notes: unknown[] = [];
  const claim = { epoch: 1, siteId: ownSiteId };
  let record = { machineId, sourceSiteId: claimSiteId, adopted: BRANCH, tenure: { state: 'holds', claim } };
  const replica = {
    get record() {
      return record;
    },
    points: [{ statement: { pointId: 'known' } }],
    update: async (change: (before: never) => ReturnType<typeof withTenure>) => {
      await onUpdate?.();
      record = { ...record, ...change(record as never) } as typeof record;
    },
  };
  const home = new HomeRights({
    ...{ siteId: ownSiteId, machines, diverged, files: nodeFiles, log: silentLog },
    replicas: { get: () => replica, broken: [] },
    failovers: {
      cleanup: async () => undefined,
      list: async () => {
        await onList?.();
        return [];
      },
    },
    alerts: {
      raise: (key: string, _severity: string, { code }: { code: string }) => void alerts.set(key, code),
      clear: (key: string) => void alerts.delete(key),
    },
    audit: { note: (entry: unknown) => void notes.push(entry) },
    ...{ onTurnedBack: () => assert.fail('it is at home'), isForwarded: () => false },
  } as unknown as ConstructorParameters<typeof HomeRights>[0]);
  const knocking = (parent: Arrival['parent']) =>
    home.admit({ machineId, epoch: 2, sourceSiteId: claimSiteId, parent: parent ?? null });
  const checkAtHome = async () => {
    await home.close();
    assert.equal(machines.get(machineId)?.machine, machine);
    assert.equal(machine.right.tenure.state, 'holds');
    assert.ok(await nodeFiles.sizeOf(machine.layout.record));
    assert.deepEqual([record.tenure.state, record.adopted], ['holds', BRANCH]);
    assert.deepEqual([notes, alerts.get(`turn:${machineId}`)], [[], undefined]);
  };
  return { knocking, checkAtHome };
}

for (const [copy, parent] of [
  ['a first copy', null],
  ['a copy that the replica here could be gone on with by', { pointId: 'known' }],
] as const)
  test(`F4 S0.17 while a person takes back what was fenced ${copy} is not let in, and the machine stays what it is`, async (t) => {
    const site = await fencedSite(t);
    const { machine } = site;
    const { knocking, checkAtHome } = homeOf(site);
    const letGo = Promise.withResolvers<void>();
    const gone = controlFailure('MACHINE_CHANGING', 'it has gone');
    const stays = async () => {
      await letGo.promise;
      throw new Error('it stays');
    };
    const held = assert.rejects(machine.right.letGo(gone, stays), /it stays/);
    const taken = machine.right.hear(own(site));
    const knocked = assert.rejects(knocking(parent), HELD_HERE);
    letGo.resolve();
    await Promise.all([held, taken, knocked]);
    await checkAtHome();
  });

test('F4 S0.17 a machine that was taken back before it was its turn to be put into its branch stays, and nothing is wrong with that', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId, alerts } = site;
  const { knocking, checkAtHome } = homeOf(site);
  const asked = Promise.withResolvers<void>();
  const taken = diverged.alone(machine, async () => {
    await asked.promise;
    await machine.right.hear(own(site));
  });
  await assert.rejects(knocking({ pointId: 'known' }), { code: 'REPLICATION_NOT_ENDED' });
  assert.equal(alerts.get(`turn:${machineId}`), 'REPLICATION_NOT_ENDED');
  asked.resolve();
  await taken;
  await checkAtHome();
});

for (const moment of ['onList', 'onUpdate'] as const)
  test(`F4 S0.17 no replica follows a site over which its machine is taken back meanwhile: ${moment}`, async (t) => {
    const site = await fencedSite(t);
    const { knocking, checkAtHome } = homeOf(site, { [moment]: () => site.machine.right.hear(own(site)) });
    await assert.rejects(knocking(null), HELD_HERE);
    await checkAtHome();
  });

test('F4 S0.17 what was at home here does not speak for a replica that cannot be read; a machine that runs here does', async (t) => {
  const site = await fencedSite(t);
  const { machines, diverged, machine, machineId, ownSiteId } = site;
  const broken = [{ machineId, error: new Error('its record is damaged') }];
  const home = new HomeRights({
    ...{ siteId: ownSiteId, machines, diverged, files: nodeFiles, log: silentLog },
    replicas: { get: () => undefined, broken },
  } as unknown as ConstructorParameters<typeof HomeRights>[0]);
  assert.throws(() => home.of(machineId), /its record is damaged/);
  await machine.right.hear(own(site));
  assert.equal(home.of(machineId)?.tenure.state, 'holds');
});
