/** The recipes for SQLite and for plain file systems in a real guest, and what their assertions say of points that are booted. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { candidatesOf, pointProofs } from '../../../src/failover/candidates.ts';
import { isApplicationProofOf, loadApplicationProof } from '../../../src/failover/index.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { CopyType } from '../../../src/recovery-point/index.ts';
import { failoversOf } from '../../support/failover-site.ts';
import { assertLedger, copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';

const DATABASE = '/data/app.db';

function recipe(name: string): Promise<string> {
  return readFile(join(import.meta.dirname, '..', '..', '..', 'recipes', `${name}.json`), 'utf8');
}

/** A recipe as a person uses it: with the path of the database, and an invariant of the application. */
async function sqliteType(): Promise<CopyType> {
  const text = (await recipe('sqlite')).replaceAll('/var/lib/app/app.db', DATABASE);
  const type = JSON.parse(text) as Omit<CopyType, 'name'>;
  const input = `[ "$(sqlite3 ${DATABASE} 'SELECT sum(amount) FROM transfers;')" = 0 ] || { echo "money was made"; exit 1; }\n`;
  const balance = { name: 'balance', command: '/bin/sh', arguments: ['-s'], input, limitMs: 60_000 };
  return { name: 'sqlite', ...type, assertions: [...type.assertions!, balance] };
}

/** The recipe as it is, and what only asserts the same. */
async function fileSystemTypes(): Promise<CopyType[]> {
  const type = JSON.parse(await recipe('file-systems')) as Omit<CopyType, 'name'>;
  const { assertions } = type;
  return [
    { name: 'files', ...type },
    { name: 'unwarned', aim: 'crash', assertions: assertions! },
  ];
}

describe('claims of copy types', { timeout: 400_000 }, () => {
  it('S0.5 S0.6', async (t) => {
    const lab = await labSites(t, {
      protection: { copyTypes: [await sqliteType(), ...(await fileSystemTypes())] },
    });
    const { machine, sites } = lab;
    const { failovers, publicKey } = await failoversOf(t, sites);
    const { images } = sites.protectedTools;
    const agentPath = machine.record.sockets.agentPath!;
    const point = async (copyType: string) => (await copyAndSend(machine, sites.target, copyType)).pointId;
    // The guest's own hook for this database is taken away: what the recipe does is seen.
    await inGuest(
      agentPath,
      `rm /etc/qemu/fsfreeze-hook.d/sqlite
       while [ ! -e ${DATABASE} ]; do usleep 20000; done
       touch /data/run-sqlite
       while [ ! -s ${DATABASE}-wal ]; do usleep 20000; done`,
    );
    const ledger = await lab.ledger();
    const promised = (await ledger.next()).seq;
    const unwarned = await point('unwarned');
    const clean = await point('files');
    const good = await point('sqlite');
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
      agentPath,
      `rows() { sqlite3 ${DATABASE} '.timeout 5000' 'SELECT count(*) FROM transfers;'; }
       before=$(rows); for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; [ "$(rows)" -gt "$before" ] && exit 0; done; exit 1`,
    );
    await inGuest(
      agentPath,
      `sqlite3 ${DATABASE} '.timeout 5000' "INSERT INTO transfers (account, amount) VALUES ('thief', 5);"`,
    );
    const bad = await point('sqlite');
    await machine.running!.quit();
    const replica = lab.replica();
    const tested = async (pointId: string) => {
      const report = await failovers.test(replica, { pointId });
      assert.equal(report.verdict, 'passed', 'it boots; what it claims is another thing');
      return { ...report, assertions: report.attempts[0]!.assertions };
    };
    const best = async () => {
      const choice = {
        wish: { atLeast: 'application' as const, applicationWorthMs: 0, provenWorthMs: 0 },
      };
      const found = candidatesOf(replica, choice, await pointProofs(nodeFiles, replica));
      return found.map(({ pointId }) => pointId);
    };

    await t.test('S0.5 the guest of a crash-consistent copy replays its journal and boots', async () => {
      await assertLedger(images, (diskId) => replica.chain(unwarned, diskId), promised);
      const { assertions } = await tested(unwarned);
      assert.deepEqual(
        assertions.map(({ name, outcome }) => [name, outcome]),
        [['clean', 'failed']],
      );
      assert.match(assertions[0]!.output!, /EXT4-fs \(vda2\): recovery complete/);
      assert.match(assertions[0]!.output!, /EXT4-fs \(vdb2\): recovery complete/);
    });

    await t.test('S0.6 that of the recipe for plain file systems has none to replay', async () => {
      const { assertions } = await tested(clean);
      assert.deepEqual(
        assertions.map(({ name, outcome, output }) => [name, outcome, output]),
        [['clean', 'held', '']],
      );
    });

    await t.test('S0.6 an assertion that fails demotes the point', async () => {
      assert.deepEqual(await best(), [bad, good, clean]);
      const refuted = await tested(bad);
      assert.deepEqual(
        refuted.assertions.map(({ name, outcome }) => [name, outcome]),
        [
          ['integrity', 'held'],
          ['balance', 'failed'],
        ],
      );
      assert.match(refuted.assertions[1]!.output!, /money was made/);
      assert.match(refuted.warnings.join(), /counts as crash-consistent/);
      assert.deepEqual(await best(), [good, clean]);
    });

    await t.test('S0.6 one whose assertions hold has a signed proof of it', async () => {
      const { assertions } = await tested(good);
      assert.deepEqual(
        assertions.map(({ outcome }) => outcome),
        ['held', 'held'],
        JSON.stringify(assertions),
      );
      const signed = await loadApplicationProof(nodeFiles, replica, replica.point(good));
      const { statementDigest } = replica.point(good);
      assert.equal(signed?.proof.verdict, 'held');
      assert.equal(isApplicationProofOf(signed, { statementDigest, publicKey }), true);
    });
  });
});
