import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { BranchView, ErrorAnswer, JobView, PeerView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { type FailureKind, type FailureRecord, KIND_TABLE, libFailure } from '../../../src/lib/errors.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { WARMSITE_VERSION } from '../../../src/lib/records.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { type Answer, type Asked, failed, fakeSite } from './fake-site.ts';
import { type Ran, run } from './fake-world.ts';

const ID = newId(systemClock, systemRandom);
const ESCAPE = '\x1b';

function errorIn({ output }: Ran): FailureRecord {
  const document = JSON.parse(output) as { error: FailureRecord };
  assert.deepEqual(Object.keys(document), ['error']);
  return document.error;
}

function job(change: Partial<JobView> = {}): JobView {
  return {
    jobId: ID,
    kind: 'point.verify',
    state: 'running',
    machineId: ID,
    args: {},
    actor: 'operator:default',
    createdAtMs: systemClock.wallMs(),
    progress: {},
    ...change,
  };
}

function peer(name: string): PeerView {
  return {
    siteId: ID,
    name,
    address: { host: '192.0.2.7', port: 7443 },
    pairedAtMs: systemClock.wallMs(),
    presence: 'reachable',
    lastSeenAtMs: systemClock.wallMs(),
  };
}

describe('command line: failures', { timeout: 60_000 }, () => {
  it('every kind of failure has its exit code, says what failed, its code and what to do next', async (t) => {
    const exitCodes: Record<FailureKind, number> = {
      input: 2,
      missing: 3,
      refused: 4,
      unavailable: 5,
      timeout: 6,
      corrupt: 7,
      environment: 8,
      protocol: 9,
      unauthorized: 10,
      cancelled: 130,
    };
    let answer: Answer = failed(500, {});
    const { dataDirectory } = await fakeSite(t, () => answer);
    for (const [kind, exitCode] of Object.entries(exitCodes) as [FailureKind, number][]) {
      const code = `OF_KIND_${kind.toUpperCase()}`;
      answer = failed(KIND_TABLE[kind].httpStatus, { kind, code, message: 'it failed', hint: 'Do this.' });
      const human = await run(['--data', dataDirectory, 'vm', 'list']);
      assert.deepEqual(human, { exitCode, output: '', messages: `it failed\n${code}: Do this.\n` });
      const json = await run(['--data', dataDirectory, 'vm', 'list', '--json']);
      assert.equal(json.exitCode, exitCode);
      assert.equal(json.messages, '');
      assert.deepEqual(errorIn(json), {
        code,
        kind,
        retry: 'never',
        message: 'it failed',
        hint: 'Do this.',
        context: {},
      });
    }
  });

  it('wrong usage is a failure like any other, and nothing is asked of the site', async (t) => {
    const site = await fakeSite(t, () => ({ body: [] }));
    const data = ['--data', site.dataDirectory];
    const wrong: [string[], string, RegExp][] = [
      [[], 'CLI_USAGE', /a command is missing/],
      [['vm'], 'CLI_USAGE', /a command is missing/],
      [['vm', 'lst'], 'CLI_USAGE', /unknown command 'lst'.*list/],
      [['vm', 'show'], 'CLI_USAGE', /missing required argument 'vm'/],
      [['vm', 'list', '--fast'], 'CLI_USAGE', /unknown option '--fast'/],
      [['vm', 'list', 'extra'], 'CLI_USAGE', /too many arguments/],
      [['vm', 'add', '--name', 'web'], 'CLI_USAGE', /--memory and --disk/],
      [
        ['vm', 'add', '--name', 'a', '--memory', '1G', '--disk', 'a=/a.raw', '--firmware', 'uefi'],
        'CLI_USAGE',
        /--firmware uefi needs --firmware-variables/,
      ],
      [['vm', 'add', '--boot', 'a,a'], 'CLI_VALUE_INVALID', /--boot/],
      [['vm', 'add', '--cd', 'A=/x.iso'], 'CLI_VALUE_INVALID', /--cd/],
      [['vm', 'policy', 'web', '--rate', '100'], 'CLI_VALUE_INVALID', /--rate: «100» is not a rate/],
      [
        ['point', 'create', 'web', '--type', 'Full'],
        'CLI_VALUE_INVALID',
        /--type: .* a name of small letters/,
      ],
      [['site', 'token', '--lifetime', '5'], 'CLI_VALUE_INVALID', /--lifetime/],
      [['vm', 'add', '--from', '/nowhere.json'], 'CLI_FILE_INVALID', /there is no file \/nowhere\.json/],
    ];
    for (const [args, code, message] of wrong) {
      const ran = await run([...data, ...args, '--json']);
      assert.equal(ran.exitCode, 2, args.join(' '));
      const error = errorIn(ran);
      assert.equal(error.code, code, args.join(' '));
      assert.match(error.message, message);
      assert.notEqual(error.hint, '');
    }
    assert.deepEqual(site.asked, []);
  });

  it('a mistake of ours is told with its stack and the words to report it, not as one of the site', async () => {
    const ran = await run(['site', 'kit', '--to', '/nowhere/at/all.kit']);
    assert.equal(ran.exitCode, 8);
    assert.match(ran.messages, /^Error: this command does not touch the site.*\n {4}at /);
    assert.match(ran.messages, /CLI_BUG: .*report/);
  });

  it('the data directory is that of --data, else WARMSITE_DATA, else the usual one', async (t) => {
    const named = await fakeSite(t, () => ({ body: [] }));
    const environment = { WARMSITE_DATA: '/nowhere/else' };
    assert.equal((await run(['--data', named.dataDirectory, 'vm', 'list'], { environment })).exitCode, 0);
    const missing = errorIn(await run(['--json', 'vm', 'list'], { environment }));
    assert.deepEqual(
      [missing.code, missing.context],
      ['CLI_SITE_MISSING', { dataDirectory: '/nowhere/else' }],
    );
    const relative = await run(['--json', '--data', 'site', 'vm', 'list'], { workingDirectory: '/nowhere' });
    assert.equal(errorIn(relative).context.dataDirectory, '/nowhere/site');
  });
});

describe('command line: output', { timeout: 60_000 }, () => {
  const evil = `web${ESCAPE}[2J${ESCAPE}]0;title\x07\n\u202eevil`;

  it('what others have named reaches a terminal as text, in answers and in failures', async (t) => {
    let answer: Answer = { body: [peer(evil)] };
    const { dataDirectory } = await fakeSite(t, () => answer);
    const terminal = { terminal: true, environment: { NO_COLOR: '1' } };
    const shown = await run(['--data', dataDirectory, 'site', 'peers'], terminal);
    assert.equal(shown.exitCode, 0);
    assert.ok(shown.output.includes('web\\x1b[2J\\x1b]0;title\\x07\\x0a\\u{202e}evil'), shown.output);
    assert.equal(shown.output.split('\n').length, 3, 'a head, a row, and the end');
    assert.ok(!shown.output.includes(ESCAPE));
    answer = failed(404, { kind: 'missing', message: `no ${evil}`, hint: `Not ${evil}.` });
    const refused = await run(['--data', dataDirectory, 'site', 'peers'], terminal);
    assert.equal(refused.exitCode, 3);
    assert.ok(!/[^\P{Cc}\n]|\u202e/u.test(refused.messages), JSON.stringify(refused.messages));
    assert.equal(refused.messages.split('\n').length, 3);
  });

  it('a program gets the names as they are, in one document', async (t) => {
    const { dataDirectory } = await fakeSite(t, () => ({ body: [peer(evil)] }));
    const { output, messages, exitCode } = await run(['--data', dataDirectory, 'site', 'peers', '--json']);
    assert.deepEqual([exitCode, messages], [0, '']);
    assert.equal(JSON.parse(output)[0].name, evil);
    assert.ok(!output.includes(ESCAPE), 'JSON escapes control characters by itself');
  });

  it('colours are for terminals whose owner wants them', async (t) => {
    const { dataDirectory } = await fakeSite(t, () => ({ body: [peer('south')] }));
    const args = ['--data', dataDirectory, 'site', 'peers'];
    const isColoured = async (o: Parameters<typeof run>[1]) => (await run(args, o)).output.includes(ESCAPE);
    assert.equal(await isColoured({ terminal: true }), true);
    assert.equal(await isColoured({ terminal: true, environment: { NO_COLOR: '' } }), true);
    assert.equal(await isColoured({ terminal: true, environment: { NO_COLOR: '0' } }), false);
    assert.equal(await isColoured({ terminal: true, environment: { TERM: 'dumb' } }), false);
    assert.equal(await isColoured({ terminal: false }), false);
  });

  it('version and help are for everybody, and every command has examples', async () => {
    assert.deepEqual(await run(['--version']), {
      exitCode: 0,
      output: `${WARMSITE_VERSION}\n`,
      messages: '',
    });
    assert.deepEqual(JSON.parse((await run(['--version', '--json'])).output), { version: WARMSITE_VERSION });
    const commandsIn = (help: string) =>
      [...(/\nCommands:\n(.*?)(?:\n\n|$)/s.exec(help)?.[1] ?? '').matchAll(/^ {2}([a-z-]+)/gm)]
        .map(([, name]) => name!)
        .filter((name) => name !== 'help');
    const walk = async (path: readonly string[]): Promise<number> => {
      const { exitCode, output, messages } = await run([...path, '--help']);
      assert.deepEqual([exitCode, messages], [0, ''], path.join(' '));
      const commands = commandsIn(output);
      if (commands.length === 0) assert.match(output, /\nExamples:\n {2}warmsite /, path.join(' '));
      let count = 1;
      for (const command of commands) count += await walk([...path, command]);
      return count;
    };
    assert.ok((await walk([])) > 35, 'the walk has seen the commands');
  });
});

describe('command line: long work', { timeout: 60_000 }, () => {
  const verify = (dataDirectory: string) => ['--data', dataDirectory, 'point', 'verify', 'web'];

  function answering(states: readonly Partial<JobView>[]): (asked: Asked) => Answer {
    let next = 0;
    return ({ method }) => ({
      body: method === 'POST' ? job() : job(states[Math.min(next++, states.length - 1)]),
    });
  }

  it('is followed to its end, with lines in a log and a bar on a terminal', async (t) => {
    const steps = [
      { progress: { step: 'reading', bytesDone: 512, bytesTotal: 1024 } },
      { progress: { step: 'comparing' } },
      { state: 'done' },
    ] as const;
    const plain = await fakeSite(t, answering(steps));
    const ran = await run(verify(plain.dataDirectory));
    assert.equal(ran.exitCode, 0);
    assert.equal(ran.messages, 'point.verify\nreading  512 B of 1 KiB\ncomparing\n');
    assert.match(ran.output, /^Verified: every block of point latest/);
    const bar = await fakeSite(t, answering(steps));
    const { messages } = await run(verify(bar.dataDirectory), { terminal: true });
    assert.match(messages, /comparing/);
    assert.ok(messages.endsWith(`${ESCAPE}[2K`), 'the bar is gone at the end');
    const quiet = await fakeSite(t, answering(steps));
    const json = await run([...verify(quiet.dataDirectory), '--json']);
    assert.deepEqual([json.messages, JSON.parse(json.output).state], ['', 'done']);
  });

  it('that fails gives its failure; that was cancelled gives exit code 1', async (t) => {
    const { error } = failed(500, { kind: 'corrupt', code: 'BLOCK_DAMAGED' }).body as ErrorAnswer;
    const failing = await fakeSite(t, answering([{ state: 'failed', failure: error }]));
    const ran = await run(verify(failing.dataDirectory));
    assert.equal(ran.exitCode, 7);
    assert.match(ran.messages, /BLOCK_DAMAGED: /);
    const cancelled = await fakeSite(t, answering([{ state: 'cancelled' }]));
    assert.equal((await run(verify(cancelled.dataDirectory))).exitCode, 1);
  });

  it('is not waited for with --no-wait', async (t) => {
    const site = await fakeSite(t, answering([]));
    const ran = await run([...verify(site.dataDirectory), '--no-wait']);
    assert.equal(ran.exitCode, 0);
    assert.match(ran.output, new RegExp(`warmsite job show ${ID}`));
    assert.equal(site.asked.length, 1);
  });

  it('goes on after an interrupt, and the person is told how to look again', async (t) => {
    let interrupt: () => void = () => undefined;
    const site = await fakeSite(t, ({ method }) => {
      if (method === 'POST') return { body: job() };
      interrupt();
      return new Promise<Answer>(() => undefined);
    });
    const ran = await run(verify(site.dataDirectory), { interrupted: (given) => (interrupt = given) });
    assert.equal(ran.exitCode, 130);
    assert.match(ran.messages, new RegExp(`CLI_WATCH_ENDED: .*warmsite job show ${ID} --wait`));
    assert.ok(!site.asked.some(({ path }) => path.endsWith('/cancel')));
  });
});

describe('command line: what cannot be taken back', { timeout: 60_000 }, () => {
  it('the writes of a failover are discarded on the word of a person only', async (t) => {
    const branch: BranchView = {
      branchId: ID,
      machineId: ID,
      pointId: ID,
      purpose: 'failover',
      createdAtMs: systemClock.wallMs(),
      state: 'started',
      running: true,
      ...{ ownBytes: 0, limits: {}, paused: false, adopted: false },
    };
    const site = await fakeSite(t, ({ method, path }) => {
      if (path.endsWith('/branches')) return { body: [branch] };
      return { body: job({ kind: 'failover.cleanup', state: method === 'DELETE' ? 'queued' : 'done' }) };
    });
    const removals = () => site.asked.filter(({ method }) => method === 'DELETE').length;
    const args = ['--data', site.dataDirectory, 'failover', 'cleanup', 'web', ID];
    for (const world of [{}, { answer: '' }, { answer: 'yes' }]) {
      const ran = await run(args, world);
      assert.equal(ran.exitCode, 2);
      assert.match(ran.messages, /CLI_CONFIRMATION_MISSING/);
    }
    const json = await run([...args, '--json'], { answer: 'discard' });
    assert.equal(errorIn(json).code, 'CLI_CONFIRMATION_MISSING', 'a program is not asked');
    assert.equal(removals(), 0);
    assert.equal((await run(args, { answer: 'discard' })).exitCode, 0);
    assert.equal((await run([...args, '--discard-writes'])).exitCode, 0);
    assert.equal(removals(), 2);
  });

  it('the points of a replica are discarded on the word of a person only', async (t) => {
    const site = await fakeSite(t, () => ({ body: { done: true } }));
    const args = ['--data', site.dataDirectory, 'replica', 'remove', 'web'];
    for (const world of [{}, { answer: 'yes' }]) {
      const ran = await run(args, world);
      assert.equal(ran.exitCode, 2);
      assert.match(ran.messages, /CLI_CONFIRMATION_MISSING/);
    }
    assert.deepEqual(site.asked, []);
    assert.equal((await run(args, { answer: 'web' })).exitCode, 0);
    assert.equal((await run([...args, '--discard-points'])).exitCode, 0);
    assert.deepEqual(
      site.asked.map(({ method, path }) => [method, path]),
      Array.from({ length: 2 }, () => ['DELETE', '/v1/machines/web/replica']),
    );
  });

  it('S0.27 a seed is exported and imported by paths of this host', async (t) => {
    const results: Record<string, unknown> = {
      'seed.export': { path: '/media/usb/web-1.wsseed', bytes: 3_000_000_000 },
      'seed.import': { kind: 'imported', sequence: 4 },
    };
    const site = await fakeSite(t, ({ method, path }) => {
      const kind = path.endsWith('/seeds') && path.includes('/machines/') ? 'seed.export' : 'seed.import';
      return {
        body: job({ kind, state: 'done', result: results[kind] }),
        status: method === 'POST' ? 200 : 404,
      };
    });
    const world = { workingDirectory: '/media' };
    const exported = await run(['--data', site.dataDirectory, 'seed', 'export', 'web', 'usb'], world);
    assert.equal(exported.exitCode, 0, exported.messages);
    assert.match(exported.output, /\/media\/usb\/web-1\.wsseed \(/);
    const imported = await run(['--data', site.dataDirectory, 'seed', 'import', '/media/usb'], world);
    assert.match(imported.output, /Imported as point 4/);
    assert.deepEqual(
      site.asked.map(({ method, path, body }) => [method, path, JSON.parse(body)]),
      [
        ['POST', '/v1/machines/web/seeds', { path: '/media/usb' }],
        ['POST', '/v1/seeds', { path: '/media/usb' }],
      ],
    );
  });

  it('S0.27 an older copy is offered by paths of this host, listed with what became of it, and withdrawn', async (t) => {
    const disk = { diskId: 'disk0', path: '/backup/web.qcow2', format: 'qcow2' };
    const offer = { machine: 'web', siteId: 's', siteName: 'north', offeredAtMs: 0, disks: [disk] };
    const listed = [{ ...offer, disks: [{ ...disk, unfit: 'it was written at 0 while it was read' }] }];
    const site = await fakeSite(t, ({ method }) => ({ body: method === 'GET' ? listed : offer }));
    const seed = (...words: string[]) =>
      run(['--data', site.dataDirectory, 'seed', ...words], { workingDirectory: '/backup' });
    const offered = await seed('offer', 'web', '--disk', 'disk0=web.qcow2', '--from', 'north');
    assert.equal(offered.exitCode, 0, offered.messages);
    assert.match(offered.output, /first copy of web from north/);
    assert.match((await seed('offers')).output, /web\.qcow2 .*not used, it was written/);
    assert.equal((await seed('offer', 'web', '--withdraw')).exitCode, 0);
    for (const words of [[], ['--withdraw', '--disk', 'disk0=web.raw'], ['--disk', 'disk0=web']])
      assert.equal((await seed('offer', 'web', ...words)).exitCode, 2, words.join(' '));
    assert.deepEqual(
      site.asked.map(({ method, path, body }) => [method, path, JSON.parse(body || '{}')]),
      [
        ['POST', '/v1/machines/web/older-copy', { disks: [disk], from: 'north' }],
        ['GET', '/v1/older-copies', {}],
        ['DELETE', '/v1/machines/web/older-copy', {}],
      ],
    );
  });

  it('S0.29 a replica is forwarded, shown with how far the other site is, and its origin confirmed there', async (t) => {
    const target = {
      siteId: 's',
      name: 'vault',
      phase: 'retrying',
      unsentCuts: 3,
      rpo: { actualMs: 60_000 },
    };
    const failure = { ...libFailure('FILE_UNREADABLE', 'the key is not confirmed').toJSON() };
    const kept = { retention: { types: { app: 7 } }, copyTypes: ['app'], compression: true };
    const replica = {
      state: 'standby',
      ...{ sourceSiteId: 'a', sourceName: 'north', viaSiteId: 'b', viaName: 'south', points: 4, branches: 0 },
      ...{ retention: { types: { crash: 8 } }, rpo: {}, forwards: [{ ...target, ...kept, failure }] },
    };
    const machine = { machineId: ID, name: 'web', epoch: 1, role: 'replica', replica };
    const origin = { siteId: ID, name: 'north', keyId: 'ed25519:5f0c', viaSiteId: 'b', toldAtMs: 0 };
    const site = await fakeSite(t, ({ path }) => {
      if (path.startsWith('/v1/origins')) return { body: path.endsWith('s') ? [origin] : origin };
      return { body: path.endsWith('/machines') ? [machine] : machine };
    });
    const said = (...words: string[]) => run(['--data', site.dataDirectory, ...words]);
    const forwarded = await said(
      'replica',
      'forward',
      'web',
      '--to',
      'vault',
      '--points',
      'app',
      '--keep',
      'app:9',
    );
    assert.equal(forwarded.exitCode, 0, forwarded.messages);
    assert.match(forwarded.output, /by way of +south/);
    assert.match(forwarded.output, /vault +retrying .*3 copies +the key is not confirmed/);
    assert.match(forwarded.output, /of the types app alone/);
    await said('replica', 'forward', 'web', '--to', 'vault', '--points', 'all', '--rate', 'unlimited');
    await said('replica', 'forward', 'web', '--to', 'vault', '--stop');
    assert.match(
      (await said('replica', 'list')).output,
      /web +replica +standby +forwarding retrying, lacks 3 copies/,
    );
    assert.equal(
      (await said('replica', 'forward', 'web', '--to', 'vault', '--stop', '--keep', 'app:1')).exitCode,
      2,
    );
    assert.equal((await said('replica', 'forward', 'web')).exitCode, 2);
    assert.match(
      (await said('origin', 'list')).output,
      /north +ed25519:5f0c +not confirmed: nothing is taken +b/,
    );
    await said('origin', 'confirm', ID, 'ed25519:5f0c');
    await said('origin', 'forget', ID);
    assert.deepEqual(
      site.asked
        .filter(({ method }) => method !== 'GET')
        .map(({ method, path, body }) => [method, path, JSON.parse(body || '{}')]),
      [
        [
          ...['POST', '/v1/machines/web/forwards'],
          { to: 'vault', copyTypes: ['app'], retention: { types: { app: 9 } } },
        ],
        ['POST', '/v1/machines/web/forwards', { to: 'vault', copyTypes: null, bytesPerSecond: null }],
        ['DELETE', '/v1/machines/web/forwards/vault', {}],
        ['POST', `/v1/origins/${ID}/confirmation`, { keyId: 'ed25519:5f0c' }],
        ['DELETE', `/v1/origins/${ID}`, {}],
      ],
    );
  });

  it('a branch is booted again with the NICs that are named', async (t) => {
    const site = await fakeSite(t, ({ method }) => ({
      body: job({ kind: 'failover.restart', state: method === 'POST' ? 'queued' : 'done' }),
    }));
    const ran = await run([
      ...['--data', site.dataDirectory, 'failover', 'restart', 'web', ID],
      ...['--connect', 'lan=bridge:br0'],
    ]);
    assert.equal(ran.exitCode, 0, ran.messages);
    const [{ method, path, body }] = [site.asked[0]!];
    assert.deepEqual([method, path], ['POST', `/v1/machines/web/branches/${ID}/start`]);
    assert.deepEqual(JSON.parse(body), { networks: { lan: { kind: 'bridge', bridge: 'br0' } } });
  });

  it('a recovery kit is written for its owner alone and over nothing', async (t) => {
    const workingDirectory = await temporaryDirectory(t);
    let made = 0;
    const host = {
      init: async () => {
        made++;
        return { siteId: ID, kit: 'the kit' };
      },
    };
    const args = ['site', 'init', '--data', '/srv/x', '--name', 'North & Co', '--json'];
    const first = await run(args, { workingDirectory, host });
    const recoveryKit = join(workingDirectory, 'North-Co.kit');
    assert.deepEqual(JSON.parse(first.output), { siteId: ID, dataDirectory: '/srv/x', recoveryKit });
    assert.equal(await readFile(recoveryKit, 'utf8'), 'the kit');
    assert.equal((await stat(recoveryKit)).mode & 0o777, 0o600);
    const second = await run(args, { workingDirectory, host });
    assert.deepEqual([second.exitCode, errorIn(second).code, made], [4, 'CLI_FILE_EXISTS', 1]);
  });

  it('a new site needs a name, and says so before it touches anything', async () => {
    const ran = await run(['site', 'init', '--data', '/srv/x', '--json']);
    assert.deepEqual([ran.exitCode, errorIn(ran).code], [2, 'CLI_USAGE']);
  });

  it('serve ends when it is told to, after the site has closed', async () => {
    let closed = false;
    const address = { host: '::1', port: 7444 };
    const host = {
      serve: async () => ({
        apiAddress: address,
        peerAddress: address,
        close: async () => {
          closed = true;
        },
      }),
    };
    const ran = await run(['serve', '--data', '/srv/x'], { host, interrupted: (interrupt) => interrupt() });
    assert.deepEqual(ran, {
      exitCode: 0,
      output: 'API        https://[::1]:7444\npeer port  [::1]:7444\n',
      messages: '',
    });
    assert.ok(closed);
    const broken = await run(['serve', '--data', '/srv/x'], {
      host: { serve: () => Promise.reject(libFailure('DISK_FULL', 'no space is left')) },
    });
    assert.deepEqual([broken.exitCode, broken.output], [8, '']);
  });
});
