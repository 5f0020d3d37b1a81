/** A plan whose gate is a query: a real PostgreSQL answers it from inside the guest that a rehearsal has booted. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { buildPostgresDisk } from '../../../lab/index.ts';
import type { PlanDocument, PlanRun } from '../../../src/api/index.ts';
import { mountScript, SERVER_ROOT } from '../../support/database-guest.ts';
import { resultOf } from '../../support/paired-sites.ts';
import { SHOP_MACHINES, sitesWithShop } from '../../support/shop-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const SHOP = { params: { plan: 'shop' } };
const LIMIT_MS = 120_000;
const AS_POSTGRES = `chroot ${SERVER_ROOT} /usr/bin/setpriv --reuid=postgres --regid=postgres --clear-groups`;
/** The making of the table's index has read it, which counts. */
const FORGET_SCANS = `SELECT pg_stat_reset_single_table_counters('orders'::regclass)`;
/** Whoever asks a second time has had an answer, and not the one that was wished. */
const ASKED_TWICE = `SELECT 1 FROM pg_stat_user_tables WHERE relname = 'orders' AND seq_scan >= 2`;
/**
 * A guest of a real site starts its server by itself, and has `runuser`. Ours has a root of its own for the server; it is put up once, however
 * often it is asked. The server has no rows before the gate has asked for them in vain.
 */
const START = `[ -e /run/began ] || {
: > /run/began
printf '#!/bin/sh\\nshift 3\\nexec ${AS_POSTGRES} "$@"\\n' > /usr/bin/runuser && chmod 755 /usr/bin/runuser
(${mountScript(['data', 'var/run/postgresql'])}
${AS_POSTGRES} pg_ctl -D /data -l /data/server.log -w -t 150 start
${AS_POSTGRES} psql -Xq -c "${FORGET_SCANS}"
until [ -n "$(${AS_POSTGRES} psql -XAtq -c "${ASKED_TWICE}")" ]; do sleep 1; done
${AS_POSTGRES} psql -Xq -c 'INSERT INTO orders VALUES (1, 5), (2, -5)' && : > /run/filled) >/dev/null 2>&1 </dev/null &
}
[ -e /run/filled ]`;

describe('a plan with a database', { timeout: 300_000 }, () => {
  it('F5 comes up when its PostgreSQL answers the query of a gate, and not before it answers as wished', async (context) => {
    const disk = await buildPostgresDisk(await temporaryDirectory(context));
    const [db] = SHOP_MACHINES;
    const { awayApi } = await sitesWithShop(context, [
      { ...db, extraDisks: [{ diskId: 'postgres', path: disk.path, format: 'qcow2' }] },
    ]);
    const document: PlanDocument = {
      plan: 'shop',
      machines: {
        db: {
          gates: [
            { kind: 'guest', command: '/bin/sh', arguments: ['-c', START], limitMs: LIMIT_MS },
            {
              ...{ kind: 'sql', system: 'postgresql', database: 'postgres', limitMs: LIMIT_MS },
              ...{ query: 'SELECT count(*), sum(amount) FROM orders', pattern: '^2\\|0$' },
            },
          ],
        },
      },
    };
    await awayApi.call('plan.put', { body: document });
    const { job } = await awayApi.call('plan.run', { ...SHOP, body: { mode: 'test' } });
    const { verdict, steps } = (await resultOf(awayApi, job)) as PlanRun;
    assert.equal(verdict, 'done', JSON.stringify(steps));
  });
});
