/** What people and processes do with a seed, step by step. */
import assert from 'node:assert/strict';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { type Replica, SeedFile } from '../../src/replica/index.ts';
import type { ReplicationTarget } from '../../src/replication/index.ts';
import { type SeedMachine, type SeedSites, seedSites } from './seed-sites.ts';
import type { CleanUp } from './temporary.ts';

/** Two sites and a machine whose seed lies on the medium. */
export async function exported(t: CleanUp): Promise<SeedSites & { box: SeedMachine; seedPath: string }> {
  const sites = await seedSites(t);
  const box = await sites.addMachine();
  const { path } = await box.machine.exportSeed(() => sites.target, sites.medium);
  return { ...sites, box, seedPath: path };
}

/** Cuts and sends everything; returns the bytes that went over the wire. */
export async function copy(sites: SeedSites, { machine }: SeedMachine): Promise<number> {
  await machine.cut('crash');
  return send(sites, machine);
}

/** Sends all that waits; returns the bytes that went over the wire. */
export async function send({ target }: SeedSites, machine: SeedMachine['machine']): Promise<number> {
  for (let wireBytes = 0; ; ) {
    const outcome = await machine.replicate(target);
    if (outcome.kind === 'nothing') return wireBytes;
    if (outcome.kind === 'sent') wireBytes += outcome.wireBytes;
  }
}

/** As a courier does who has arrived. */
export async function importSeed(replica: Replica, path: string) {
  await using seed = await SeedFile.open(nodeFiles, path);
  return await replica.seeding.import(seed);
}

/** What the protected site tells of a machine whose seed it announces. */
export const DETAILS = { machineName: 'box', retention: { types: { crash: 100, app: 100 } } };

/** Bytes in pieces of no round size. */
export async function* chunks(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 700) yield bytes.subarray(at, at + 700);
}

/** What the announcement of a seed sends. */
export async function leavesOf(sites: SeedSites, { machine }: SeedMachine): Promise<Buffer> {
  const sent: Buffer[] = [];
  const { target } = sites;
  const listening: ReplicationTarget = {
    siteId: target.siteId,
    describe: () => Promise.resolve(null),
    offer: () => assert.fail('nothing is offered'),
    upload: () => assert.fail('nothing is uploaded'),
    seeds: {
      keep: () => assert.fail('nothing is kept'),
      announce: async (_announcement, _details, leaves) => {
        for await (const chunk of leaves) for (const part of [chunk].flat()) sent.push(Buffer.from(part));
        throw new Error('heard');
      },
    },
  };
  await assert.rejects(machine.replicate(listening), /heard/);
  return Buffer.concat(sent);
}
