import assert from 'node:assert/strict';
import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { Alerts } from '../../../src/control/base/alerts.ts';
import { Audit } from '../../../src/control/base/audit.ts';
import { openDatabase } from '../../../src/control/base/database.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { SiteLock } from '../../../src/control/base/site-lock.ts';
import { initSite, operatorToken } from '../../../src/control/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { loadIdentity } from '../../../src/peer/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fillDatabase, makeRoomIn } from '../../support/full-database.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { failure } from './fake-machine.ts';

const TOOLS = { files: nodeFiles, clock: systemClock, random: systemRandom };

describe('audit log', () => {
  async function written(t: Parameters<typeof temporaryDirectory>[0]) {
    const path = join(await temporaryDirectory(t), 'site.db');
    const database = openDatabase(path);
    const audit = new Audit({ database, clock: new FakeClock() });
    for (const subject of ['a', 'b', 'c', 'd']) {
      await audit.acting(
        { actor: 'operator:test', act: 'vm.start', subject, details: { n: 1 } },
        async () => 1,
      );
    }
    t.after(() => database.close());
    return { audit, database };
  }

  it('holds the intent of an act before it and its end after it, also a failed one', async (t) => {
    const { audit } = await written(t);
    const act = { actor: 'operator:test', act: 'vm.stop' };
    await assert.rejects(
      audit.acting(act, async () => {
        assert.equal(audit.list({ limit: 1 })[0]!.phase, 'intent');
        throw failure('MACHINE_STOP_TIMEOUT', 'later');
      }),
    );
    const [end] = audit.list({ limit: 1 });
    assert.deepEqual(
      [end!.phase, end!.intent, end!.details],
      ['failed', 9, { code: 'MACHINE_STOP_TIMEOUT' }],
    );
    assert.deepEqual(
      audit.list({ limit: 2, before: 3 }).map(({ sequence }) => sequence),
      [2, 1],
    );
    assert.deepEqual(audit.check(), { state: 'whole' });
  });

  it('cannot be changed by mistake', async (t) => {
    const { database } = await written(t);
    assert.throws(() => database.exec(`UPDATE audit SET actor = 'nobody'`), /audit entries stay/);
    assert.throws(() => database.exec('DELETE FROM audit'), /audit entries stay/);
  });

  const tampering = {
    'an entry that was changed': `UPDATE audit SET subject = 'x' WHERE sequence = 3`,
    'an entry that was taken out': 'DELETE FROM audit WHERE sequence = 3',
    'an entry that was taken out, with the others closed up':
      'DELETE FROM audit WHERE sequence = 3; UPDATE audit SET sequence = sequence - 1 WHERE sequence > 3',
    'two entries that were exchanged': `UPDATE audit SET sequence = 100 WHERE sequence = 3;
      UPDATE audit SET sequence = 3 WHERE sequence = 4; UPDATE audit SET sequence = 4 WHERE sequence = 100`,
  };
  for (const [what, sql] of Object.entries(tampering)) {
    it(`shows ${what}`, async (t) => {
      const { audit, database } = await written(t);
      database.exec('DROP TRIGGER audit_is_kept; DROP TRIGGER audit_is_final');
      database.exec(sql);
      assert.deepEqual(audit.check(), { state: 'broken', atSequence: 3 });
    });
  }
});

describe('alerts', () => {
  it('stand until they are cleared, count their repetitions, and tell when something changes', async (t) => {
    const database = openDatabase(join(await temporaryDirectory(t), 'site.db'));
    t.after(() => database.close());
    const clock = new FakeClock();
    const events = new EventHub();
    const told: string[] = [];
    events.listen((event) => {
      if (event.event === 'alert') told.push(event.alert.clearedAtMs === undefined ? 'raised' : 'cleared');
    });
    const alerts = new Alerts({ database, clock, events, log: silentLog });
    alerts.raise('copy:m', 'warning', failure('CUT_FAILED', 'later'), 'm');
    const since = clock.wallMs();
    await clock.turn(1000);
    alerts.raise('copy:m', 'warning', failure('CUT_FAILED', 'later'), 'm');
    const [standing] = alerts.list({ all: false });
    assert.deepEqual(
      [standing!.count, standing!.raisedAtMs, standing!.updatedAtMs],
      [2, since, since + 1000],
    );
    assert.deepEqual(told, ['raised'], 'a repetition is no news');
    alerts.clear('copy:m');
    alerts.clear('copy:m');
    alerts.clear('another');
    assert.deepEqual(told, ['raised', 'cleared']);
    assert.equal(alerts.list({ all: false }).length, 0);
    assert.equal(alerts.list({ all: true }).length, 1);
    alerts.raise('copy:m', 'critical', failure('CUT_FAILED', 'later'), 'm');
    assert.deepEqual(
      alerts.list({ all: false }).map(({ count, severity }) => [count, severity]),
      [[1, 'critical']],
    );
    alerts.clearMachine('m');
    assert.equal(alerts.list({ all: false }).length, 0);
  });
});

