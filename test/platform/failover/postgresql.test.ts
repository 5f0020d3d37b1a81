/** The PostgreSQL recipe in a real guest whose server is written all the time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildPostgresDisk } from '../../../lab/index.ts';
import type { CopyType } from '../../../src/recovery-point/index.ts';
import { mountScript, recipeInTree, SERVER_ROOT, shell } from '../../support/database-guest.ts';
import { failoversOf } from '../../support/failover-site.ts';
import { copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const AS_POSTGRES = `chroot ${SERVER_ROOT} /usr/bin/setpriv --reuid=postgres --regid=postgres --clear-groups`;
const START = `${mountScript(['data', 'var/run/postgresql'])}
${AS_POSTGRES} pg_ctl -D /data -l /data/server.log -w -t 150 start`;
/** Two rows at a time, whose amounts are 0 together. */
const ORDER =
  'INSERT INTO orders SELECT (SELECT coalesce(max(id), 0) FROM orders) + g, 15 - 10 * g FROM generate_series(1, 2) g;';
const INVARIANT = 'SELECT count(*) > 0 AND count(*) % 2 = 0 AND sum(amount) = 0 FROM orders;';

function postgresType(): Promise<CopyType> {
  return recipeInTree('postgresql', START, [
    shell('rows', `[ "$(${AS_POSTGRES} psql -XqAt -c '${INVARIANT}')" = t ]`),
    shell(
      'redo',
      `grep -o 'redo starts at .*' ${SERVER_ROOT}/data/server.log | tail -n 1; ! grep -E 'PANIC|FATAL' ${SERVER_ROOT}/data/server.log`,
    ),
  ]);
}

test('S0.6 PostgreSQL: redo starts at the checkpoint that the hook made, and its checks pass on a booted branch', {
  timeout: 600_000,
}, async (t) => {
  const disk = await buildPostgresDisk(await temporaryDirectory(t));
  const lab = await labSites(t, {
    extraDisks: [{ diskId: 'postgres', ...disk }],
    protection: { copyTypes: [await postgresType()] },
  });
  const { machine, sites } = lab;
  const agentPath = machine.record.sockets.agentPath!;
  const psql = (sql: string) => inGuest(agentPath, `${AS_POSTGRES} psql -XqAt -c '${sql}'`);
  await inGuest(
    agentPath,
    `(${START}) >/run/postgres-start.log 2>&1 </dev/null || { cat /run/postgres-start.log ${SERVER_ROOT}/data/server.log; exit 1; }`,
  );
  const writer = `while :; do echo '${ORDER}'; usleep 50000; done | ${AS_POSTGRES} psql -Xq`;
  await inGuest(agentPath, `(${writer}) >/dev/null 2>&1 </dev/null &`);
  while (Number(await psql('SELECT count(*) FROM orders')) < 10);

  const { pointId } = await copyAndSend(machine, sites.target, 'postgresql');
  const cut = machine.cuts.find(({ cutId }) => cutId === pointId)!;
  assert.equal(cut.consistency, 'application', cut.degraded);
  const redo = cut.hooks![0]!.output!.trim();
  assert.match(redo, /^[0-9A-F]+\/[0-9A-F]+$/);
  const rows = Number(await psql('SELECT count(*) FROM orders'));
  await machine.running!.quit();

  const { failovers } = await failoversOf(t, sites);
  const report = await failovers.test(lab.replica(), { pointId });
  const [{ assertions }] = report.attempts as [(typeof report.attempts)[number]];
  assert.deepEqual(
    assertions.map(({ name, outcome }) => [name, outcome]),
    ['started', 'up', 'amcheck', 'rows', 'redo'].map((name) => [name, 'held']),
    JSON.stringify({ rows, reasons: report.attempts[0]!.reasons, assertions }),
  );
  assert.equal(assertions[4]!.output?.trim(), `redo starts at ${redo}`);
});
