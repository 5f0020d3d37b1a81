import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { GenerationView } from '../../../src/api/index.ts';
import { asking } from './asking.ts';

const FORMER: GenerationView = {
  ...{ generation: 'replica.1', kind: 'replica', epoch: 1, directory: '/data/replicas/x' },
  ...{
    sizeBytes: 3 * 2 ** 20,
    newestAtMs: Date.UTC(2026, 0, 2, 3),
    branches: ['01jd0c2r5m6v7x8y9z0a1b2c3d'],
  },
  needs: [
    { by: 'machine', path: '/data/protected/x.2/disks/disk0/a.qcow2' },
    { by: 'machine', path: '/data/protected/x.2/disks/disk0/b.qcow2' },
  ],
};

it('F4 older generations are listed with what lies upon them, and removed by name on a person’s word', async (t) => {
  const { ask } = await asking(t, [
    FORMER,
    { ...FORMER, generation: 'machine.2', needs: [], unclear: 'torn' },
  ]);
  const { output, asked } = await ask('generation', 'list', 'web');
  assert.equal(asked, 'GET /v1/machines/web/generations');
  assert.match(output, /replica\.1 +3(\.0)? MiB +2026-01-02.* 1 +machine +\/data\/replicas\/x/);
  assert.match(output, /machine\.2 .*not known: torn/);
  const unsure = await ask('generation', 'remove', 'web', 'replica.1');
  assert.notEqual(unsure.exitCode, 0);
  assert.equal(unsure.asked, asked, 'nothing was asked of the site');
});

it('F4 an older generation is removed by its epoch as well', async (t) => {
  const { ask } = await asking(t, { done: true });
  const removed = await ask('generation', 'remove', 'web', '2', '--discard-writes');
  assert.deepEqual(
    [removed.exitCode, removed.asked],
    [0, 'DELETE /v1/machines/web/generations/2'],
    removed.output,
  );
});
