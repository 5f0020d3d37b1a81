import assert from 'node:assert/strict';
import { it } from 'node:test';
import { IdentityWatch, refuseSecondUuid } from '../../../src/control/machines/machine-identity.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { MachineRecord } from '../../../src/replication/index.ts';
import { failure } from './fake-machine.ts';

const [ONE, TWO] = ['6f1f2c3e-0d2a-4b5e-8f7a-0123456789ab', '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ac'];
const NONE = '00000000-0000-0000-0000-000000000000';

function recordOf(name: string, uuid: string): MachineRecord {
  return { machineId: `id-${name}`, name, configuration: { uuid } } as unknown as MachineRecord;
}

it('S0.28 a second machine with the UUID of another one is refused; machines that were given none are not', () => {
  const here = [recordOf('web', ONE), recordOf('db', TWO), recordOf('old', NONE)];
  assert.throws(() => refuseSecondUuid(recordOf('clone', TWO), here), {
    code: 'MACHINE_UUID_TAKEN',
    context: { uuid: TWO, machineId: 'id-db', name: 'db' },
  });
  refuseSecondUuid(recordOf('new', '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ad'), here);
  refuseSecondUuid(recordOf('other', NONE), here);
});

it('S0.28 two machines that run under one UUID are told, as long as both run; so is one that runs under another UUID', async () => {
  const alerts = new Map<string, string>();
  const watch = new IdentityWatch({
    log: silentLog,
    alerts: {
      raise: (key, severity, raised) => void alerts.set(key, `${severity} ${raised.code}`),
      clear: (key) => void alerts.delete(key),
    },
  });
  const runs = (name: string, added: string, uuid: string) =>
    watch.look({ record: recordOf(name, added), running: { identity: async () => ({ uuid }) } });
  await runs('web', ONE, ONE);
  await runs('old', NONE, NONE);
  await runs('older', NONE, NONE);
  assert.deepEqual([...alerts], []);

  await runs('db', TWO, ONE);
  assert.deepEqual(Object.fromEntries(alerts), {
    'uuid-changed:id-db': 'warning MACHINE_UUID_CHANGED',
    'uuid-twice:id-web': 'critical MACHINE_UUID_TWICE',
    'uuid-twice:id-db': 'critical MACHINE_UUID_TWICE',
  });
  await watch.look({ record: recordOf('db', TWO), running: undefined });
  assert.deepEqual([...alerts.keys()], ['uuid-changed:id-db']);
  await runs('db', TWO, TWO);
  assert.deepEqual([...alerts], []);

  const gone = () => Promise.reject(failure('QMP_DISCONNECTED', 'later'));
  await watch.look({ record: recordOf('db', TWO), running: { identity: gone } });
  assert.deepEqual([...alerts], []);
});
