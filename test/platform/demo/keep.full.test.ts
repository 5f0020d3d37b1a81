/** The demonstration as somebody types it, with less to watch, and what it says of looking around afterwards. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AlertView, MachineView } from '../../../src/api/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';

const LIMIT = { timeout: 300_000 };

test(
  'the demonstration holds what it checks, and with --keep it leaves both sites running',
  LIMIT,
  async (t) => {
    const args = ['demo/main.ts', '--keep', '--seconds', '10'];
    const { stdout, exitCode } = await runCommand(process.execPath, args, { allowExit: [1] });
    const [report, ending] = stdout.split('End everything with\n');
    assert.ok(ending, stdout);
    t.after(() => runCommand('sh', ['-ec', ending]));
    assert.equal(exitCode, 0, stdout);
    assert.match(report!, /✔ every record reported before the cut is there/);

    const answer = async <T>(act: string): Promise<T> => {
      const command = new RegExp(`^ +(bin/\\S+ --data \\S+ ${act}.*)$`, 'm').exec(report!)![1]!;
      return JSON.parse((await runCommand('sh', ['-c', `${command} --json`], { allowExit: [1] })).stdout);
    };
    const alerts = await answer<AlertView[]>('alert list');
    assert.deepEqual(
      alerts.map(({ code }) => code),
      ['PROTECTION_FENCED'],
    );
    const machine = await answer<MachineView>('vm show');
    assert.equal(machine.protected!.presence.state, 'stopped');
    const [branch] = await answer<{ purpose: string; process: { state: string } }[]>('failover list');
    assert.deepEqual(branch!.purpose, 'failover');
  },
);
