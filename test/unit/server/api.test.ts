import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { connect } from 'node:tls';
import { Value } from 'typebox/value';
import {
  API_PREFIX,
  CLIENT_FILES,
  ErrorAnswer,
  EVENTS_PATH,
  REQUEST_BYTES_MAX,
  ROUTES,
  type RouteName,
  VERSION_HEADER,
} from '../../../src/api/index.ts';
import { jsonLog } from '../../../src/server/index.ts';
import type { TestApi } from '../../support/api.ts';
import { lastFirst } from '../../support/last-first.ts';
import { TestSite } from '../../support/served-sites.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

async function served(context: TestContext): Promise<{ site: TestSite; api: TestApi }> {
  const t = lastFirst(context);
  const site = await TestSite.init(t, await temporaryDirectory(t), 'bergen');
  return { site, api: await site.serve() };
}

function errorOf(text: string) {
  const value: unknown = JSON.parse(text);
  assert.ok(Value.Check(ErrorAnswer, value), text);
  return value.error;
}

describe('API', { timeout: 60_000 }, () => {
  it('answers nothing without the operator token, not even whether a route exists', async (t) => {
    const { api } = await served(t);
    const paths = Object.values(ROUTES).map(({ method, path }) => ({ method, path: API_PREFIX + path }));
    const wrong = [undefined, '', 'wrong', `${api.token}x`, api.token.slice(1)];
    for (const [index, request] of [...paths, { method: 'GET', path: '/elsewhere' }].entries()) {
      const token = wrong[index % wrong.length];
      const { status, headers, text } = await api.raw({
        ...request,
        ...(token === undefined ? {} : { token }),
      });
      assert.equal(status, 401, `${request.method} ${request.path}`);
      assert.equal(headers['www-authenticate'], 'Bearer');
      assert.match(errorOf(text).code, /^API_(UNAUTHORIZED|TOO_MANY_ATTEMPTS)$/);
    }
  });

  it('is no longer looked at after too many wrong tokens, but the right one always passes', async (t) => {
    const { api } = await served(t);
    const codes = new Set<string>();
    for (let tries = 0; tries < 25; tries++) {
      const { text } = await api.raw({ method: 'GET', path: '/v1/site', token: 'wrong' });
      codes.add(errorOf(text).code);
    }
    assert.deepEqual([...codes], ['API_UNAUTHORIZED', 'API_TOO_MANY_ATTEMPTS']);
    assert.equal((await api.call('site.show')).name, 'bergen');
  });

  it('names the field of a request that is wrong, and refuses fields that it does not know', async (t) => {
    const { api } = await served(t);
    const wrong: [RouteName, unknown, RegExp][] = [
      ['site.token', { lifetimeMs: 'long' }, /body\.lifetimeMs/],
      ['site.token', { lifetimeMs: 1000, forever: true }, /body/],
      ['site.pair', {}, /body/],
      ['vm.add', { attach: { qmpPath: 'relative' } }, /body\.attach\.qmpPath/],
      ['site.rebuild', { quickly: true }, /body/],
    ];
    for (const [name, body, field] of wrong) {
      const path = API_PREFIX + ROUTES[name].path;
      const answer = await api.raw({ method: 'POST', path, token: api.token, body: JSON.stringify(body) });
      assert.equal(answer.status, 400, answer.text);
      const error = errorOf(answer.text);
      assert.equal(error.code, 'API_REQUEST_INVALID');
      assert.match(error.message, field);
    }
    const query = await api.raw({ method: 'GET', path: '/v1/audit?limit=-1', token: api.token });
    assert.match(errorOf(query.text).message, /query\.limit/);
  });

  it('answers what is no JSON, too long or nowhere with a code of its own', async (t) => {
    const { api } = await served(t);
    const post = { method: 'POST', path: '/v1/site/pairing-tokens', token: api.token };
    assert.equal(
      errorOf((await api.raw({ ...post, body: '{"lifetimeMs":' })).text).code,
      'API_REQUEST_INVALID',
    );
    const long = await api.raw({ ...post, body: `{"host":"${'x'.repeat(REQUEST_BYTES_MAX)}"}` });
    assert.deepEqual([long.status, errorOf(long.text).code], [400, 'API_REQUEST_INVALID']);
    const nowhere = await api.raw({ method: 'GET', path: '/v1/nowhere', token: api.token });
    assert.deepEqual([nowhere.status, errorOf(nowhere.text).code], [404, 'API_ROUTE_UNKNOWN']);
  });

  it('says which version answers, gives each request an id, and lets no other origin in', async (t) => {
    const { api } = await served(t);
    const { headers } = await api.raw({ method: 'GET', path: '/v1/site', token: api.token });
    assert.match(String(headers[VERSION_HEADER]), /^\d+\.\d+\.\d+/);
    assert.match(String(headers['request-id']), /^[0-9a-z]{26}$/);
    assert.equal(headers['access-control-allow-origin'], undefined);
    assert.equal(headers['cache-control'], 'no-store');
  });

  it('speaks TLS 1.3 with a leaf of the site, and nothing older', async (t) => {
    const { site, api } = await served(t);
    const { host, port } = site.served.apiAddress;
    const { siteId } = await api.call('site.show');
    const ca = await readFile(join(site.dataDirectory, CLIENT_FILES.authority));
    const handshake = (maxVersion: 'TLSv1.2' | 'TLSv1.3') =>
      new Promise<string | undefined>((resolve, reject) => {
        const socket = connect({ host, port, ca, maxVersion, checkServerIdentity: () => undefined }, () => {
          resolve(socket.getPeerX509Certificate()?.subjectAltName);
          socket.destroy();
        });
        socket.once('error', reject);
      });
    assert.equal(await handshake('TLSv1.3'), `URI:warmsite:site:${siteId}, IP Address:127.0.0.1`);
    await assert.rejects(handshake('TLSv1.2'));
  });

  it('tells of what is missing with 404, the code and what to do', async (t) => {
    const { api } = await served(t);
    for (const [name, params, code] of [
      ['vm.show', { machine: 'nobody' }, 'MACHINE_UNKNOWN'],
      ['point.list', { machine: 'nobody' }, 'MACHINE_UNKNOWN'],
      ['job.show', { job: '01hzzzzzzzzzzzzzzzzzzzzzzz' }, 'JOB_UNKNOWN'],
    ] as const) {
      await assert.rejects(api.call(name as 'vm.show', { params: params as { machine: string } }), { code });
    }
  });

  it('writes every act into the audit log, without secrets', async (t) => {
    const { site, api } = await served(t);
    const { token } = await api.call('site.token', { body: { host: 'bergen.example' } });
    await assert.rejects(api.call('site.pair', { body: { token } }), { code: 'PEER_SELF' });
    const { entries, chain } = await api.call('audit.list');
    assert.deepEqual(chain, { state: 'whole' });
    assert.deepEqual(
      entries.map(({ act, phase, actor }) => `${actor} ${act} ${phase}`),
      [
        'operator:default site.pair failed',
        'operator:default site.pair intent',
        'operator:default site.token done',
        'operator:default site.token intent',
        'site site.start done',
      ],
    );
    assert.ok(!JSON.stringify(entries).includes(token));
    assert.ok(!JSON.stringify(entries).includes(api.token));
    assert.equal((await stat(join(site.dataDirectory, CLIENT_FILES.operatorToken))).mode & 0o777, 0o600);
  });

  it('streams events to whoever holds the token, and ends with the site', async (t) => {
    const { site, api } = await served(t);
    const { host, port } = site.served.apiAddress;
    const ca = await readFile(join(site.dataDirectory, CLIENT_FILES.authority));
    const ended = Promise.withResolvers<string>();
    const begun = Promise.withResolvers<void>();
    const outgoing = request(
      {
        ...{ host, port, ca, path: API_PREFIX + EVENTS_PATH, checkServerIdentity: () => undefined },
        headers: { authorization: `Bearer ${api.token}` },
      },
      (incoming) => {
        let text = '';
        assert.equal(incoming.headers['content-type'], 'text/event-stream');
        incoming.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
          begun.resolve();
        });
        incoming.once('close', () => ended.resolve(text));
        incoming.once('error', () => ended.resolve(text));
      },
    );
    outgoing.on('error', ended.reject);
    outgoing.end();
    await begun.promise;
    site.served.site.events.emit({
      event: 'machine',
      machineId: '01hzzzzzzzzzzzzzzzzzzzzzzz',
      state: 'running',
    });
    await site.close();
    const text = await ended.promise;
    assert.match(text, /^event: machine\ndata: \{"event":"machine",.*"state":"running"\}\n\n/m);
  });

  it('is served by one process; its address is gone with it', async (t) => {
    const { site, api } = await served(t);
    await assert.rejects(site.serve(), { code: 'SITE_LOCKED' });
    const waiting = api.raw({ method: 'GET', path: '/v1/nowhere', token: api.token });
    await waiting;
    await site.close();
    await assert.rejects(stat(join(site.dataDirectory, CLIENT_FILES.apiAddress)), { code: 'ENOENT' });
    const again = await site.serve();
    assert.equal((await again.call('site.show')).name, 'bergen');
  });
});

describe('log', () => {
  it('is one JSON line for each entry, with level, time and fields', () => {
    const lines: string[] = [];
    const log = jsonLog({ level: 'info', destination: { write: (line) => void lines.push(line) } });
    log.with({ machine: 'box' }).warn('alert.raised', { key: 'copy:m' });
    log.error('job.broke', { error: new Error('a bug') });
    const entries = lines.map((line) => JSON.parse(line));
    assert.deepEqual(
      [entries[0].level, entries[0].event, entries[0].machine, entries[0].key],
      [...['warn', 'alert.raised', 'box', 'copy:m']],
    );
    assert.match(entries[0].time, /^\d{4}-\d\d-\d\dT.*Z$/);
    assert.equal(entries[1].error.message, 'a bug');
  });
});
