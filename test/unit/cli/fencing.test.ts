import assert from 'node:assert/strict';
import { it } from 'node:test';
import { asking } from './asking.ts';

it('S0.17 the fencing program is named, shown with what keeps it from being run, and let go', async (t) => {
  const rule = {
    fencing: { program: 'power-off', arguments: ['7'], limitMs: 180_000 },
    lack: 'it is not there',
  };
  const { ask } = await asking(t, rule);
  const shown = await ask('failover', 'fencing');
  assert.deepEqual([shown.exitCode, shown.asked], [0, 'GET /v1/fencing']);
  assert.match(shown.output, /power-off 7.*it is not there/s);
  const named = await ask(
    ...[
      'failover',
      'fencing',
      '--program',
      'power-off',
      '--argument',
      '7',
      '--argument',
      'now',
      '--limit',
      '3m',
    ],
  );
  const fencing = { program: 'power-off', arguments: ['7', 'now'], limitMs: 180_000 };
  assert.deepEqual([named.asked, named.sent], ['PATCH /v1/fencing', { fencing }]);
  assert.deepEqual((await ask('failover', 'fencing', '--off')).sent, { fencing: null });
  for (const wrong of [
    ['--off', '--program', 'x'],
    ['--limit', '3m'],
  ])
    assert.equal((await ask('failover', 'fencing', ...wrong)).exitCode, 2, wrong.join(' '));
});

it('S0.17 a failover by the fencing program asks nobody for a word, and takes none beside it', async (t) => {
  const job = {
    ...{ jobId: '01jh2v0m8v7d6e5f4g3h2j1k0m', kind: 'failover.start', state: 'queued', machineId: 'web' },
    ...{ actor: 'operator:default', args: {}, createdAtMs: 0, progress: {} },
  };
  const { ask } = await asking(t, job);
  const begun = await ask('failover', 'start', 'web', '--fence', '--no-wait');
  assert.deepEqual([begun.exitCode, begun.sent], [0, { fence: true }], begun.messages);
  for (const beside of ['--confirm-other-side-down', '--ask-witness']) {
    const both = await ask('failover', 'start', 'web', '--fence', beside, '--no-wait');
    assert.deepEqual([both.exitCode, /give one of/.test(both.messages)], [2, true], beside);
  }
});
