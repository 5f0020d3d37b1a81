/** The points of a replica forwarded to one more site, without QEMU: A is the protected site, B and C keep its points. */
import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type DeltaHeader, encodeDelta, NOTHING_RECEIVED } from '../../../src/delta/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { peerFailure } from '../../../src/peer/errors.ts';
import type { SignedStatement } from '../../../src/recovery-point/index.ts';
import type { Replica, Replicas } from '../../../src/replica/index.ts';
import {
  Forwarding,
  type ForwardPolicy,
  type Origin,
  type ReplicationTarget,
} from '../../../src/replication/index.ts';
import { uploadingBy } from '../../support/direct-target.ts';
import { copy } from '../../support/seed-acts.ts';
import { DISK_BYTES, readChain, type SeedMachine, seedSites } from '../../support/seed-sites.ts';

const MIB = 1024 * 1024;
const EVERYTHING = { retention: { types: { crash: 100, app: 100 } }, compression: true };
const nothingProven = () => false;

/** A machine of A with two points at B, and C, which has nothing yet. */
async function threeSites(t: TestContext, policy: Partial<ForwardPolicy> = {}) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  await change(box, 1);
  await copy(sites, box);
  const { machineId } = box.machine.record;
  const far = await sites.anotherSite();
  const near = sites.replicas.need(machineId);
  const { siteId } = far.target;
  const forwarding = await Forwarding.begin(sites.forwardTools(), near, { siteId, ...EVERYTHING, ...policy });
  return { sites, box, near, far, forwarding, machineId };
}

/** The guest writes; every round at another place. */
function change({ write }: SeedMachine, round: number): Promise<void> {
  return write((round * 3 * 65_536) % (DISK_BYTES / 2), DISK_BYTES - 4096 * (round + 1));
}

async function forwardAll(
  forwarding: Forwarding,
  target: ReplicationTarget,
  origin: Origin,
): Promise<number> {
  for (let wireBytes = 0; ; ) {
    const outcome = await forwarding.forward(target, origin);
    if (outcome.kind === 'nothing') return wireBytes;
    if (outcome.kind === 'sent') wireBytes += outcome.wireBytes;
  }
}

const sequencesOf = (replica: Replica) => replica.points.map(({ statement }) => statement.sequence);

/** The newest point there is the one of B, as A signed it, and reads the same. */
async function holdsNewest(replicas: Replicas, near: Replica): Promise<void> {
  const there = replicas.need(near.record.machineId);
  assert.deepEqual(there.newest!.manifest.signed, near.newest!.manifest.signed);
  const { pointId, disks } = there.newest!.statement;
  for (const { diskId } of disks) {
    const [found, expected] = await Promise.all(
      [there, near].map((replica) => readChain(replica.chain(pointId, diskId))),
    );
    assert.ok(found!.equals(expected!), `${diskId} reads as at B`);
  }
}

test('S0.29 a replica is forwarded: the third site gets every point as its source signed it, each by what changed', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  const there = far.replicas.need(machineId);
  assert.deepEqual(sequencesOf(there), [1, 2]);
  assert.equal(there.record.sourceSiteId, sites.origin.siteId);
  await holdsNewest(far.replicas, near);
  await change(box, 2);
  await copy(sites, box);
  const wireBytes = await forwardAll(forwarding, far.target, sites.origin);
  t.diagnostic(`${wireBytes} bytes for two pages that changed`);
  assert.ok(wireBytes > 0 && wireBytes < 200_000, `${wireBytes} bytes`);
  await holdsNewest(far.replicas, near);
  assert.deepEqual(sequencesOf(there), [1, 2, 3]);
  assert.equal(await forwardAll(forwarding, far.target, sites.origin), 0);
});

test('S0.29 merges between two forwards cost no resync, also where they take the point that the third site has', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  for (let round = 2; round <= 9; round++) {
    await change(box, round);
    await copy(sites, box);
  }
  assert.equal(await near.retire({ types: { crash: 1, app: 0 } }, nothingProven), 9);
  assert.deepEqual(sequencesOf(near), [10]);
  const [again] = await Forwarding.openAll(sites.forwardTools(), near);
  const wireBytes = await forwardAll(again!, far.target, sites.origin);
  t.diagnostic(`${wireBytes} bytes for what eight copies changed; the disks have ${2 * DISK_BYTES}`);
  assert.ok(wireBytes > 0 && wireBytes < MIB, `${wireBytes} bytes`);
  assert.deepEqual(sequencesOf(far.replicas.need(machineId)), [1, 2, 10]);
  await holdsNewest(far.replicas, near);
  assert.equal((await far.reopen()).need(machineId).points.length, 3, 'and opens again');
});

