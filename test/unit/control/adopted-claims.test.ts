/** A machine that was adopted, and the replica that it lies upon, know the same claims. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { passOnClaims } from '../../../src/control/acts/adoptions.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';

const HIGHER = { epoch: 3, siteId: 'home' };

function replica(machineId: string, adopted?: string): Pick<Replica, 'record'> {
  const tenure = { state: 'fenced', claim: HIGHER } as const;
  const record = { machineId, machineName: machineId, sourceSiteId: 'home', epoch: 3, tenure, adopted };
  return { record } as unknown as Pick<Replica, 'record'>;
}

test('F4 S0.17 what the replica heard while its machine was being adopted the machine hears when the site opens, and no other does', async () => {
  const heard: [string, Claim][] = [];
  const alerts = new Set<string>();
  let isFull = false;
  const machines = {
    get: (machineId: string) => ({
      machine: {
        right: {
          hear: async (claim: Claim) => {
            if (isFull) throw libFailure('DISK_FULL', 'the disk is full');
            heard.push([machineId, claim]);
          },
        },
      } as never,
    }),
  };
  const tools = {
    ...{ siteId: 'away', machines, log: silentLog },
    alerts: { raise: (key: string) => void alerts.add(key), clear: (key: string) => void alerts.delete(key) },
  };
  await passOnClaims(tools, [replica('db', 'branch'), replica('web')]);
  assert.deepEqual(heard, [['db', HIGHER]]);
  isFull = true;
  await passOnClaims(tools, [replica('db', 'branch')]);
  assert.deepEqual([...alerts], ['adopted-claim:db']);
});
