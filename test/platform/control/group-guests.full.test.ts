/** A group of guests with systems: they come up together from one cut, by the API alone. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { inGuest } from '../../support/lab-sites.ts';
import { pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';

const NAMES = ['web', 'db'] as const;

it('S0.28 S0.30 guests that were cut together come up together, each is proven, and each says what was written before the cut', {
  timeout: 300_000,
}, async (context) => {
  const { t, directory, away, homeApi, awayApi } = await pairedSites(context);
  const shop = { params: { group: 'shop' } };
  const checked = { name: 'mark', command: '/bin/cat', arguments: ['/data/mark'], limitMs: 30_000 };
  const copyTypes = [{ name: 'marked', aim: 'crash' as const, assertions: [checked] }];
  const guests = new Map<string, string>();
  for (const name of NAMES) {
    const { lab, attach } = await someonesMachine(t, directory, name);
    guests.set(name, lab.agentPath);
    await homeApi.call('vm.add', { body: { attach } });
    const params = { machine: name };
    await homeApi.call('vm.protect', {
      params,
      body: { schedules: [], copyTypes, retention: { types: { marked: 3 } } },
    });
  }
  await homeApi.call('group.create', {
    body: { name: 'shop', members: [...NAMES], limitMs: 10_000 },
  });
  for (const [name, agentPath] of guests) await inGuest(agentPath, `echo ${name} > /data/mark; sync`);
  const cut = await homeApi.call('group.cut', { ...shop, body: { type: 'marked' } });
  assert.deepEqual([cut.together, cut.reason], [true, undefined]);
  for (const agentPath of guests.values()) await inGuest(agentPath, 'echo later > /data/mark; sync');
  await away.until(async () => {
    const [group] = await awayApi.call('group.list');
    return group?.newest?.cutId === cut.cutId ? group : undefined;
  });

  const { jobs } = await awayApi.call('group.test', { ...shop, body: { cut: cut.cutId } });
  const reports: FailoverReport[] = [];
  for (const { job } of jobs) reports.push((await resultOf(awayApi, job)) as FailoverReport);
  assert.deepEqual(
    reports.map(({ machine, verdict, attempts: [attempt] }) => [
      machine.name,
      verdict,
      attempt!.nonce,
      attempt!.assertions.map(({ outcome, output }) => [outcome, output?.trim()]),
    ]),
    cut.members.map(({ name }) => [name, 'passed', 'read', [['held', name]]]),
  );
  for (const machine of NAMES) {
    const [point] = await awayApi.call('point.list', { params: { machine } });
    assert.equal(point!.proofs.boot?.passed, true);
    assert.deepEqual(await awayApi.call('failover.list', { params: { machine } }), []);
  }
});
