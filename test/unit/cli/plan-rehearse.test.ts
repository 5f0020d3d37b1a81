import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { RehearsalView } from '../../../src/api/index.ts';
import { asking } from './asking.ts';

const VIEW: RehearsalView = {
  ...{ plan: 'shop', times: { kind: 'fixed', cron: '0 2 * * *', zone: 'UTC' }, withinMs: 21_600_000 },
  ...{ state: 'held', nextAtMs: 0, reason: 'mail is being carried out', isFailing: false, isOverdue: false },
};

it('F5 a plan is rehearsed every night on one word, at other times on others, and never more', async (t) => {
  const { ask, site } = await asking(t, [VIEW, { ...VIEW, plan: 'mail' }]);
  const nightly = await ask('plan', 'rehearse', 'shop', '--daily', '2:05', '--zone', 'Europe/Berlin');
  assert.deepEqual([nightly.exitCode, nightly.asked], [0, 'POST /v1/plans/shop/rehearsal']);
  assert.deepEqual(nightly.sent, { times: { kind: 'fixed', cron: '5 2 * * *', zone: 'Europe/Berlin' } });
  assert.match(nightly.output, /shop.*held.*mail is being carried out/);
  assert.doesNotMatch(nightly.output, /^mail/m);
  const { sent } = await ask('plan', 'rehearse', 'shop', '--every', '7d', '--within', '1d');
  assert.deepEqual(sent, { times: { kind: 'interval', everyMs: 604_800_000 }, withinMs: 86_400_000 });
  assert.equal((await ask('plan', 'rehearse', 'shop', '--off')).asked, 'DELETE /v1/plans/shop/rehearsal');
  const all = await ask('plan', 'rehearse');
  assert.deepEqual([all.asked, all.exitCode], ['GET /v1/plan-rehearsals', 0]);
  assert.match(all.output, /^mail/m);
  const asked = site.asked.length;
  for (const wrong of [
    ['--daily', '02:00', '--every', '1d'],
    ['--off', '--daily', '02:00'],
    ['--within', '1d'],
    ['--daily', '25:00'],
  ]) {
    assert.equal((await ask('plan', 'rehearse', 'shop', ...wrong)).exitCode, 2, wrong.join(' '));
  }
  assert.equal((await ask('plan', 'rehearse', '--daily', '02:00')).exitCode, 2);
  assert.equal(site.asked.length, asked);
});

it('F5 a rehearsal that is failing or overdue has exit code 1', async (t) => {
  for (const wrong of [{ isFailing: true }, { isOverdue: true }]) {
    const { ask } = await asking(t, [{ ...VIEW, ...wrong }]);
    assert.equal((await ask('plan', 'rehearse', 'shop')).exitCode, 1);
    assert.equal((await ask('plan', 'rehearse', 'other')).exitCode, 0);
  }
});
