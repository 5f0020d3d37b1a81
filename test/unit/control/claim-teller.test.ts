import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClaimTeller } from '../../../src/control/machines/claim-teller.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import type { ReplicationTarget } from '../../../src/replication/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { failure } from './fake-machine.ts';

const MINUTE_MS = 60_000;

/** A machine that was claimed over some sites; each answers as is said. */
async function claimed(...siteIds: string[]) {
  const clock = new FakeClock();
  const alerts = new Map<string, Failure>();
  const answers = new Map<string, boolean | Failure>();
  let untold = siteIds;
  let asked = 0;
  const right = {
    get untold() {
      return untold;
    },
    tellSuperseded: async ({ siteId }: Pick<ReplicationTarget, 'siteId'>) => {
      asked += 1;
      const answer = answers.get(siteId) ?? failure('PEER_UNREACHABLE', 'later');
      if (typeof answer !== 'boolean') throw answer;
      if (answer) untold = untold.filter((other) => other !== siteId);
      return answer;
    },
  };
  const teller = new ClaimTeller(
    { record: { machineId: 'm', name: 'box' }, right },
    {
      ...{ clock, random: systemRandom, log: silentLog },
      alerts: {
        raise: (key, _severity, raised) => void alerts.set(key, raised),
        clear: (key) => void alerts.delete(key),
      },
      target: (siteId) => ({ siteId }) as ReplicationTarget,
    },
  );
  const stop = new AbortController();
  const work = teller.keepTelling(stop.signal);
  await clock.turn(0);
  const end = async () => {
    stop.abort();
    await assert.rejects(work, { code: 'CANCELLED' });
    assert.equal(clock.pending, 0, 'no timer outlives it');
  };
  return { clock, alerts, answers, teller, end, untold: () => untold, asked: () => asked };
}

test('S0.17 a site over which a machine was claimed is told until it has answered, and nothing is asked afterwards', async () => {
  const { clock, alerts, answers, end, untold, asked } = await claimed('one', 'two');
  await clock.turn(10 * MINUTE_MS);
  assert.ok(asked() >= 20 && asked() < 100, `${asked()} calls in ten minutes`);
  answers.set('two', true);
  await clock.turn(MINUTE_MS);
  assert.deepEqual(untold(), ['one'], 'one that is silent keeps no other from hearing');
  answers.set('one', false);
  await clock.turn(MINUTE_MS);
  assert.deepEqual(untold(), ['one'], 'an answer that says nothing of the claim is none');
  answers.set('one', true);
  await clock.turn(MINUTE_MS);
  const before = asked();
  await clock.turn(60 * MINUTE_MS);
  assert.deepEqual([untold(), asked(), alerts.size], [[], before, 0]);
  await end();
});

test('S0.17 it is told at once when it answers again, and a person is told of a site that refuses to hear', async () => {
  const { clock, alerts, answers, teller, end, untold, asked } = await claimed('one');
  await clock.turn(10 * MINUTE_MS);
  answers.set('one', failure('REPLICATION_NOT_YOURS', 'never'));
  const before = asked();
  teller.ring();
  await clock.turn(0);
  assert.equal(asked(), before + 1);
  assert.deepEqual(
    [...alerts.values()].map(({ code }) => code),
    ['REPLICATION_NOT_YOURS'],
  );
  answers.set('one', true);
  teller.ring();
  await clock.turn(0);
  assert.deepEqual([untold(), alerts.size], [[], 0]);
  await end();

  const unpaired = await claimed('gone');
  unpaired.answers.set('gone', failure('SITE_PEER_UNKNOWN', 'never'));
  await unpaired.clock.turn(MINUTE_MS);
  assert.equal(unpaired.alerts.size, 0, 'one that was revoked is not to be told');
  await unpaired.end();
});
