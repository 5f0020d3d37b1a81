/** Uploads that arrive late, after the sender has given them up and offered its delta again. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';
import type { UploadChunk } from '../../../src/peer/index.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import type { ReplicationTarget } from '../../../src/replication/index.ts';
import { uploadingBy } from '../../support/direct-target.ts';
import { BY_HAND } from '../../support/lab-sites.ts';
import { twoSites } from '../../support/two-sites.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 16 * MIB;

/** A machine that is off, with its first copy made and not sent, and its target with uploads as a test wants them. */
async function withOneCut(t: TestContext) {
  const sites = await twoSites(t);
  const path = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(DISK_BYTES)]);
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 7 0 ${DISK_BYTES}`, path]);
  const machine = await sites.addMachine([{ diskId: 'disk', path, sizeBytes: DISK_BYTES }]);
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const { cutId } = await machine.cut('crash');
  const { target } = sites;
  const through = (upload: ReplicationTarget['upload']) => uploadingBy(target, upload);
  return { sites, machine, target, cutId, through };
}

/** One whose first delta was broken off after some 5 MiB; `late` is what had been sent of it. */
async function brokenOff(t: TestContext) {
  const { sites, machine, target, cutId, through } = await withOneCut(t);
  let late = Buffer.alloc(0);
  const breaking = through(async (machineId, session, stream) => {
    late = (await split(stream, 5 * MIB)).head;
    return target.upload(machineId, session, once(late));
  });
  await assert.rejects(machine.replicate(breaking), { code: 'DELTA_TRUNCATED' });
  const replica = sites.replicas.need(machine.record.machineId);
  const durable = () => replica.describe().incoming?.progress.frames ?? 0;
  assert.ok(durable() > 0);
  const isWhole = async () => {
    assert.equal(replica.newest!.statement.pointId, cutId);
    await verifyPoint(sites.replicaTools, replica, cutId);
  };
  return { machine, target, through, late, durable, isWhole };
}

test('S0.10 a late upload of a session takes nothing away from it', async (t) => {
  const { machine, target, through, late, durable, isWhole } = await brokenOff(t);
  const before = durable();
  const overtaken = through(async (machineId, session, stream) => {
    await assert.rejects(target.upload(machineId, session, once(late)), {
      code: 'REPLICA_SESSION_OUTDATED',
      retry: 'later',
    });
    assert.equal(durable(), before);
    return target.upload(machineId, session, stream);
  });
  const outcome = await machine.replicate(overtaken);
  assert.ok(outcome.kind === 'sent' && outcome.wireBytes < DISK_BYTES - 3 * MIB);
  await isWhole();
});

test('S0.10 an upload that a late one has overtaken is planned anew at once, from where that one came', async (t) => {
  const { machine, target, through, durable, isWhole } = await brokenOff(t);
  const before = durable();
  let uploads = 0;
  const overtaking = through(async (machineId, session, stream) => {
    uploads += 1;
    if (uploads > 1) return target.upload(machineId, session, stream);
    const { head, rest } = await split(stream, 5 * MIB);
    await assert.rejects(target.upload(machineId, session, once(head)), { code: 'DELTA_TRUNCATED' });
    assert.ok(durable() > before);
    return target.upload(machineId, session, joined(head, rest));
  });
  const outcome = await machine.replicate(overtaking);
  assert.ok(outcome.kind === 'sent' && outcome.wireBytes < DISK_BYTES - 7 * MIB);
  assert.equal(uploads, 2);
  await isWhole();
});

test('S0.10 a stream that is not what was offered is refused for good', async (t) => {
  const { machine, target, through } = await withOneCut(t);
  const lying: ReplicationTarget = {
    ...through((...upload) => target.upload(...upload)),
    offer: (header, details) => target.offer({ ...header, pointId: header.session }, details),
  };
  await assert.rejects(machine.replicate(lying), { code: 'REPLICA_DELTA_REFUSED', retry: 'never' });
});

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function* joined(head: Uint8Array, rest: AsyncIterable<UploadChunk>): AsyncGenerator<UploadChunk> {
  yield head;
  yield* rest;
}

/** At least `length` bytes of a stream, copied, and what comes after them. */
async function split(stream: AsyncIterable<UploadChunk>, length: number) {
  const iterator = stream[Symbol.asyncIterator]();
  const parts: Buffer[] = [];
  for (let size = 0; size < length; ) {
    const { value, done } = await iterator.next();
    assert.ok(!done, 'the stream is shorter');
    for (const bytes of value instanceof Uint8Array ? [value] : value) {
      parts.push(Buffer.from(bytes));
      size += bytes.length;
    }
  }
  return { head: Buffer.concat(parts), rest: { [Symbol.asyncIterator]: () => iterator } };
}
