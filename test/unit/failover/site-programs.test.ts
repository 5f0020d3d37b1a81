/** Programs of the operator: which are run at all, with what, and for how long. */
import assert from 'node:assert/strict';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { SitePrograms } from '../../../src/failover/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

async function programs(t: CleanUp, texts: Readonly<Record<string, string>>, ownId = process.getuid!()) {
  const directory = join(await temporaryDirectory(t), 'programs');
  await mkdir(directory, { mode: 0o755 });
  for (const [name, text] of Object.entries(texts)) {
    await writeFile(join(directory, name), `#!/bin/sh\n${text}\n`);
    await chmod(join(directory, name), 0o755);
  }
  return { directory, site: new SitePrograms({ directory, clock: systemClock, ownId }) };
}

describe('programs of a site', () => {
  it('F5 get what they are told and nothing of the process of the site', async (t) => {
    const { site } = await programs(t, {
      tell: 'echo "$1 $WARMSITE_MACHINE"; env | cut -d= -f1 | sort; exit 3',
    });
    process.env.WARMSITE_TEST_SECRET = 'x';
    t.after(() => {
      delete process.env.WARMSITE_TEST_SECRET;
    });
    const environment = { WARMSITE_MACHINE: 'db' };
    const ended = await site.run('tell', { arguments: ['a b;c'], environment, limitMs: 10_000 });
    assert.deepEqual([ended.outcome, ended.exitCode], ['ended', 3]);
    assert.deepEqual(
      ended.output
        .trim()
        .split('\n')
        .filter((line) => !['_', 'SHLVL', 'PWD', 'OLDPWD'].includes(line)),
      ['a b;c db', 'LANG', 'PATH', 'WARMSITE_MACHINE'],
    );
  });

  it('F5 are killed with what they have started when their time is up, and print no more than is kept', async (t) => {
    const { site } = await programs(t, {
      hang: 'echo begun; sleep 1000 & wait',
      flood: 'head -c 1000000 /dev/zero | tr "\\0" x',
    });
    const late = await site.run('hang', { environment: {}, limitMs: 300 });
    assert.deepEqual([late.outcome, late.output.trim()], ['out-of-time', 'begun']);
    const { output } = await site.run('flood', { environment: {}, limitMs: 10_000 });
    assert.ok(output.length < 5000 && output.endsWith('[cut off]'), `${output.length}`);
    const cancel = new AbortController();
    const cancelled = site.run('hang', { environment: {}, limitMs: 60_000, signal: cancel.signal });
    cancel.abort(new Error('never mind'));
    await assert.rejects(cancelled, /never mind/);
  });

  it('S0.17 F5 whoever cancels one hears that it was cancelled, before it begins and while it runs', async (t) => {
    const { site } = await programs(t, { hang: 'sleep 1000' });
    const run = (signal: AbortSignal) => site.run('hang', { environment: {}, limitMs: 60_000, signal });
    await assert.rejects(run(AbortSignal.abort()), { code: 'CANCELLED' });
    const cancel = new AbortController();
    const cancelled = run(cancel.signal);
    await sleep(systemClock, 100);
    cancel.abort();
    await assert.rejects(cancelled, { code: 'CANCELLED' });
  });

  it('F5 are files of the operator alone', async (t) => {
    const { directory, site } = await programs(t, { good: 'true', open: 'true', plain: 'true' });
    await chmod(join(directory, 'open'), 0o775);
    await chmod(join(directory, 'plain'), 0o644);
    await symlink(join(directory, 'good'), join(directory, 'link'));
    await mkdir(join(directory, 'folder'));
    assert.equal(await site.find('good'), join(directory, 'good'));
    const codeOf = async (name: string) => {
      try {
        return await site.find(name);
      } catch (error) {
        assert.ok(isFailure(error));
        return error.code;
      }
    };
    for (const name of ['open', 'plain', 'link', 'folder']) {
      assert.equal(await codeOf(name), 'FAILOVER_PROGRAM_UNSAFE', name);
    }
    for (const name of ['none', '../programs/good', '', '.', 'good\n']) {
      assert.equal(await codeOf(name), 'FAILOVER_PROGRAM_UNKNOWN', name);
    }
    await chmod(directory, 0o777);
    assert.match((await site.lackOf('good'))!, /others than its owner may write to its directory/);
  });
});
