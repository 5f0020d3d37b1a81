import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { TriggerView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const ID = newId(systemClock, systemRandom);
const TRIGGER: TriggerView = { triggerId: ID, machineId: ID, machine: 'db', copyType: 'app', createdAtMs: 0 };

it('S0.8 a trigger of the policy is pulled as it always was, and also of machines that are called like a command', async (t) => {
  const { ask } = await asking(t, { copyTypes: ['app'] });
  for (const words of [
    ['web', 'deploy'],
    ['call', 'web', 'deploy'],
  ]) {
    const { exitCode, asked, output } = await ask('vm', 'trigger', ...words);
    assert.deepEqual([exitCode, asked], [0, 'POST /v1/machines/web/triggers/deploy']);
    assert.match(output, /Due now: app/);
  }
  assert.equal(
    (await ask('vm', 'trigger', 'call', 'list', 'deploy')).asked,
    'POST /v1/machines/list/triggers/deploy',
  );
});

it('S0.8 triggers with tokens are listed without them, and revoked', async (t) => {
  const listing = await asking(t, [
    TRIGGER,
    { ...TRIGGER, lastUsedAtMs: systemClock.wallMs(), note: 'deploy' },
  ]);
  const listed = await listing.ask('vm', 'trigger', 'list');
  assert.deepEqual([listed.exitCode, listed.asked], [0, 'GET /v1/triggers']);
  assert.match(listed.output, new RegExp(`db +app .*never +${ID}`));
  assert.match(listed.output, /deploy/);
  const revoking = await asking(t, TRIGGER);
  const revoked = await revoking.ask('vm', 'trigger', 'revoke', ID);
  assert.deepEqual([revoked.exitCode, revoked.asked], [0, `DELETE /v1/triggers/${ID}`]);
  assert.equal(
    (await revoking.ask('vm', 'trigger', 'create', 'db')).exitCode,
    2,
    'the copy type must be said',
  );
});
