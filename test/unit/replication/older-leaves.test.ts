import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../../src/lib/log.ts';
import type { Peer } from '../../../src/peer/index.ts';
import type { DigestPage } from '../../../src/replica/index.ts';
import {
  type OfferDetails,
  ReplicationReceiver,
  type ReplicationTarget,
} from '../../../src/replication/index.ts';
import { OlderLeaves } from '../../../src/replication/older-leaves.ts';
import { seedSites } from '../../support/seed-sites.ts';

const BLOCK = 65_536;

test('S0.27 leaves are told to the site of the machine alone, and only while it sends its first copy', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await box.machine.cut('crash');
  const path = join(sites.directory, 'old.raw');
  await writeFile(path, await box.content());
  const olderFor = sites.olderFor([{ diskId: 'system', path, format: 'raw' }]);
  const receiver = new ReplicationReceiver({
    ...{ replicas: sites.replicas, log: silentLog, wallMs: () => 0 },
    ...{ onPublished: () => undefined, onSkew: () => undefined },
    olderDisks: (_siteId, _name, header) => olderFor(header),
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
  const answers: string[] = [];
  let session = '';
  const target: ReplicationTarget = {
    siteId: sites.target.siteId,
    describe: (machineId) => sites.target.describe(machineId),
    seeds: sites.target.seeds,
    offer: async (header, details: OfferDetails) => {
      session = header.session;
      const body = { header, ...details, wallMs: 0 } as never;
      return (await receiver.calls['replica.offer']!(own, body, signal)) as never;
    },
    olderLeaves: async (asked, page) => {
      for (const [peer, other] of [
        [as('01hsssssssssssssssssssssss'), asked],
        [own, '01hnnnnnnnnnnnnnnnnnnnnnnn'],
      ] as const) {
        await assert.rejects(ask(peer, other, page), { code: 'REPLICATION_SESSION_UNKNOWN' });
      }
      for (const wrong of [{ blocks: 513 }, { blocks: 0 }, { firstBlock: -1 }]) {
        await assert.rejects(ask(own, asked, { ...page, ...wrong }), { code: 'REPLICATION_REQUEST_INVALID' });
      }
      await assert.rejects(ask(own, asked, { ...page, diskId: 'data' }), {
        code: 'REPLICA_OLDER_COPY_CHANGED',
      });
      const { leaves } = await ask(own, asked, page);
      answers.push(leaves);
      return Buffer.from(leaves, 'base64');
    },
    upload: async (_machineId, asked, stream) => {
      // Asked before the upload has begun: it is answered as soon as it has.
      const early = ask(own, asked);
      const copied = async function* () {
        for await (const chunk of stream)
          for (const part of chunk instanceof Uint8Array ? [chunk] : chunk) yield Buffer.from(part);
      };
      const done = await receiver.upload(own, asked, copied(), signal);
      assert.equal(Buffer.from((await early).leaves, 'base64').length, 4 * 32);
      return done as never;
    },
  };
  const outcome = await box.machine.replicate(target);
  assert.equal(outcome.kind, 'sent');
  assert.equal(answers.length, 1);
  const { manifest } = sites.replicas.need(box.machine.record.machineId).newest!;
  assert.equal(manifest.olderBytes, 32 * BLOCK);
  await assert.rejects(ask(own, session), { code: 'REPLICATION_SESSION_UNKNOWN' });
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
