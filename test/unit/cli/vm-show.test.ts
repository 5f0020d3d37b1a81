import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { MachineView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const ID = newId(systemClock, systemRandom);
const MIB = 1024 * 1024;

const MACHINE: MachineView = {
  ...{ machineId: ID, name: 'erp', epoch: 1, role: 'protected' },
  protected: {
    ...{ kind: 'managed', presence: { state: 'running' }, qmpPath: '/run/qmp', disks: [] },
    protection: {
      ...{ targetSiteId: ID, targets: [], copyTypes: [], blackouts: [], limitWindows: [] },
      ...{ freezeLimitMs: 5000, retention: { types: { crash: 1 } }, compression: true },
      schedules: [{ copyType: 'crash', triggers: [{ kind: 'written', bytes: 256 * MIB }] }],
    },
    replication: {
      ...{ phase: 'idle', unsentCuts: 0, rpo: {}, targets: [] },
      written: [{ copyType: 'crash', writtenBytes: 96 * MIB, dueBytes: 256 * MIB }],
    },
  },
};

it('S0.8 vm show tells how much has been written of what a copy is due after', async (t) => {
  const { ask } = await asking(t, MACHINE);
  const { exitCode, asked, output } = await ask('vm', 'show', 'erp');
  assert.deepEqual([exitCode, asked], [0, 'GET /v1/machines/erp']);
  assert.match(output, /^ *written: crash +96(\.0)? MiB of 256(\.0)? MiB since the last copy$/m);
});

it('S0.17 vm show and vm list tell of a machine that another site holds, or is offered', async (t) => {
  const atHome = MACHINE.protected!;
  for (const [how, line, word] of [
    ['fenced', /^held by +beta, in epoch 2$/m, 'fenced'],
    ['handed-over', /^held by +beta, in epoch 2$/m, 'handed over'],
    ['offered', /^offered to +beta, in epoch 2$/m, 'offered'],
  ] as const) {
    const heldBy = { siteId: ID, name: 'beta', epoch: 2, how };
    const elsewhere = {
      ...MACHINE,
      protected: { ...atHome, presence: { state: 'stopped' as const }, heldBy },
    };
    const shown = await (await asking(t, elsewhere)).ask('vm', 'show', 'erp');
    assert.match(shown.output, line);
    const listed = await (await asking(t, [elsewhere])).ask('vm', 'list');
    assert.match(listed.output, new RegExp(`^erp +protected +stopped, ${word} `, 'm'));
  }
});
