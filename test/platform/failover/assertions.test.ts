/** The SQLite recipe in a real guest, and what its assertions say of points that are booted. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { candidatesOf, pointProofs } from '../../../src/failover/candidates.ts';
import { isApplicationProofOf, loadApplicationProof } from '../../../src/failover/index.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { CopyType } from '../../../src/recovery-point/index.ts';
import { failoverSite, inGuest } from '../../support/failover-site.ts';

const DATABASE = '/data/app.db';

/** A recipe as a person uses it: with the path of the database, and an invariant of the application. */
async function sqliteType(): Promise<CopyType> {
  const path = join(import.meta.dirname, '..', '..', '..', 'recipes', 'sqlite.json');
  const recipe = (await readFile(path, 'utf8')).replaceAll('/var/lib/app/app.db', DATABASE);
  const type = JSON.parse(recipe) as Omit<CopyType, 'name'>;
  const input = `[ "$(sqlite3 ${DATABASE} 'SELECT sum(amount) FROM transfers;')" = 0 ] || { echo "money was made"; exit 1; }\n`;
  const balance = { name: 'balance', command: '/bin/sh', arguments: ['-s'], input, limitMs: 60_000 };
  return { name: 'sqlite', ...type, assertions: [...type.assertions!, balance] };
}

test('S0.6 a claim is checked on a booted branch; an assertion that fails demotes the point', {
  timeout: 400_000,
}, async (t) => {
  const site = await failoverSite(t);
  const { machine, failovers } = site;
  await machine.changeProtection({
    copyTypes: [await sqliteType()],
    retention: { types: { crash: 8, sqlite: 8 } },
  });
  await machine.start();
  const { sockets } = machine.record;
  // The guest's own hook for this database is taken away: what the recipe does is seen.
  await inGuest(
    sockets,
    `rm /etc/qemu/fsfreeze-hook.d/sqlite
     while [ ! -e ${DATABASE} ]; do usleep 20000; done
     touch /data/run-sqlite
     while [ ! -s ${DATABASE}-wal ]; do usleep 20000; done`,
  );
  const good = await site.point('sqlite');
  const cut = machine.cuts.find(({ cutId }) => cutId === good)!;
  assert.equal(cut.consistency, 'application', cut.degraded);
  assert.deepEqual(
    cut.hooks!.map(({ hook, exitCode, output }) => [hook, exitCode, output]),
    [
      ['before', 0, ''],
      ['after', 0, ''],
    ],
  );
  // Its writers have been let go.
  await inGuest(
    sockets,
    `rows() { sqlite3 ${DATABASE} '.timeout 5000' 'SELECT count(*) FROM transfers;'; }
     before=$(rows); for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; [ "$(rows)" -gt "$before" ] && exit 0; done; exit 1`,
  );
  await inGuest(
    sockets,
    `sqlite3 ${DATABASE} '.timeout 5000' "INSERT INTO transfers (account, amount) VALUES ('thief', 5);"`,
  );
  const bad = await site.point('sqlite');
  await machine.running!.quit();

  const { replica } = site;
  const best = async () => {
    const choice = { wish: { atLeast: 'application' as const, applicationWorthMs: 0, provenWorthMs: 0 } };
    return candidatesOf(replica, choice, await pointProofs(nodeFiles, replica)).map(({ pointId }) => pointId);
  };
  assert.deepEqual(await best(), [bad, good]);

  const refuted = await failovers.test(replica, { pointId: bad });
  assert.equal(refuted.verdict, 'passed', 'it boots; what it claims is another thing');
  assert.deepEqual(
    refuted.attempts[0]!.assertions.map(({ name, outcome }) => [name, outcome]),
    [
      ['integrity', 'held'],
      ['balance', 'failed'],
    ],
  );
  assert.match(refuted.attempts[0]!.assertions[1]!.output!, /money was made/);
  assert.match(refuted.warnings.join(), /counts as crash-consistent/);
  assert.deepEqual(await best(), [good]);

  const held = await failovers.test(replica, { pointId: good });
  assert.deepEqual(
    held.attempts[0]!.assertions.map(({ outcome }) => outcome),
    ['held', 'held'],
    JSON.stringify(held.attempts[0]!.assertions),
  );
  const signed = await loadApplicationProof(nodeFiles, replica, good);
  const { statementDigest } = replica.point(good);
  assert.equal(signed?.proof.verdict, 'held');
  assert.equal(isApplicationProofOf(signed, { statementDigest, publicKey: site.publicKey }), true);
});
