/** The MariaDB recipe in a real guest whose server is written all the time, tables without transactions too. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildMariadbDisk } from '../../../lab/index.ts';
import { mountScript, recipeInTree, SERVER_ROOT, shell } from '../../support/database-guest.ts';
import { failoversOf } from '../../support/failover-site.ts';
import { copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const LOG = `${SERVER_ROOT}/data/server.log`;
const CLIENT = `chroot ${SERVER_ROOT} mariadb -NB`;
const START = `${mountScript(['data', 'tmp', 'run/mysqld'])}
chroot ${SERVER_ROOT} mariadbd &
until ${CLIENT} -e 'SELECT 1'; do kill -0 $! && usleep 200000 || exit 1; done`;
/** Money goes from one account to another in one transaction; the audit follows it, without one. */
const TRANSFER =
  'BEGIN; INSERT INTO transfers (amount) VALUES (-7); INSERT INTO transfers (amount) VALUES (7); COMMIT; INSERT INTO audit (amount) VALUES (7);';
const INVARIANT = `SELECT count(*) > 0 AND count(*) % 2 = 0 AND sum(amount) = 0
  AND count(*) DIV 2 - (SELECT count(*) FROM audit) IN (0, 1) FROM transfers`;

test('S0.6 MariaDB: a point holds exactly what was committed when the hook held commits back, in whole tables', {
  timeout: 600_000,
}, async (t) => {
  const disk = await buildMariadbDisk(await temporaryDirectory(t));
  const copyType = await recipeInTree('mariadb', START, [
    shell('rows', `[ "$(${CLIENT} shop -e '${INVARIANT}')" = 1 ]`),
    shell('position', `${CLIENT} -e 'SELECT @@gtid_binlog_pos'`),
    shell(
      'recovery',
      `sed -n 's/.*InnoDB: \\(Starting crash recovery\\|End of log\\)/\\1/p' ${LOG} | tail -n 2; ! grep -iE 'crashed|corrupt' ${LOG}`,
    ),
  ]);
  const lab = await labSites(t, {
    extraDisks: [{ diskId: 'mariadb', ...disk }],
    protection: { copyTypes: [copyType] },
  });
  const { machine, sites } = lab;
  const agentPath = machine.record.sockets.agentPath!;
  await inGuest(
    agentPath,
    `(${START}) >/run/start.log 2>&1 </dev/null || { cat /run/start.log ${LOG}; exit 1; }`,
  );
  const writer = `while :; do echo '${TRANSFER}'; usleep 50000; done | ${CLIENT} shop`;
  await inGuest(agentPath, `(${writer}) >/dev/null 2>&1 </dev/null &`);
  const atLeast = (rows: number) =>
    inGuest(
      agentPath,
      `until [ $(${CLIENT} -e 'SELECT count(*) FROM shop.audit') -ge ${rows} ]; do usleep 100000; done`,
    );
  await atLeast(5);

  const { pointId } = await copyAndSend(machine, sites.target, 'mariadb');
  const cut = machine.cuts.find(({ cutId }) => cutId === pointId)!;
  assert.equal(cut.consistency, 'application', cut.degraded);
  assert.deepEqual(
    cut.hooks!.map(({ hook, exitCode }) => [hook, exitCode]),
    [
      ['before', 0],
      ['after', 0],
    ],
    JSON.stringify(cut.hooks),
  );
  const [, position, lsn] = /^held at GTID (0-1-\d+) LSN (\d+)$/.exec(cut.hooks![0]!.output!.trim())!;
  // The writer has been let go.
  await atLeast(Number(await inGuest(agentPath, `${CLIENT} -e 'SELECT count(*) FROM shop.audit'`)) + 2);
  await machine.running!.quit();

  const { failovers } = await failoversOf(t, sites);
  const report = await failovers.test(lab.replica(), { pointId });
  const [{ assertions, reasons }] = report.attempts as [(typeof report.attempts)[number]];
  assert.deepEqual(
    assertions.map(({ name, outcome }) => [name, outcome]),
    ['started', 'up', 'tables', 'rows', 'position', 'recovery'].map((name) => [name, 'held']),
    JSON.stringify({ reasons, assertions }),
  );
  assert.equal(assertions[4]!.output!.trim(), position);
  const recovered = assertions[5]!.output!;
  t.diagnostic(`held at ${position}, LSN ${lsn}; ${recovered.trim().replaceAll('\n', '; ')}`);
  assert.ok(Number(/End of log at LSN=(\d+)/.exec(recovered)![1]) >= Number(lsn), recovered);
});