describe('site database', () => {
  it('of a newer program is refused and not changed', async (t) => {
    const path = join(await temporaryDirectory(t), 'site.db');
    const newer = new DatabaseSync(path);
    newer.exec('PRAGMA user_version = 99; CREATE TABLE things (thing TEXT)');
    newer.close();
    const before = await readFile(path);
    assert.throws(() => openDatabase(path), { code: 'SITE_DATABASE_NEWER' });
    assert.deepEqual(await readFile(path), before);
  });

  it('that is damaged is refused with what to do', async (t) => {
    const path = join(await temporaryDirectory(t), 'site.db');
    await writeFile(path, 'this is no database, but long enough to look like one to somebody'.repeat(100));
    assert.throws(() => openDatabase(path), { code: 'SITE_DATABASE_DAMAGED', hint: /site\.db/ });
  });
});

describe('site lock', () => {
  it('is held by one, in the same process too, and free again after its release', async (t) => {
    const directory = await temporaryDirectory(t);
    const lock = SiteLock.take(directory);
    assert.throws(() => SiteLock.take(directory), { code: 'SITE_LOCKED' });
    lock.release();
    SiteLock.take(directory).release();
  });
});

describe('site initialisation', () => {
  it('keeps keys and token from others, and is not done twice', async (t) => {
    const dataDirectory = join(await temporaryDirectory(t), 'site');
    const { siteId, recoveryKit } = await initSite(TOOLS, { dataDirectory, name: 'Bergen' });
    assert.equal((await stat(dataDirectory)).mode & 0o777, 0o700);
    assert.equal((await stat(join(dataDirectory, 'keys'))).mode & 0o777, 0o700);
    for (const name of await readdir(join(dataDirectory, 'keys'))) {
      assert.equal((await stat(join(dataDirectory, 'keys', name))).mode & 0o777, 0o600, name);
    }
    assert.ok(recoveryKit.includes(siteId));
    assert.match(await operatorToken(nodeFiles, dataDirectory), /^[\w-]{43}$/);
    await assert.rejects(initSite(TOOLS, { dataDirectory, name: 'Bergen' }), { code: 'SITE_EXISTS' });
  });

  it('from a kit is the same site, with another token', async (t) => {
    const directory = await temporaryDirectory(t);
    const [old, renewed] = [join(directory, 'old'), join(directory, 'new')];
    const { siteId, recoveryKit } = await initSite(TOOLS, { dataDirectory: old, name: 'Bergen' });
    const again = await initSite(TOOLS, { dataDirectory: renewed, fromKit: recoveryKit });
    assert.equal(again.siteId, siteId);
    const identities = await Promise.all([old, renewed].map((data) => loadIdentity(nodeFiles, data)));
    assert.equal(identities[0]!.signingKey, identities[1]!.signingKey);
    assert.equal(identities[1]!.name, 'Bergen');
    assert.notEqual(await operatorToken(nodeFiles, old), await operatorToken(nodeFiles, renewed));
  });

  it('that was cut short is begun again', async (t) => {
    const dataDirectory = join(await temporaryDirectory(t), 'site');
    await initSite(TOOLS, { dataDirectory, name: 'Bergen' });
    await nodeFiles.remove(join(dataDirectory, 'site.json'));
    await chmod(join(dataDirectory, 'keys', 'operator.token'), 0o600);
    await initSite(TOOLS, { dataDirectory, name: 'Bergen' });
  });

  it('refuses a directory below which sockets would have too long names, and a name that is none', async (t) => {
    const directory = await temporaryDirectory(t);
    const long = join(directory, 'x'.repeat(60));
    await assert.rejects(initSite(TOOLS, { dataDirectory: long, name: 'a' }), {
      code: 'SITE_PATH_UNSUITABLE',
    });
    await assert.rejects(initSite(TOOLS, { dataDirectory: 'data', name: 'a' }), {
      code: 'SITE_PATH_UNSUITABLE',
    });
    const site = join(directory, 'site');
    await assert.rejects(initSite(TOOLS, { dataDirectory: site, name: '' }), { code: 'PEER_NAME_INVALID' });
  });
});