test('S0.29 where the digests of what the third site has are lost and its point is merged, all content comes once more', async (t) => {
  const { sites, box, near, far, forwarding } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  await change(box, 2);
  await copy(sites, box);
  await near.retire({ types: { crash: 1, app: 0 } }, nothingProven);
  await rm(near.layout.forwardedLeaves(far.target.siteId), { recursive: true });
  const [again] = await Forwarding.openAll(sites.forwardTools(), near);
  assert.ok((await forwardAll(again!, far.target, sites.origin)) > MIB);
  await holdsNewest(far.replicas, near);
  await change(box, 3);
  await copy(sites, box);
  const [third] = await Forwarding.openAll(sites.forwardTools(), near);
  assert.ok((await forwardAll(third!, far.target, sites.origin)) < MIB, 'and from then on what changes');
  await holdsNewest(far.replicas, near);
});

test('S0.29 only points of the wanted types are forwarded; what the others changed comes with them', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t, { copyTypes: ['app'] });
  assert.equal(await forwardAll(forwarding, far.target, sites.origin), 0);
  await box.machine.cut('app');
  await change(box, 2);
  await copy(sites, box);
  await forwardAll(forwarding, far.target, sites.origin);
  assert.deepEqual(sequencesOf(far.replicas.need(machineId)), [3]);
  await change(box, 4);
  await box.machine.cut('app');
  await copy(sites, box);
  await forwardAll(forwarding, far.target, sites.origin);
  assert.deepEqual(sequencesOf(far.replicas.need(machineId)), [3, 5]);
  const { pointId } = far.replicas.need(machineId).newest!.statement;
  const [there, here] = await Promise.all(
    [far.replicas.need(machineId), near].map((replica) => readChain(replica.chain(pointId, 'system'))),
  );
  assert.ok(there!.equals(here!));
});

test('S0.29 a lost acknowledgement and a broken link are gone on with; the point on its way is not merged away', async (t) => {
  const { sites, box, near, far, forwarding } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  await change(box, 2);
  await copy(sites, box);
  const losing = uploadingBy(far.target, async (...upload) => {
    await far.target.upload(...upload);
    throw new Error('the answer was lost');
  });
  await assert.rejects(forwarding.forward(losing, sites.origin), /answer was lost/);
  assert.equal(forwarding.heldPointId, near.newest!.statement.pointId);
  const [again] = await Forwarding.openAll(sites.forwardTools(), near);
  const outcome = await again!.forward(far.target, sites.origin);
  assert.equal(outcome.kind, 'acknowledged');
  await holdsNewest(far.replicas, near);

  const scattered = Array.from({ length: 40 }, (_, index) => index * 40_960);
  await box.write(...scattered);
  await copy(sites, box);
  const breaking = uploadingBy(far.target, async (machineId, session, stream, signal) => {
    async function* broken() {
      let bytes = 0;
      for await (const chunk of stream) {
        if (bytes > 70_000) throw peerFailure('PEER_CONNECTION_LOST', 'the link broke');
        for (const part of [chunk].flat()) bytes += part.length;
        yield chunk;
      }
    }
    return await far.target.upload(machineId, session, broken(), signal);
  });
  await assert.rejects(again!.forward(breaking, sites.origin), /link broke/);
  const { incoming } = far.replicas.need(near.record.machineId).describe();
  assert.ok(incoming!.progress.frames > 0, 'a part is durable there');
  const [third] = await Forwarding.openAll(sites.forwardTools(), near);
  const { frames } = incoming!.progress;
  const rest = await third!.forward(far.target, sites.origin);
  assert.ok(
    rest.kind === 'sent' && rest.wireBytes < (40 - frames + 2) * 4400,
    'it goes on behind what is durable',
  );
  assert.equal(third!.record.session, null);
  await holdsNewest(far.replicas, near);

  // What the layers tell is more when the acknowledged point has been merged into the oldest layer: another delta then.
  await box.write(...scattered);
  await copy(sites, box);
  await assert.rejects(third!.forward(breaking, sites.origin), /link broke/);
  const held = async () => new Map([[third!.heldPointId!, ['forwarding' as const]]]);
  await near.retire({ types: { crash: 0, app: 0 } }, nothingProven, held);
  assert.deepEqual(near.points.length, 1);
  assert.equal((await third!.forward(far.target, sites.origin)).kind, 'sent');
  await holdsNewest(far.replicas, near);
});

