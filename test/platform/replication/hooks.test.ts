/** Hooks of a copy type in a real guest: nothing of ours is installed there, its agent runs them. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import type { CopyType } from '../../../src/recovery-point/index.ts';
import { copyAndSend, inGuest, labSites } from '../../support/lab-sites.ts';
import { openTwoSites, reopenMachine } from '../../support/two-sites.ts';

const LOG = '/run/hooks-of-ours';

/** Writes its name and the time since boot, by which the guest tells its freezes too. */
function noting(name: string, then = ''): { command: string; arguments: string[]; limitMs: number } {
  const script = `echo "$(cut -d ' ' -f 1 /proc/uptime) ${name}" >> ${LOG}; ${then}`;
  return { command: '/bin/sh', arguments: ['-c', script], limitMs: 20_000 };
}

const NOTING: CopyType = {
  name: 'noting',
  aim: 'application',
  hooks: { before: noting('before', 'echo flushed'), after: noting('after'), onFailure: noting('failed') },
};

function withBefore(name: string, before: NonNullable<CopyType['hooks']>['before']): CopyType {
  return { ...NOTING, name, hooks: { ...NOTING.hooks, before } };
}

const TYPES = [
  NOTING,
  withBefore('refusing', noting('before', 'echo "the database is busy" >&2; exit 3')),
  withBefore('hanging', { ...noting('before', 'exec sleep 7777'), limitMs: 3000 }),
  withBefore('printing', noting('before', 'yes | head -c 6000000; echo end')),
  withBefore('waiting', noting('before', 'exec sleep 20')),
];

describe('hooks of copy types', { timeout: 240_000 }, () => {
  it('S0.4 S0.6', async (t) => {
    const lab = await labSites(t, { protection: { copyTypes: TYPES } });
    const { machine, sites } = lab;
    const agentPath = machine.record.sockets.agentPath!;
    const names = async () =>
      (await inGuest(agentPath, `cut -d ' ' -f 2 ${LOG}; rm ${LOG}`)).split('\n').join(' ');
    await inGuest(agentPath, 'while [ ! -e /data/app.db ]; do usleep 20000; done');
    await copyAndSend(machine, sites.target);

    await t.test(
      'S0.4 S0.6 the hooks stand around the freeze, and the type reaches the other site',
      async () => {
        const { pointId } = await copyAndSend(machine, sites.target, 'noting');
        const { statement } = lab.replica().point(pointId);
        assert.deepEqual(
          [statement.copyType, statement.aim, statement.consistency, statement.degraded],
          ['noting', 'application', 'application', undefined],
        );
        const cut = machine.cuts.find(({ cutId }) => cutId === pointId);
        assert.deepEqual(
          cut?.hooks?.map(({ hook, exitCode, output }) => ({ hook, exitCode, output })),
          [
            { hook: 'before', exitCode: 0, output: 'flushed\n' },
            { hook: 'after', exitCode: 0, output: '' },
          ],
        );
        // The guest's own hook notes «uptime idle freeze», as always.
        const own = `cut -d ' ' -f 1,3 /run/freeze.log`;
        const all = await inGuest(
          agentPath,
          `{ ${own}; cat ${LOG}; } | sort -n | cut -d ' ' -f 2; rm ${LOG}`,
        );
        assert.deepEqual(all.split('\n'), ['before', 'freeze', 'thaw', 'after']);
      },
    );

    await t.test('S0.6 a hook that refuses costs the consistency and says why on the point', async () => {
      const { pointId } = await copyAndSend(machine, sites.target, 'refusing');
      const { statement } = lab.replica().point(pointId);
      assert.equal(statement.consistency, 'crash');
      assert.match(statement.degraded!, /before hook failed: .*exit code 3: the database is busy/);
      assert.equal(await names(), 'before after failed');
    });

    await t.test('S0.6 a hook that hangs is ended in the guest, and the copy is made', async () => {
      const cut = await machine.cut('hanging');
      assert.match(cut.degraded!, /still runs in the guest after 3000 ms/);
      assert.equal(await names(), 'before after failed');
      assert.equal(await inGuest(agentPath, 'pgrep -f "sleep 777[7]" || echo none'), 'none');
    });

    await t.test('S0.6 a hook that prints megabytes is heard to its end', async () => {
      const cut = await machine.cut('printing');
      assert.equal(cut.consistency, 'application', cut.degraded);
      assert.match(cut.hooks![0]!.output!, /^(y\n){2048}\n\[cut off\]$/);
      assert.equal(await names(), 'before after');
    });

    await t.test('S0.6 what a killed site process owes the guest, the next one does', async () => {
      await machine.release();
      const identity = join(sites.directory, 'identity.json');
      await writeFile(identity, JSON.stringify(sites.identity));
      const program = join(import.meta.dirname, '..', '..', 'support', 'site-process.ts');
      const child = spawn(process.execPath, [program, identity, 'cut', 'waiting'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      t.after(() => child.kill('SIGKILL'));
      for await (const line of createInterface({ input: child.stdout }))
        if (JSON.parse(line).news === 'ready') break;
      while ((await nodeFiles.sizeOf(machine.layout.owedHooks)) === undefined) await sleep(systemClock, 20);
      // Whoever holds the agent's socket is the process that runs the hook: in the guest it has begun, or may have.
      child.kill('SIGKILL');
      await exitOf(child);
      const next = await reopenMachine(await openTwoSites(t, sites.identity));
      assert.equal((await next.attach()).state, 'running');
      t.after(() => next.release());
      const cut = await next.cut('noting');
      assert.equal(cut.consistency, 'application', cut.degraded);
      assert.match(await names(), /^(before )?after failed before after$/);
    });
  });
});
