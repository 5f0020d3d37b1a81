/** Who may bring which points. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkRoom } from '../../../src/control/replicas/receive-floor.ts';
import type { DeltaHeader } from '../../../src/delta/index.ts';
import type { Json } from '../../../src/lib/canonical-json.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import type { Peer } from '../../../src/peer/index.ts';
import { NOTHING_AT_HOME, ReplicationReceiver } from '../../../src/replication/index.ts';
import { copy } from '../../support/seed-acts.ts';
import { seedSites } from '../../support/seed-sites.ts';

const id = () => newId(systemClock, systemRandom);

test('S0.29 points of a machine come by one way: from their source, or by the site that began to forward them', async (t) => {
  const { replicas } = await seedSites(t);
  const [a, b, d] = [id(), id(), id()];
  const accepted: string[][] = [];
  const receiver = new ReplicationReceiver({
    home: NOTHING_AT_HOME,
    checkRoom: () => Promise.resolve(),
    ...{ replicas, log: silentLog, wallMs: () => systemClock.wallMs() },
    ...{ onPublished: () => undefined, olderDisks: () => undefined },
    preview: () => Promise.reject(new Error('nobody asks for a preview')),
    acceptOrigin: async ({ siteId, name }, from) => {
      if (name === 'stranger') throw new Error('not confirmed');
      accepted.push([siteId, from]);
    },
  });
  const headerOf = (machineId: string): DeltaHeader => ({
    ...{ session: id(), machineId, pointId: id(), sequence: 1, epoch: 1, parent: null },
    disks: [{ diskId: 'root', sizeBytes: 65_536 }],
    ...{ blockBytes: 65_536, granularityBytes: 4096, digest: 'sha256', firstFrame: 0 },
  });
  const call = (name: string, siteId: string, body: object) =>
    receiver.calls[name]!({ siteId } as Peer, body as Json, t.signal);
  const offer = (siteId: string, machineId: string, name?: string) => {
    const said = { header: headerOf(machineId), machineName: 'box', retention: { crash: 1, application: 1 } };
    const origin = name && { origin: { siteId: a, name, signingKey: 'key' } };
    const body = { ...said, wallMs: 0, ...origin };
    return call(origin ? 'replica.forward' : 'replica.offer', siteId, body);
  };
  const [forwarded, direct] = [id(), id()];
  await assert.rejects(offer(b, forwarded, 'stranger'), /not confirmed/);
  assert.equal(replicas.get(forwarded), undefined, 'nothing is made for an origin that is not accepted');
  assert.equal(((await offer(b, forwarded, 'home')) as { kind: string }).kind, 'accept');
  assert.deepEqual(accepted, [[a, b]]);
  const { sourceSiteId, viaSiteId } = replicas.need(forwarded).record;
  assert.deepEqual([sourceSiteId, viaSiteId], [a, b]);
  await offer(a, direct);

  const refusals = [
    [offer(a, forwarded), 'REPLICATION_COMES_FORWARDED'],
    [call('replica.describe', a, { machineId: forwarded }), 'REPLICATION_COMES_FORWARDED'],
    [offer(d, forwarded, 'home'), 'REPLICATION_NOT_YOURS'],
    [offer(b, forwarded), 'REPLICATION_NOT_YOURS'],
    [call('replica.describe', d, { machineId: forwarded }), 'REPLICATION_NOT_YOURS'],
    [offer(b, direct, 'home'), 'REPLICATION_NOT_YOURS'],
  ] as const;
  for (const [answer, code] of refusals) await assert.rejects(answer, { code });
  assert.ok(await call('replica.describe', b, { machineId: forwarded }));
});

test('S0.11 without room nothing more is taken in; what is there already is acknowledged all the same', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  const { replicas, origin } = sites;
  const { machineId } = box.machine.record;
  const { statement } = replicas.need(machineId).newest!;
  const receiver = new ReplicationReceiver({
    home: NOTHING_AT_HOME,
    ...{ replicas, log: silentLog, wallMs: () => systemClock.wallMs() },
    ...{ onPublished: () => undefined, olderDisks: () => undefined },
    preview: () => Promise.reject(new Error('nobody asks for a preview')),
    acceptOrigin: () => Promise.reject(new Error('nothing is forwarded')),
    checkRoom: () => checkRoom('/data', async () => ({ freeBytes: 9 * 2 ** 20, totalBytes: 1000 * 2 ** 20 })),
  });
  const offer = (of: Pick<DeltaHeader, 'pointId' | 'sequence' | 'parent'>) => {
    const header: DeltaHeader = {
      ...{ session: id(), machineId, epoch: 1, ...of },
      disks: statement.disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
      ...{ blockBytes: 65_536, granularityBytes: 4096, digest: 'sha256', firstFrame: 0 },
    };
    const body = { header, machineName: 'box', retention: { crash: 1, application: 1 }, wallMs: 0 };
    return receiver.calls['replica.offer']!(
      { siteId: origin.siteId } as Peer,
      body as unknown as Json,
      t.signal,
    );
  };
  const { pointId, sequence } = statement;
  const next = { pointId: id(), sequence: 2, parent: { pointId, statementDigest: 'x' } };
  await assert.rejects(offer(next), { code: 'DISK_FULL', message: /^9 MiB are left .* leave 10 MiB/ });
  assert.equal(replicas.need(machineId).describe().incoming, null);
  assert.equal(((await offer({ pointId, sequence, parent: null })) as { kind: string }).kind, 'already');
  const large = async () => ({ freeBytes: 5 * 2 ** 30, totalBytes: 2 ** 42 });
  await checkRoom('/data', large);
});