describe('a database on a file system that is full', () => {
  async function opened(t: Parameters<typeof temporaryDirectory>[0]) {
    const path = join(await temporaryDirectory(t), 'site.db');
    const database = openDatabase(path);
    t.after(() => database.close());
    const clock = new FakeClock();
    const events = new EventHub();
    const told: string[] = [];
    events.listen((event) => event.event === 'alert' && told.push(event.alert.code));
    const alerts = new Alerts({ database, clock, events, log: silentLog });
    return { database, clock, told, alerts, audit: new Audit({ database, clock }) };
  }

  /** Larger than a page, so that it finds no room in one that is there already. */
  const long = { details: { text: 'x'.repeat(10_000) } };
  const longFailure = failure('DISK_FULL'.padEnd(10_000, '!'), 'later');

  it('has taken room in advance for what must be told then', async (t) => {
    const { database, alerts, audit } = await opened(t);
    const { page_count: pages } = database.prepare('PRAGMA page_count').get()!;
    database.exec(`PRAGMA max_page_count = ${pages}`);
    for (let i = 0; i < 50; i++) {
      alerts.raise(`key${i}`, 'critical', longFailure);
      audit.note({ actor: 'site', act: 'vm.continue', ...long });
    }
    assert.equal(database.prepare('SELECT count(*) AS stored FROM alerts').get()!.stored, 50);
    assert.deepEqual(audit.check(), { state: 'whole' });
    assert.equal(audit.list({ limit: 100 }).length, 50);
  });

  it('loses no alert, and stores those that stand as soon as there is room', async (t) => {
    const { database, clock, told, alerts } = await opened(t);
    alerts.raise('before', 'warning', failure('PEER_UNREACHABLE', 'later'));
    fillDatabase(database);
    alerts.raise('space', 'critical', longFailure);
    alerts.raise('other', 'critical', longFailure);
    alerts.raise('space', 'critical', longFailure);
    alerts.clear('other');
    const standing = () => alerts.list({ all: false }).map(({ key, count }) => [key, count]);
    assert.deepEqual(standing(), [
      ['space', 2],
      ['before', 1],
    ]);
    assert.equal(told.length, 4);
    const again = new Alerts({ database, clock, events: new EventHub(), log: silentLog });
    assert.deepEqual(
      again.list({ all: false }).map(({ key }) => key),
      ['before'],
    );
    makeRoomIn(database);
    alerts.clear('before');
    assert.deepEqual(again.list({ all: false }), alerts.list({ all: false }));
    assert.deepEqual(standing(), [['space', 2]]);
  });

  it('refuses an act whose intent finds no room, and keeps what has happened until there is some', async (t) => {
    const { database, clock, audit } = await opened(t);
    const act = { actor: 'operator:test', act: 'vm.stop', ...long };
    const intent = audit.begin(act);
    fillDatabase(database);
    const work = () => assert.fail('it was begun');
    await assert.rejects(audit.acting(act, work), { code: 'SITE_DATABASE_FULL' });
    audit.note({ actor: 'site', act: 'vm.continue', ...long });
    audit.end(intent, act, undefined);
    assert.equal(audit.list({ limit: 10 }).length, 1);
    const happenedAtMs = clock.wallMs();
    await clock.turn(60_000);
    makeRoomIn(database);
    await audit.acting(act, async () => undefined);
    assert.deepEqual(
      audit.list({ limit: 10 }).map(({ act: what, phase, atMs }) => [what, phase, atMs - happenedAtMs]),
      [
        ['vm.stop', 'done', 60_000],
        ['vm.stop', 'intent', 60_000],
        ['vm.stop', 'done', 0],
        ['vm.continue', 'done', 0],
        ['vm.stop', 'intent', 0],
      ],
    );
    assert.deepEqual(audit.check(), { state: 'whole' });
  });
});
