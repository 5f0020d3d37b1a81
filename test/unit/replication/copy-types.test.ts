import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { seedSites } from '../../support/seed-sites.ts';

const NIGHTLY = { name: 'nightly', aim: 'application' as const };

test('S0.4 a copy carries the type that a person defined from the cut to the recovery site', async (t) => {
  const sites = await seedSites(t);
  const { machine, write } = await sites.addMachine({ seed: false });
  await assert.rejects(machine.cut('nightly'), { code: 'COPY_TYPE_UNKNOWN' });
  assert.deepEqual(machine.cuts, []);

  await machine.changeProtection({
    copyTypes: [NIGHTLY, { name: 'quick', aim: 'crash' }],
    retention: { types: { nightly: 1, quick: 1 } },
  });
  for (const type of ['nightly', 'quick', 'app']) {
    await write(0);
    await machine.cut(type);
    while ((await machine.replicate(sites.target)).kind !== 'nothing');
  }
  // A type that is gone is still known to the points that are of it.
  await machine.changeProtection({ copyTypes: [], retention: { types: { crash: 1 } } });
  const replica = await sites.openReplica(machine.record.machineId);
  assert.deepEqual(
    replica.points.map(({ statement: { copyType, aim, consistency } }) => ({ copyType, aim, consistency })),
    [
      { copyType: 'nightly', aim: 'application', consistency: 'crash' },
      { copyType: 'quick', aim: undefined, consistency: 'crash' },
      { copyType: 'app', aim: undefined, consistency: 'crash' },
    ],
  );
  const kept = replica.retention({ types: { nightly: 3, quick: 3, app: 3 } }, () => false);
  assert.deepEqual(
    kept.map(({ reasons }) => reasons),
    [[], ['type-quick'], ['newest']],
    'copies of a machine that is off reach less than two of the types strive for',
  );
});

test('S0.4 a record with copy types of its own is of a version that older programs refuse', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const version = async () => JSON.parse(await readFile(box.machine.layout.record, 'utf8')).version;
  assert.equal(await version(), 2);
  await box.machine.changeProtection({ copyTypes: [NIGHTLY] });
  assert.equal(await version(), 3);
  assert.deepEqual((await box.reopen()).record.protection?.copyTypes, [NIGHTLY]);
  await box.machine.changeProtection({ copyTypes: [] });
  assert.equal(await version(), 2);
});
