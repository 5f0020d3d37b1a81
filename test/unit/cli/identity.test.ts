import assert from 'node:assert/strict';
import { it } from 'node:test';
import { asking } from './asking.ts';

const MACHINE = {
  ...{ machineId: '01hzzzzzzzzzzzzzzzzzzzzzzz', name: 'db', epoch: 1, role: 'broken' },
  error: { code: 'X', kind: 'corrupt', retry: 'never', message: 'x', hint: 'x', context: {} },
};

it('S0.28 a machine is renamed and moved with what is named, and nothing else', async (t) => {
  const { ask, site } = await asking(t, MACHINE);
  const renamed = await ask('vm', 'rename', 'db', 'db-old');
  assert.deepEqual([renamed.asked, renamed.sent], ['POST /v1/machines/db/name', { name: 'db-old' }]);
  const moved = await ask('vm', 'move', 'db', '--qmp', '/run/db.qmp', '--agent', 'none');
  assert.deepEqual(
    [moved.asked, moved.sent],
    ['POST /v1/machines/db/place', { qmpPath: '/run/db.qmp', agentPath: null }],
  );
  const disks = await ask('vm', 'move', 'db', '--disk', 'a=/srv/a.qcow2', '--disk', 'b=/srv/b:raw');
  assert.deepEqual(disks.sent, {
    disks: [
      { diskId: 'a', path: '/srv/a.qcow2', format: 'qcow2' },
      { diskId: 'b', path: '/srv/b', format: 'raw' },
    ],
  });
  const before = site.asked.length;
  assert.equal((await ask('vm', 'move', 'db')).exitCode, 2);
  assert.equal(site.asked.length, before);
});
