/** Triggers of a machine that was removed while it could not be read which there are. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { TriggerActs } from '../../../src/control/acts/trigger-acts.ts';
import { Inventory } from '../../../src/control/inventory/inventory.ts';
import { TriggerTokens } from '../../../src/control/machines/trigger-tokens.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { type Failure, libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

interface Broken {
  readonly machineId: string;
  readonly error: Failure;
}

/** A site that has a trigger for a machine at home, one for a replica, and one for a machine of which it has nothing. */
async function triggered(t: CleanUp) {
  const dataDirectory = await temporaryDirectory(t);
  const alerts = { raise: () => undefined, clear: () => undefined };
  const tools = { files: nodeFiles, clock: systemClock, random: systemRandom, dataDirectory, alerts };
  const tokens = await TriggerTokens.open(tools);
  for (const machineId of ['home', 'replica', 'gone']) await tokens.create({ machineId, copyType: 'app' });
  const broken: { machines: Broken[]; replicas: Broken[] } = { machines: [], replicas: [] };
  /** As the next process begins; the triggers that are left. */
  const started = async (o: { readonly isAuditFull?: boolean } = {}) => {
    const next = await TriggerTokens.open(tools);
    const machine = { record: { machineId: 'home', name: 'home' } };
    const replica = { record: { machineId: 'replica', machineName: 'replica' } };
    const machines = { list: () => [{ machine }], get: () => undefined, broken: broken.machines };
    const replicas = { list: () => [replica], get: () => undefined, broken: broken.replicas };
    const revoked: unknown[] = [];
    const acts = new TriggerActs({
      ...{ tokens: next, machines, inventory: new Inventory({ machines, replicas } as never) },
      log: silentLog,
      audit: {
        acting: (act: { readonly actor: string; readonly subject: string }, work: () => unknown) => {
          if (o.isAuditFull) throw libFailure('DISK_FULL', 'there is no room');
          revoked.push([act.actor, act.subject]);
          return work();
        },
      },
    } as unknown as ConstructorParameters<typeof TriggerActs>[0]);
    await acts.dropGone();
    return { left: next.isUnread ? undefined : next.list.map(({ machineId }) => machineId), revoked };
  };
  return { started, broken, path: join(dataDirectory, 'triggers.json') };
}

const ALL = ['home', 'replica', 'gone'];

it('S0.8 F5 triggers of a machine that went while they could not be read go when the site starts and can read them', async (t) => {
  const { started, path } = await triggered(t);
  const sound = await readFile(path);
  await writeFile(path, '{');
  assert.deepEqual(await started(), { left: undefined, revoked: [] });
  await writeFile(path, sound);
  assert.deepEqual(await started(), { left: ['home', 'replica'], revoked: [['site', 'gone']] });
  assert.deepEqual(await started(), { left: ['home', 'replica'], revoked: [] });
});

it('S0.8 F5 none goes while something of the site cannot be opened, and a full disk keeps no site from starting', async (t) => {
  const { started, broken } = await triggered(t);
  const error = libFailure('FILE_UNREADABLE', 'it cannot be read');
  for (const kind of ['machines', 'replicas'] as const) {
    for (const machineId of ['gone', 'another']) {
      broken[kind] = [{ machineId, error }];
      assert.deepEqual((await started()).left, ALL);
    }
    broken[kind] = [];
  }
  assert.deepEqual((await started({ isAuditFull: true })).left, ALL);
  assert.deepEqual((await started()).left, ['home', 'replica']);
});
