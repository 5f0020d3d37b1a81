/** A guest that was left frozen by processes that are all gone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { systemRandom as random } from '../../../src/lib/random.ts';
import { thawAbandoned } from '../../../src/qmp/index.ts';
import { type AgentScript, errorReply, FakeGuestAgent } from '../../support/fake-guest-agent.ts';
import type { CleanUp } from '../../support/temporary.ts';

async function agentThat(t: CleanUp, script?: AgentScript) {
  const fake = await FakeGuestAgent.start(t, script);
  const thaw = (answerMs: number, signal = new AbortController().signal) =>
    thawAbandoned({ agentPath: fake.path, answerMs, clock, random, signal });
  return { fake, thaw };
}

test('a guest that was left frozen is thawed, with nothing asked but what a frozen agent answers', async (t) => {
  const { fake, thaw } = await agentThat(t);
  fake.frozen = true;
  assert.equal(await thaw(5000), 'thawed');
  assert.equal(fake.frozen, false);
  assert.deepEqual(
    [...new Set(fake.commands)],
    ['guest-sync-delimited', 'guest-fsfreeze-status', 'guest-fsfreeze-thaw'],
  );
});

test('a guest that is not frozen is asked and left alone', async (t) => {
  const { fake, thaw } = await agentThat(t);
  assert.equal(await thaw(5000), 'not-frozen');
  assert.deepEqual([...new Set(fake.commands)], ['guest-sync-delimited', 'guest-fsfreeze-status']);
});

test('an agent that cannot freeze has nothing to thaw', async (t) => {
  const { thaw } = await agentThat(t, ({ execute }) =>
    execute === 'guest-fsfreeze-status' ? errorReply('CommandNotFound', 'disabled') : undefined,
  );
  assert.equal(await thaw(5000), 'not-frozen');
});

test('a guest that does not answer is waited for no longer than was said, or until nobody wants to know', async (t) => {
  const { fake, thaw } = await agentThat(t, () => 'silence');
  const beforeMs = clock.monotonicMs();
  assert.equal(await thaw(100), 'silent');
  const end = new AbortController();
  const asked = thaw(60_000, end.signal);
  await fake.until(() => fake.clients === 2);
  end.abort();
  assert.equal(await asked, 'silent');
  assert.ok(clock.monotonicMs() - beforeMs < 10_000);
});