test('S0.29 points are forwarded while retention merges: neither hinders the other, and what is on its way stays', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  const retention = { types: { crash: 1, app: 0 } };
  const held = async () =>
    new Map([forwarding.heldPointId ?? []].flat().map((pointId) => [pointId, ['forwarding' as const]]));
  let wireBytes = 0;
  for (let round = 2; round <= 7; round++) {
    await change(box, round);
    await copy(sites, box);
    // Two at once: what the one finds merged away it does not plan with.
    const sent = forwardAll(forwarding, far.target, sites.origin);
    const retired = near.retire(retention, nothingProven, held);
    await Promise.all([sent, retired]);
    wireBytes += await sent;
    await holdsNewest(far.replicas, near);
  }
  await near.retire(retention, nothingProven, held);
  assert.equal(near.points.length, 1);
  assert.deepEqual(sequencesOf(far.replicas.need(machineId)), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.ok(wireBytes < 2 * MIB, `${wireBytes} bytes`);
});

test('S0.29 forwarding that was ended and begun again goes on where the third site is, also when that point is merged away', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  await forwarding.end();
  assert.deepEqual(await Forwarding.openAll(sites.forwardTools(), near), []);
  const begin = () =>
    Forwarding.begin(sites.forwardTools(), near, { siteId: far.target.siteId, ...EVERYTHING });
  await change(box, 2);
  await copy(sites, box);
  const again = await begin();
  assert.ok(
    (await forwardAll(again, far.target, sites.origin)) < MIB,
    'its newest point is here: by what changed',
  );
  await again.end();
  for (let round = 3; round <= 4; round++) {
    await change(box, round);
    await copy(sites, box);
  }
  await near.retire({ types: { crash: 1, app: 0 } }, nothingProven);
  assert.ok(
    (await forwardAll(await begin(), far.target, sites.origin)) > MIB,
    'it is not: by all that there is',
  );
  assert.deepEqual(sequencesOf(far.replicas.need(machineId)), [1, 2, 3, 5]);
  await holdsNewest(far.replicas, near);
});

test('S0.29 disks that have gone and come between two points that are forwarded', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  await box.machine.removeDisk('data');
  const path = join(sites.directory, 'more.raw');
  await writeFile(path, systemRandom.bytes(MIB));
  const of = { diskId: 'more', sizeBytes: MIB };
  await box.machine.addDisk({
    disk: { ...of, deviceName: 'more', chain: [{ path, format: 'raw' }] },
    configuration: { ...of, bus: 'virtio-blk' },
  });
  await change(box, 2);
  await copy(sites, box);
  await change(box, 3);
  await copy(sites, box);
  await near.retire({ types: { crash: 1, app: 0 } }, nothingProven);
  await forwardAll(forwarding, far.target, sites.origin);
  const { disks } = far.replicas.need(machineId).newest!.statement;
  assert.deepEqual(
    disks.map(({ diskId }) => diskId),
    ['system', 'more'],
  );
  await holdsNewest(far.replicas, near);
  await change(box, 4);
  await copy(sites, box);
  const [again] = await Forwarding.openAll(sites.forwardTools(), near);
  assert.ok((await forwardAll(again!, far.target, sites.origin)) < MIB / 2);
  await holdsNewest(far.replicas, near);
  assert.equal((await far.reopen()).broken.length, 0);
});

test('S0.29 a forwarded replica is forwarded on: the fourth site proves the points by the key of the first', async (t) => {
  const { sites, box, near, far, forwarding, machineId } = await threeSites(t);
  await forwardAll(forwarding, far.target, sites.origin);
  const last = await sites.anotherSite();
  const { siteId } = last.target;
  const third = far.replicas.need(machineId);
  const onward = await Forwarding.begin(sites.forwardTools(), third, { siteId, ...EVERYTHING });
  await forwardAll(onward, last.target, sites.origin);
  await change(box, 2);
  await copy(sites, box);
  await forwardAll(forwarding, far.target, sites.origin);
  assert.ok((await forwardAll(onward, last.target, sites.origin)) < MIB);
  await holdsNewest(last.replicas, near);
});

test('S0.29 a failover at the second site leaves the forwarding as it is; one at the third ends it there', async (t) => {
  const { sites, near, far, forwarding, machineId } = await threeSites(t);
  await near.update({ epoch: 2 });
  await forwarding.forward(far.target, sites.origin);
  const there = far.replicas.need(machineId);
  assert.deepEqual([there.record.epoch, sequencesOf(there)], [1, [1]]);
  await there.update({ epoch: 2 });
  await assert.rejects(forwarding.forward(far.target, sites.origin), ({ code, message, hint }) => {
    assert.match(message, /fenced/);
    assert.match(hint, /replica forward box --to SITE --stop/);
    return code === 'REPLICATION_CONFLICT';
  });
  assert.deepEqual(sequencesOf(there), [1]);
});

