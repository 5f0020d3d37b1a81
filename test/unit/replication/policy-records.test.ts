import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeltaHeader } from '../../../src/delta/index.ts';
import { decodeRecord, encodeRecord } from '../../../src/lib/records.ts';
import type { PeerClient } from '../../../src/peer/index.ts';
import type { RetentionPolicy } from '../../../src/recovery-point/index.ts';
import { REPLICA_RECORD } from '../../../src/replica/records.ts';
import { replicationFailure } from '../../../src/replication/errors.ts';
import { PeerTarget } from '../../../src/replication/index.ts';
import { MACHINE_RECORD, type MachineRecord, machineKind } from '../../../src/replication/records.ts';
import { retentionFromWire, retentionToWire } from '../../../src/replication/retention-wire.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const BY_CALENDAR: RetentionPolicy = { types: { crash: 4 }, calendar: { zone: 'UTC', daily: 7 } };

const MACHINE = {
  ...{ machineId: 'm', name: 'box', kind: 'managed', createdAtMs: 1, epoch: 1 },
  configuration: {
    ...{ version: 1, name: 'box', architecture: 'x86_64', chipset: 'q35', firmware: 'bios' },
    ...{ uuid: '00000000-0000-4000-8000-000000000000', cpus: 1, memoryBytes: 2 ** 28, guestAgent: true },
    ...{ disks: [{ diskId: 'disk0', bus: 'virtio-blk', sizeBytes: 2 ** 30 }], nics: [] },
  },
  sockets: { qmpPath: '/qmp' },
  disks: [{ diskId: 'disk0', deviceName: 'd', chain: [{ path: '/d', format: 'raw' }], sizeBytes: 2 ** 30 }],
};

const PROTECTION_1 = {
  targetSiteId: 's',
  schedules: [{ copyType: 'app', everyMs: 60_000 }],
  retention: { crash: 4, application: 2 },
  freezeLimitMs: 5000,
  compression: true,
};

function version1(record: string, body: object): Buffer {
  return Buffer.from(JSON.stringify({ record, version: 1, warmsite: '0.1.0', ...body }));
}

test('S0.16 a machine record of version 1 is read, its intervals and numbers mean what they meant', () => {
  const bytes = version1('machine', { ...MACHINE, protection: PROTECTION_1 });
  const { protection } = decodeRecord(MACHINE_RECORD, bytes, 'test');
  assert.deepEqual(protection?.schedules, [
    { copyType: 'app', triggers: [{ kind: 'interval', everyMs: 60_000 }] },
  ]);
  assert.deepEqual(protection.retention, { types: { crash: 4, app: 2 } });
  const unprotected = decodeRecord(
    MACHINE_RECORD,
    version1('machine', { ...MACHINE, protection: null }),
    'test',
  );
  assert.equal(unprotected.protection, null);
});

test('S0.16 a record of version 2 is read as it was written', () => {
  const limitWindows = [
    {
      window: { days: ['mon' as const], from: '08:00', to: '24:00', zone: 'UTC' },
      bytesPerSecond: null,
    },
  ];
  const schedules = [
    { copyType: 'app', triggers: [{ kind: 'fixed' as const, cron: '0 2 * * *', zone: 'UTC' }] },
  ];
  const protection = { ...PROTECTION_1, schedules, limitWindows, retention: BY_CALENDAR };
  const record = { ...MACHINE, protection } as unknown as MachineRecord;
  assert.deepEqual(
    decodeRecord(MACHINE_RECORD, encodeRecord(MACHINE_RECORD, record), 'test').protection,
    protection,
  );
});

test('S0.16 a replica record of version 1 is read', () => {
  const body = { machineId: 'm', machineName: 'box', sourceSiteId: 's', epoch: 1, createdAtMs: 1 };
  const bytes = version1('replica', { ...body, retention: { crash: 3, application: 0 } });
  assert.deepEqual(decodeRecord(REPLICA_RECORD, bytes, 'test').retention, { types: { crash: 3, app: 0 } });
});

test('S0.16 retention travels in the oldest words that can say it', () => {
  assert.deepEqual(retentionToWire({ types: { crash: 4, app: 2 } }), { crash: 4, application: 2 });
  for (const policy of [BY_CALENDAR, { types: { crash: 4, nightly: 7 } }, { types: { app: 1, crash: 0 } }]) {
    assert.deepEqual(retentionFromWire(retentionToWire(policy)), policy);
  }
  assert.throws(() => retentionFromWire({ version: 3, policy: {} }), {
    code: 'REPLICATION_RETENTION_UNKNOWN',
  });
  for (const wrong of [
    null,
    {},
    { crash: 1 },
    { types: { crash: 1000, app: 0 } },
    { version: 2, policy: {} },
  ]) {
    assert.throws(() => retentionFromWire(wrong), { code: 'REPLICATION_REQUEST_INVALID' });
  }
});

test('S0.16 an older recovery site that cannot read the policy gives a clear refusal', async () => {
  const client = {
    call: () => {
      throw replicationFailure('REPLICATION_REQUEST_INVALID', 'the request does not have the form agreed on');
    },
  } as unknown as PeerClient;
  const target = new PeerTarget({ siteId: 's', client, clock: new FakeClock() });
  const offer = (retention: RetentionPolicy) =>
    target.offer({} as DeltaHeader, { machineName: 'box', retention });
  await assert.rejects(offer(BY_CALENDAR), { code: 'REPLICATION_RETENTION_UNKNOWN', retry: 'never' });
  await assert.rejects(offer({ types: { crash: 1 } }), { code: 'REPLICATION_REQUEST_INVALID' });
});

test('S0.8 a machine that is copied by how much is written is not opened by a program that would not know it', () => {
  const versionWith = (trigger: object) => {
    const schedules = [{ copyType: 'crash', triggers: [trigger] }];
    const protection = { ...PROTECTION_1, schedules, retention: BY_CALENDAR };
    const record = { ...MACHINE, protection } as unknown as MachineRecord;
    const kind = machineKind(record);
    const read = decodeRecord(MACHINE_RECORD, encodeRecord(kind, record), 'test');
    assert.deepEqual(read.protection?.schedules, schedules);
    return kind.version;
  };
  assert.equal(versionWith({ kind: 'written', bytes: 2 ** 28 }), 5);
  assert.equal(versionWith({ kind: 'interval', everyMs: 60_000 }), 2);
});

test('S0.28 nor is a machine whose owner has moved the file of a disk: its cuts may name the place where it was', () => {
  const record = { ...MACHINE, protection: null } as unknown as MachineRecord;
  const disks = record.disks.map((disk) => ({ ...disk, formerPaths: ['/before.qcow2'] }));
  assert.deepEqual([machineKind(record).version, machineKind({ ...record, disks }).version], [2, 5]);
});
