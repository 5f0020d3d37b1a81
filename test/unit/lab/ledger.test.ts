import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AreaReader, checkLedger, encodeLedgerRecord, partitionArea } from '../../../lab/ledger.ts';

const SLOTS = 8;
const AREA_BYTES = SLOTS * 512;

/** The areas after the writer has made records 1 to `last` in order. */
function written(last: number, devices = 2): Buffer[] {
  const areas = Array.from({ length: devices }, () => Buffer.alloc(AREA_BYTES));
  for (let seq = 1; seq <= last; seq++) put(areas, seq);
  return areas;
}

function put(areas: Buffer[], seq: number): void {
  const slot = Math.floor((seq - 1) / areas.length) % SLOTS;
  encodeLedgerRecord({ seq, unixMs: 1_000 + seq, devices: areas.length }).copy(
    areas[(seq - 1) % areas.length]!,
    slot * 512,
  );
}

function check(areas: Buffer[]) {
  const readers: AreaReader[] = areas.map((area) => ({
    read: async (offset, length) => area.subarray(offset, offset + length),
  }));
  return checkLedger(readers, AREA_BYTES);
}

test('an empty ledger is contiguous and ends in 0', async () => {
  assert.deepEqual(await check(written(0)), { last: 0, records: 0, contiguous: true });
});

test('whatever the writer has made, in any number of rounds, is contiguous', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 4 }),
      async (last, devices) => {
        const result = await check(written(last, devices));
        assert.deepEqual(result, {
          last,
          records: Math.min(last, SLOTS * devices),
          contiguous: true,
          lastUnixMs: 1_000 + last,
        });
      },
    ),
    { numRuns: 60 },
  );
});

test('any changed bit in a record is found', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(AREA_BYTES - 1), fc.nat(7), async (at, bit) => {
      const areas = written(37);
      areas[1]![at]! ^= 1 << bit;
      assert.equal((await check(areas)).contiguous, false);
    }),
    { numRuns: 200 },
  );
});

test('a torn record is named', async () => {
  const areas = written(5);
  areas[0]!.fill(0, 2 * 512 + 256, 3 * 512);
  const { contiguous, firstBad } = await check(areas);
  assert.equal(contiguous, false);
  assert.deepEqual(firstBad, { device: 0, slot: 2, why: 'torn or foreign: magic or checksum is wrong' });
});

test('S0.11 a missing record is named, also the first and after a wrap', async () => {
  for (const [last, missing] of [
    [9, 4],
    [9, 1],
    [40, 30],
    [40, 25],
  ] as const) {
    const areas = written(last);
    areas[(missing - 1) % 2]!.fill(0, slotOffset(missing), slotOffset(missing) + 512);
    const { contiguous, firstBad } = await check(areas);
    assert.equal(contiguous, false);
    assert.match(firstBad!.why, new RegExp(`record ${missing} is missing`));
  }
});

test('S0.11 one disk older than the other is found', async () => {
  for (const last of [10, 40]) {
    const [, older] = written(last - 4);
    const [newer] = written(last);
    const { contiguous } = await check([newer!, older!]);
    assert.equal(contiguous, false, `last ${last}`);
  }
});

test('an old record left over after a wrap is found', async () => {
  const areas = written(40);
  encodeLedgerRecord({ seq: 12, unixMs: 1, devices: 2 }).copy(areas[1]!, slotOffset(12));
  const { contiguous, firstBad } = await check(areas);
  assert.equal(contiguous, false);
  assert.match(firstBad!.why, /record 12 is left over where 28 belongs/);
});

test('two records that changed places are found', async () => {
  const areas = written(16);
  const first = Buffer.from(areas[0]!.subarray(0, 512));
  areas[0]!.copy(areas[0]!, 0, 512, 1024);
  first.copy(areas[0]!, 512);
  assert.match((await check(areas)).firstBad!.why, /another's place/);
});

test('disks in the wrong order, or one of two alone, are found', async () => {
  const [a, b] = written(9);
  assert.equal((await check([b!, a!])).contiguous, false);
  assert.match((await check([a!])).firstBad!.why, /written for 2 devices/);
});

test('foreign bytes in a slot never reached are found', async () => {
  const areas = written(3);
  areas[1]![7 * 512 + 9] = 1;
  assert.equal((await check(areas)).firstBad?.slot, 7);
});

test('a partition is found in an MBR and a missing one is not', async () => {
  const disk = Buffer.alloc(512);
  disk.writeUInt16LE(0xaa55, 510);
  disk[446 + 16 + 4] = 0xda;
  disk.writeUInt32LE(2_048, 446 + 16 + 8);
  disk.writeUInt32LE(100, 446 + 16 + 12);
  const read = async (offset: number, length: number) => disk.subarray(offset, offset + length);
  assert.deepEqual(await partitionArea(read, 2), { offset: 2_048 * 512, length: 51_200 });
  assert.equal(await partitionArea(read, 1), undefined);
  assert.equal(await partitionArea(async (_, length) => Buffer.alloc(length), 2), undefined);
});

function slotOffset(seq: number): number {
  return (Math.floor((seq - 1) / 2) % SLOTS) * 512;
}
