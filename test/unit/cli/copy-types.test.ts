import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { CopyTypeShape, MachineView, PolicyRequest } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { BUILT_IN_TYPES } from '../../../src/recovery-point/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';
import { fakeSite } from './fake-site.ts';
import { run } from './fake-world.ts';

const ID = newId(systemClock, systemRandom);

/** A site with one protected machine, that takes whatever copy types it is given. */
async function siteWithMachine(t: TestContext) {
  const types: CopyTypeShape[] = [];
  const { dataDirectory, asked } = await fakeSite(t, ({ method, body }) => {
    if (method === 'PATCH') types.splice(0, types.length, ...(JSON.parse(body) as PolicyRequest).copyTypes!);
    return { body: machineWith(types) };
  });
  return {
    types,
    asked,
    vm: (...args: string[]) => run(['--data', dataDirectory, 'vm', 'copy-type', ...args]),
  };
}

function machineWith(types: readonly CopyTypeShape[]): MachineView {
  return {
    ...{ machineId: ID, name: 'erp', epoch: 1, role: 'protected' },
    protected: {
      ...{
        kind: 'managed',
        presence: { state: 'stopped' },
        qmpPath: '/run/qmp',
        disks: [],
        replication: null,
      },
      protection: {
        ...{
          targetSiteId: ID,
          targets: [],
          schedules: [],
          blackouts: [],
          limitWindows: [],
          freezeLimitMs: 5000,
        },
        ...{ retention: { types: { crash: 1 } }, compression: true },
        copyTypes: [
          ...BUILT_IN_TYPES.map((type) => ({ ...type, isBuiltIn: true })),
          ...types.map((type) => ({ ...type, isBuiltIn: false })),
        ],
      },
    },
  };
}

describe('command line: copy types', { timeout: 60_000 }, () => {
  it('S0.4 defines, lists and removes types; those there are stay', async (t) => {
    const { types, asked, vm } = await siteWithMachine(t);
    assert.equal((await vm('add', 'erp', 'nightly', '--description', 'by night')).exitCode, 0);
    assert.equal((await vm('add', 'erp', 'quick', '--aim', 'crash')).exitCode, 0);
    assert.deepEqual(types, [
      { name: 'nightly', aim: 'application', description: 'by night' },
      { name: 'quick', aim: 'crash' },
    ]);
    const { output } = await vm('list', 'erp');
    assert.match(output, /^app +application +for every machine/m);
    assert.match(output, /^nightly +application +here +by night$/m);
    assert.equal((await vm('remove', 'erp', 'nightly')).exitCode, 0);
    assert.deepEqual(types, [{ name: 'quick', aim: 'crash' }]);
    assert.equal(asked.at(-1)?.path, '/v1/machines/erp/protection');
  });

  it('S0.6 hooks are given as programs with their arguments, or all of a type in a file', async (t) => {
    const { types, vm } = await siteWithMachine(t);
    const hooks = [
      '--before',
      '/bin/sh -c \'sync; echo "done"\'',
      '--on-failure',
      '/bin/alarm ""',
      '--limit',
      '5s',
    ];
    assert.equal((await vm('add', 'erp', 'quiet', '--aim', 'crash', ...hooks)).exitCode, 0);
    const program = (command: string, ...rest: string[]) => ({ command, arguments: rest, limitMs: 5000 });
    assert.deepEqual(types[0]!.hooks, {
      before: program('/bin/sh', '-c', 'sync; echo "done"'),
      onFailure: program('/bin/alarm', ''),
    });
    assert.match((await vm('list', 'erp')).output, /before: \/bin\/sh, onFailure: \/bin\/alarm/);
    for (const wrong of ['', "'open", '  ']) {
      assert.equal((await vm('add', 'erp', 'more', '--before', wrong)).exitCode, 2);
    }

    assert.equal(
      (await vm('add', 'erp', 'checked', '--assert', 'rows=/bin/count "a b"', '--limit', '5s')).exitCode,
      0,
    );
    assert.deepEqual(types.pop()!.assertions, [{ name: 'rows', ...program('/bin/count', 'a b') }]);
    assert.equal((await vm('add', 'erp', 'more', '--assert', '/bin/count')).exitCode, 2);

    const path = join(await temporaryDirectory(t), 'type.json');
    const described = { aim: 'application', hooks: { after: { ...program('/bin/cat'), input: 'a\nb' } } };
    await writeFile(path, JSON.stringify(described));
    assert.equal((await vm('add', 'erp', 'filed', '--from', path)).exitCode, 0);
    assert.deepEqual(types[1], { name: 'filed', ...described });
    await writeFile(path, JSON.stringify({ ...described, hoks: {} }));
    const refused = await vm('add', 'erp', 'other', '--from', path);
    assert.equal(refused.exitCode, 2);
    assert.match(refused.messages, /does not describe a copy type/);
    assert.equal(types.length, 2);
  });

  it('S0.4 redefines a type only when told to, and removes none that is not there', async (t) => {
    const { types, vm } = await siteWithMachine(t);
    await vm('add', 'erp', 'nightly');
    for (const wrong of [
      ['add', 'erp', 'nightly', '--aim', 'crash'],
      ['add', 'erp', 'Nightly'],
      ['remove', 'erp', 'app'],
      ['remove', 'erp', 'weekly'],
    ]) {
      assert.equal((await vm(...wrong)).exitCode, 2, wrong.join(' '));
    }
    assert.deepEqual(types, [{ name: 'nightly', aim: 'application' }]);
    await vm('add', 'erp', 'nightly', '--aim', 'crash', '--replace');
    assert.deepEqual(types, [{ name: 'nightly', aim: 'crash' }]);
  });
});