/** What the second site offers of its newest point, on nothing: it may send what it likes then. */
function offered(near: Replica, origin: Origin) {
  const { manifest, statement } = near.newest!;
  const { machineId, pointId, sequence, epoch, disks } = statement;
  const header: DeltaHeader = {
    ...{ session: newId(systemClock, systemRandom), machineId, pointId, sequence, epoch, parent: null },
    disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
    ...{ blockBytes: 65_536, granularityBytes: 4096, digest: 'sha256', firstFrame: 0 },
  };
  const { retention } = EVERYTHING;
  const details = { machineName: 'box', retention, forwarded: { origin, skewMs: 0 } };
  return { header, details, signed: manifest.signed };
}

test('S0.29 what the site in the middle makes up or changes is found at the third: content, statement, origin', async (t) => {
  const { sites, near, far, machineId } = await threeSites(t);
  const send = async (change: (signed: SignedStatement) => SignedStatement, origin = sites.origin) => {
    const { header, details, signed } = offered(near, origin);
    assert.equal((await far.target.offer(header, details)).kind, 'accept');
    const data = Buffer.from(systemRandom.bytes(4096));
    const pieces = [{ type: 'data' as const, disk: 0, offset: 0, data }];
    const stream = encodeDelta(header, pieces, () => change(signed) as never, {
      ...{ compression: 'none', resumed: NOTHING_RECEIVED },
    });
    return await far.target.upload(machineId, header.session, stream);
  };
  await assert.rejects(
    send((signed) => signed),
    { code: 'REPLICA_CONTENT_DIFFERS' },
  );
  const later = ({ statement, ...rest }: SignedStatement) => ({
    ...{ statement: { ...statement, cutAtMs: statement.cutAtMs + 1 }, ...rest },
  });
  await assert.rejects(send(later), { code: 'REPLICA_SIGNATURE_INVALID' });
  assert.deepEqual(far.replicas.need(machineId).points, [], 'nothing of it is a point');
  const { machineId: _, ...another } = await threeSites(t);
  const { header, details } = offered(another.near, { ...sites.origin, siteId: another.sites.origin.siteId });
  await far.target.offer(header, details);
  const upload = far.target.upload(
    header.machineId,
    header.session,
    encodeDelta(header, [], () => another.near.newest!.manifest.signed as never, {
      ...{ compression: 'none', resumed: NOTHING_RECEIVED },
    }),
  );
  await assert.rejects(upload, { code: 'REPLICA_SIGNATURE_INVALID' }, 'nobody has confirmed that key');
});

test('S0.29 points that their source has numbered for another site do not pass for the next ones of this', async (t) => {
  const { sites, box, far, forwarding, machineId } = await threeSites(t);
  await forwarding.forward(far.target, sites.origin);
  const elsewhere = await sites.anotherSite();
  await box.machine.addTarget({ siteId: elsewhere.target.siteId, ...EVERYTHING });
  await change(box, 2);
  await box.machine.cut('crash');
  while ((await box.machine.replicate(elsewhere.target)).kind !== 'nothing');
  const other = elsewhere.replicas.need(machineId);
  const there = far.replicas.need(machineId);
  assert.equal(
    other.newest!.statement.sequence,
    there.newest!.statement.sequence + 1,
    'by its number it could be next',
  );
  const { header, details, signed } = offered(other, sites.origin);
  const { statement, statementDigest } = there.newest!;
  const upon = { ...header, parent: { pointId: statement.pointId, statementDigest } };
  assert.equal((await far.target.offer(upon, details)).kind, 'accept');
  const stream = encodeDelta(upon, [], () => signed as never, {
    ...{ compression: 'none', resumed: NOTHING_RECEIVED },
  });
  await assert.rejects(far.target.upload(machineId, upon.session, stream), { code: 'REPLICA_DELTA_REFUSED' });
  assert.deepEqual(sequencesOf((await far.reopen()).need(machineId)), [1]);
});

test('S0.29 a layer that has gone bad at the site in the middle is not forwarded', async (t) => {
  const { sites, near, far, forwarding, machineId } = await threeSites(t);
  const layer = near.layout.layer('system', near.points[0]!.statement.pointId);
  const bytes = await readFile(layer);
  const page = (await readChain(near.chain(near.newest!.statement.pointId, 'system'))).subarray(0, 4096);
  bytes[bytes.indexOf(page) + 100]! ^= 1;
  await rm(layer);
  await writeFile(layer, bytes);
  await assert.rejects(forwarding.forward(far.target, sites.origin), { code: 'REPLICATION_FORWARD_DAMAGED' });
  assert.deepEqual(far.replicas.need(machineId).points, []);
});
