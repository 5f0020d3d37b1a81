/** Copies that somebody has made who is no operator: over the wire, with a token that is good for nothing else. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { it } from 'node:test';
import { Value } from 'typebox/value';
import { CLIENT_FILES, ErrorAnswer, ROUTES, type SiteEvent } from '../../../src/api/index.ts';
import { BOX } from '../../support/paired-sites.ts';
import { BY_HAND, sitesWithMachine, verifiedCopy, writeToTip } from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;
const acknowledged = (event: SiteEvent) => event.event === 'point' && event.change === 'acknowledged';

it('S0.8 whoever has the token of a trigger has one copy of its type made of its machine, and can do nothing else', async (t) => {
  const { home, homeApi, awayApi } = await sitesWithMachine(t);
  const issue = (copyType: string) =>
    homeApi.call('trigger.create', { ...BOX, body: { copyType, note: 'deploy' } });
  await assert.rejects(issue('app'), { code: 'PROTECTION_NOT_PROTECTED' });
  await homeApi.call('vm.protect', {
    ...BOX,
    body: { ...BY_HAND, retention: { types: { crash: 3, app: 2 } } },
  });
  await assert.rejects(issue('nightly'), { code: 'COPY_TYPE_UNKNOWN' });
  await verifiedCopy(homeApi);

  const { trigger, token } = await issue('app');
  const { trigger: other } = await issue('crash');
  assert.deepEqual([trigger.machine, trigger.copyType, trigger.note], ['box', 'app', 'deploy']);
  const path = `/v1/triggers/${trigger.triggerId}`;
  const authority = await readFile(join(home.dataDirectory, CLIENT_FILES.authority));
  const { port } = home.served.apiAddress;
  /** As any program does that trusts the site's authority and checks the name that it has called. */
  const use = (shown: string, at = path, body = '{"ref":"refs/heads/main"}') =>
    new Promise<{ status: number; value: unknown }>((resolve, reject) => {
      const headers = { authorization: `Bearer ${shown}`, 'content-type': 'application/json' };
      const call = { host: '127.0.0.1', port, ca: authority, agent: false as const, path: at, headers };
      const outgoing = request({ ...call, method: 'POST' }, async (incoming) => {
        const text = await incoming.setEncoding('utf8').reduce((all: string, part: string) => all + part, '');
        resolve({ status: incoming.statusCode!, value: JSON.parse(text) });
      });
      outgoing.once('error', reject);
      outgoing.end(body);
    });
  const codeOf = ({ value }: { value: unknown }) => {
    assert.ok(Value.Check(ErrorAnswer, value));
    return value.error.code;
  };

  await writeToTip(homeApi, 9, 8 * MIB);
  const arrived = home.next(acknowledged);
  assert.deepEqual(await use(token), { status: 200, value: { copyTypes: ['app'] } });
  await arrived;
  const points = await awayApi.call('point.list', BOX);
  assert.deepEqual(
    points.map(({ copyType }) => copyType),
    ['crash', 'app'],
  );

  // Nothing else: no other trigger, no other route, no other method.
  const refused = { status: 401, code: 'API_UNAUTHORIZED' };
  const refusal = async (answer: Promise<{ status: number; value: unknown }>) => {
    const got = await answer;
    return { status: got.status, code: codeOf(got) };
  };
  assert.deepEqual(await refusal(use(token, `/v1/triggers/${other.triggerId}`)), refused);
  assert.deepEqual(await refusal(use(`${token}x`)), refused);
  assert.deepEqual(await refusal(use(token, '/v1/machines/box/points', '{"type":"crash"}')), refused);
  for (const { method, path: other } of Object.values(ROUTES)) {
    if (method === 'POST' && other === ROUTES['trigger.use'].path) continue;
    const { status } = await homeApi.raw({
      method,
      path: `/v1${other}`.replace(':trigger', trigger.triggerId),
      token,
    });
    assert.equal(status, 401, `${method} ${other}`);
  }

  // As often as the limit allows, also while nothing has changed: a copy that is owed is owed once.
  for (let uses = 1; uses < 6; uses++) assert.equal((await use(token)).status, 200);
  const tooOften = await use(token);
  assert.deepEqual([tooOften.status, codeOf(tooOften)], [503, 'TRIGGER_TOO_OFTEN']);
  const [listed] = await homeApi.call('trigger.list');
  assert.ok(listed!.lastUsedAtMs! >= trigger.createdAtMs);
  const { entries } = await homeApi.call('audit.list');
  const uses = entries.filter(({ act }) => act === 'trigger.use');
  assert.equal(uses.length, 12);
  assert.ok(uses.every(({ actor }) => actor === `trigger:${trigger.triggerId}`));
  assert.ok(!JSON.stringify(entries).includes(token.slice(-20)), 'no secret in the audit log');

  await homeApi.call('trigger.revoke', { params: { trigger: trigger.triggerId } });
  // So many wrong tokens have come from this address by now that none is looked at for a while.
  const late = await use(token);
  assert.deepEqual([late.status, /^API_(UNAUTHORIZED|TOO_MANY_ATTEMPTS)$/.test(codeOf(late))], [401, true]);
  assert.equal((await homeApi.call('trigger.list')).length, 1);
  await homeApi.call('vm.unprotect', { ...BOX, body: {} });
  await homeApi.call('vm.remove', BOX);
  assert.deepEqual(await homeApi.call('trigger.list'), [], 'triggers go with their machine');
});
