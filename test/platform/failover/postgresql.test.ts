/** The PostgreSQL recipe in a real guest whose server is written all the time. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildPostgresDisk } from '../../../lab/index.ts';
import type { Assertion, CopyType, GuestProgram } from '../../../src/recovery-point/index.ts';
import { failoversOf } from '../../support/failover-site.ts';
import { copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** The server has a root of its own in the lab guest: what the recipe runs is run in there. */
const ROOT = '/pg';
const AS_POSTGRES = `chroot ${ROOT} /usr/bin/setpriv --reuid=postgres --regid=postgres --clear-groups`;
const START = `mkdir -p ${ROOT}
mount -t ext4 /dev/vdc ${ROOT} && mount --bind /dev ${ROOT}/dev && mount -t proc proc ${ROOT}/proc || exit 1
chown -R 65534:65534 ${ROOT}/data ${ROOT}/var/run/postgresql
${AS_POSTGRES} pg_ctl -D /data -l /data/server.log -w -t 150 start`;
/** Two rows at a time, whose amounts are 0 together. */
const ORDER =
  'INSERT INTO orders SELECT (SELECT coalesce(max(id), 0) FROM orders) + g, 15 - 10 * g FROM generate_series(1, 2) g;';
const INVARIANT = 'SELECT count(*) > 0 AND count(*) % 2 = 0 AND sum(amount) = 0 FROM orders;';

function inTree<P extends GuestProgram>(program: P): P {
  return { ...program, command: '/bin/chroot', arguments: [ROOT, program.command, ...program.arguments] };
}

function shell(name: string, script: string): Assertion {
  return { name, command: '/bin/sh', arguments: ['-c', script], limitMs: 200_000 };
}

async function postgresType(): Promise<CopyType> {
  const path = join(import.meta.dirname, '..', '..', '..', 'recipes', 'postgresql.json');
  const recipe = JSON.parse(await readFile(path, 'utf8')) as Omit<CopyType, 'name'>;
  return {
    name: 'postgresql',
    aim: recipe.aim,
    hooks: { before: inTree(recipe.hooks!.before!) },
    assertions: [
      // A guest of a real site starts its server by itself.
      shell('started', `(${START}) >/dev/null 2>&1 </dev/null`),
      ...recipe.assertions!.map(inTree),
      shell('rows', `[ "$(${AS_POSTGRES} psql -XqAt -c '${INVARIANT}')" = t ]`),
      shell(
        'redo',
        `grep -o 'redo starts at .*' ${ROOT}/data/server.log | tail -n 1; ! grep -E 'PANIC|FATAL' ${ROOT}/data/server.log`,
      ),
    ],
  };
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
    `(${START}) >/run/postgres-start.log 2>&1 </dev/null || { cat /run/postgres-start.log ${ROOT}/data/server.log; exit 1; }`,
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
