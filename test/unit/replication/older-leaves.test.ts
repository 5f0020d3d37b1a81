import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../../src/lib/log.ts';
import type { Peer, UploadChunk } from '../../../src/peer/index.ts';
import type { DigestPage } from '../../../src/replica/index.ts';
import {
  NOTHING_AT_HOME,
  type OfferDetails,
  ReplicationReceiver,
  type ReplicationTarget,
} from '../../../src/replication/index.ts';
import { OlderLeaves } from '../../../src/replication/older-leaves.ts';
import type { OlderFor } from '../../support/direct-target.ts';
import { seedSites } from '../../support/seed-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const BLOCK = 65_536;

/** A machine with one copy that waits, and the receiving end as a peer meets it: by calls and uploads. */
async function receivingSite(t: CleanUp) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await box.machine.cut('crash');
  const path = join(sites.directory, 'old.raw');
  await writeFile(path, await box.content());
  const offers: { olderFor: OlderFor | undefined } = {
    olderFor: sites.olderFor([{ diskId: 'system', path, format: 'raw' }]),
  };
  const receiver = new ReplicationReceiver({
    home: NOTHING_AT_HOME,
    checkRoom: () => Promise.resolve(),
    ...{ replicas: sites.replicas, log: silentLog, wallMs: () => 0 },
    onPublished: () => undefined,
    acceptOrigin: () => Promise.reject(new Error('nothing is forwarded')),
    olderDisks: (_siteId, _name, header) => offers.olderFor?.(header),
    preview: () => assert.fail('nobody asks'),
  });
  const { signal } = new AbortController();
  const as = (siteId: string) => ({ siteId, name: siteId }) as Peer;
  const own = as(sites.target.sourceSiteId);
  const ask = (peer: Peer, session: string, page: Partial<DigestPage> = {}) =>
    receiver.calls['replica.older-leaves']!(
      peer,
      { session, diskId: 'system', firstBlock: 0, blocks: 4, ...page },
      signal,
    ) as Promise<unknown> as Promise<{ leaves: string }>;
  const target: ReplicationTarget = {
    siteId: sites.target.siteId,
    describe: (machineId) => sites.target.describe(machineId),
    seeds: sites.target.seeds,
    offer: async (header, details: OfferDetails) => {
      const body = { header, ...details, wallMs: 0 } as never;
      return (await receiver.calls['replica.offer']!(own, body, signal)) as never;
    },
    olderLeaves: async (session, page) => Buffer.from((await ask(own, session, page)).leaves, 'base64'),
    upload: async (_machineId, session, stream) =>
      (await receiver.upload(own, session, copied(stream), signal)) as never,
  };
  const newest = () => sites.replicas.need(box.machine.record.machineId).newest!;
  return {
    sites,
    box,
    offers,
    receiver,
    own,
    stranger: as('01hsssssssssssssssssssssss'),
    ask,
    target,
    newest,
  };
}

async function* copied(stream: AsyncIterable<UploadChunk>): AsyncGenerator<Buffer> {
  for await (const chunk of stream)
    for (const part of chunk instanceof Uint8Array ? [chunk] : chunk) yield Buffer.from(part);
}

test('S0.27 leaves are told to the site of the machine alone, and only while it sends its first copy', async (t) => {
  const { box, own, stranger, ask, target, newest } = await receivingSite(t);
  let [asked, session] = [0, ''];
  const outcome = await box.machine.replicate({
    ...target,
    olderLeaves: async (meant, page) => {
      asked += 1;
      const unknown = { code: 'REPLICATION_SESSION_UNKNOWN' };
      await assert.rejects(ask(stranger, meant, page), unknown);
      await assert.rejects(ask(own, '01hnnnnnnnnnnnnnnnnnnnnnnn', page), unknown);
      for (const wrong of [{ blocks: 513 }, { blocks: 0 }, { firstBlock: -1 }]) {
        await assert.rejects(ask(own, meant, { ...page, ...wrong }), { code: 'REPLICATION_REQUEST_INVALID' });
      }
      const none = { code: 'REPLICA_OLDER_COPY_CHANGED' };
      await assert.rejects(ask(own, meant, { ...page, diskId: 'data' }), none);
      return target.olderLeaves!(meant, page);
    },
    upload: async (machineId, meant, stream) => {
      session = meant;
      // Asked before the upload has begun: it is answered as soon as it has.
      const early = ask(own, meant);
      const done = await target.upload(machineId, meant, stream);
      assert.equal(Buffer.from((await early).leaves, 'base64').length, 4 * 32);
      return done;
    },
  });
  assert.equal(outcome.kind, 'sent');
  assert.equal(asked, 1);
  assert.equal(newest().manifest.olderBytes, 32 * BLOCK);
  await assert.rejects(ask(own, session), { code: 'REPLICATION_SESSION_UNKNOWN' });
});

test('S0.27 a first copy that is on its way takes from what is offered meanwhile, and no more when that is withdrawn', async (t) => {
  for (const isOffered of [true, false]) {
    const { box, offers, receiver, own, target, newest } = await receivingSite(t);
    const { olderFor } = offers;
    if (isOffered) offers.olderFor = undefined;
    let uploads = 0;
    const outcome = await box.machine.replicate({
      ...target,
      upload: (machineId, session, stream) => {
        uploads += 1;
        const interrupted = async function* () {
          for await (const chunk of copied(stream)) {
            yield chunk;
            // The first MiB of the disk has come: as bytes, or as the leaves of its 16 blocks.
            const isDue = chunk.length === (isOffered ? 16 * BLOCK : 16 * 32);
            if (!isDue || uploads > 1) continue;
            offers.olderFor = isOffered ? olderFor : undefined;
            receiver.olderCopiesChanged(own.siteId, 'another');
            receiver.olderCopiesChanged('01hsssssssssssssssssssssss', 'box');
            receiver.olderCopiesChanged(own.siteId, 'box');
          }
        };
        return target.upload(machineId, session, interrupted());
      },
    });
    assert.equal(outcome.kind, 'sent', 'it goes on by itself');
    assert.equal(uploads, 2);
    assert.equal(newest().manifest.olderBytes, 16 * BLOCK);
  }
});

test('S0.27 of a disk of 8 TiB two pages of leaves are in memory; pages that fail are not known', async () => {
  const digest = Buffer.alloc(32, 7);
  let asked = 0;
  const leaves = new OlderLeaves({
    blockBytes: BLOCK,
    disk: { diskId: 'disk0', sizeBytes: 8 * 2 ** 40 },
    ask: async ({ blocks }) => {
      asked += 1;
      return Buffer.alloc(blocks * 32, 7);
    },
  });
  const at = async (offset: number) => (await leaves.of({ offset, length: BLOCK }))(offset / BLOCK, digest);
  assert.equal(await at(0), true);
  assert.equal(await at(100 * BLOCK), true);
  assert.equal(asked, 2, 'one, and the next one ahead');
  assert.equal(await at(2 ** 40), true);
  assert.equal(await at(8 * 2 ** 40 - BLOCK), true);
  assert.equal(asked, 5, 'there is none behind the last one');
  const other = new OlderLeaves({
    blockBytes: BLOCK,
    disk: { diskId: 'disk0', sizeBytes: 2 ** 40 },
    ask: async () => {
      asked += 1;
      throw new Error('the medium was pulled out');
    },
  });
  for (let page = 0; page < 20; page++) {
    const offset = page * 512 * BLOCK;
    assert.equal((await other.of({ offset, length: BLOCK }))(offset / BLOCK, digest), false);
  }
  assert.ok(asked <= 5 + 5, `${asked} pages were asked for`);
});
