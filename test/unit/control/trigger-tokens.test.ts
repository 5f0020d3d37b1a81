import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { TriggerTokens } from '../../../src/control/machines/trigger-tokens.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const OF = { machineId: '01hzzzzzzzzzzzzzzzzzzzzzzz', copyType: 'app' };

it('S0.8 a token is good for its trigger, also after a restart, until it is revoked; the site keeps its digest alone', async (t) => {
  const dataDirectory = await temporaryDirectory(t);
  const tools = { files: nodeFiles, clock: new FakeClock(), random: systemRandom, dataDirectory };
  const first = await TriggerTokens.open(tools);
  assert.deepEqual(first.list, []);
  const { trigger, token } = await first.create({ ...OF, note: 'nightly deploy' });
  const other = await first.create(OF);
  assert.match(token, /^warmsite-trigger-1\.[A-Za-z0-9_-]{43}$/);
  const stored = await readFile(join(dataDirectory, 'triggers.json'), 'utf8');
  assert.ok(!stored.includes(token) && !stored.includes(token.split('.')[1]!));

  const tokens = await TriggerTokens.open(tools);
  assert.deepEqual(tokens.list, [trigger, other.trigger]);
  const { triggerId } = trigger;
  assert.equal(tokens.isShown(triggerId, token), true);
  for (const wrong of ['', token.slice(1), `${token}x`, other.token, trigger.tokenDigest]) {
    assert.equal(tokens.isShown(triggerId, wrong), false);
  }
  assert.equal(tokens.isShown('01hyyyyyyyyyyyyyyyyyyyyyyy', token), false);
  assert.throws(() => tokens.need('01hyyyyyyyyyyyyyyyyyyyyyyy'), { code: 'TRIGGER_TOKEN_UNKNOWN' });

  await tokens.remove((one) => one.triggerId === triggerId);
  assert.equal(tokens.isShown(triggerId, token), false);
  assert.equal(tokens.isShown(other.trigger.triggerId, other.token), true);
  assert.deepEqual((await TriggerTokens.open(tools)).list, [other.trigger]);
});

it('S0.8 a token may be used six times a minute; one that is used too often does not hinder another', async (t) => {
  const clock = new FakeClock();
  const dataDirectory = await temporaryDirectory(t);
  const tokens = await TriggerTokens.open({ files: nodeFiles, clock, random: systemRandom, dataDirectory });
  for (let use = 0; use < 6; use++) {
    tokens.count('one');
    clock.advance(5000);
  }
  for (let use = 0; use < 100; use++) {
    assert.throws(() => tokens.count('one'), {
      code: 'TRIGGER_TOO_OFTEN',
      context: { triggerId: 'one', againInMs: 30_000 },
    });
  }
  tokens.count('another');
  clock.advance(30_000);
  tokens.count('one');
  assert.throws(() => tokens.count('one'), { code: 'TRIGGER_TOO_OFTEN' });
});
