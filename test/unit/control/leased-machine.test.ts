import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MachineActs } from '../../../src/control/acts/machine-acts.ts';
import { TargetActs } from '../../../src/control/acts/target-acts.ts';
import type { Tenure } from '../../../src/recovery-point/index.ts';

const [HOME, RECOVERY, FURTHER, WITNESS] = ['p', 'r', 'x', 'w'].map((letter) => `${'0'.repeat(25)}${letter}`);
const HELD = { state: 'holds', claim: { epoch: 1, siteId: HOME! } } as const;

/** What a person does with a machine that runs by leases, and what comes of it. */
function actsOf(tenure: Tenure = HELD) {
  const done: string[] = [];
  const lease = { recoverySiteId: RECOVERY, witnessSiteId: WITNESS, leaseMs: 10_000 };
  const machine = {
    record: { machineId: 'm', name: 'web', lease: lease as object | undefined, tenure },
    right: { tenure },
  };
  const inventory = { home: () => machine, find: () => ({ machineId: 'm' }), view: () => ({}) };
  const tools = {
    inventory,
    audit: { acting: (_act: unknown, work: () => Promise<unknown>) => work() },
    groups: { of: () => undefined },
    links: { views: () => [] },
    diverged: {
      alone: (_machine: unknown, work: () => Promise<unknown>) => work(),
      checkNothingUpon: async () => undefined,
    },
    machines: {
      get: () => undefined,
      unprotect: async () => void done.push('unprotect'),
      removeTarget: async (_machine: unknown, siteId: string) => void done.push(siteId),
    },
  };
  const machines = new MachineActs(tools as unknown as ConstructorParameters<typeof MachineActs>[0]);
  const targets = new TargetActs(tools as unknown as ConstructorParameters<typeof TargetActs>[0]);
  return { done, machine, machines, targets };
}

test('S0.17 of a machine that runs by leases neither its protection nor the site that lends it is taken away', async () => {
  const { done, machine, machines, targets } = actsOf();
  const leased = { code: 'MACHINE_LEASED' };
  await assert.rejects(machines.unprotect('me', 'web', {}), leased);
  await assert.rejects(machines.unprotect('me', 'web', { keepOrigin: true }), leased);
  await assert.rejects(targets.remove('me', 'web', RECOVERY!), leased);
  await targets.remove('me', 'web', FURTHER!);
  assert.deepEqual(done, [FURTHER]);
  // Its leases are ended first.
  machine.record.lease = undefined;
  await targets.remove('me', 'web', RECOVERY!);
  await machines.unprotect('me', 'web', {});
  assert.deepEqual(done, [FURTHER, RECOVERY, 'unprotect']);
});

test('S0.17 leases are in nobody’s way who takes a machine back that another site has fenced', async () => {
  const fenced = { state: 'fenced', claim: { epoch: 2, siteId: RECOVERY! }, lost: HELD.claim } as const;
  const { done, machines } = actsOf(fenced);
  await assert.rejects(machines.unprotect('me', 'web', {}), { code: 'PROTECTION_FENCED' });
  await machines.unprotect('me', 'web', { confirmOtherSideDown: true });
  assert.deepEqual(done, ['unprotect']);
});
