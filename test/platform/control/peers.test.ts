import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { loadIdentity, PeerClient, PeerDirectory } from '../../../src/peer/index.ts';
import { lastFirst } from '../../support/last-first.ts';
import { TestSite } from '../../support/served-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const MIB = 1024 * 1024;
const BOX = { params: { machine: 'box' } };

async function twoPairedSites(context: CleanUp) {
  const t = lastFirst(context);
  const directory = await temporaryDirectory(t);
  const north = await TestSite.init(t, directory, 'north');
  const south = await TestSite.init(t, directory, 'south');
  const northApi = await north.serve();
  const southApi = await south.serve();
  const { token } = await southApi.call('site.token', { body: { host: '127.0.0.1' } });
  await northApi.call('site.pair', { body: { token, host: '127.0.0.1' } });
  return { t, directory, north, south, northApi, southApi };
}

/** A client of `to` as the site `from` has it, with a connection of its own. */
async function clientOf(t: CleanUp, from: TestSite, to: TestSite): Promise<PeerClient> {
  const identity = await loadIdentity(nodeFiles, from.dataDirectory);
  const peers = await PeerDirectory.load(nodeFiles, from.dataDirectory);
  const peer = peers.get(to.served.site.identity.siteId);
  assert.ok(identity && peer);
  const client = new PeerClient({ identity, peer, clock: systemClock, random: systemRandom });
  t.after(() => client.close());
  return client;
}

describe('the peers of a site', { timeout: 120_000 }, () => {
  it('a peer that was removed is refused at its next call, also after a restart, until it is paired again', async (t) => {
    const { north, south, northApi, southApi } = await twoPairedSites(t);
    const client = await clientOf(t, north, south);
    await client.hello();
    const removed = await southApi.call('peer.remove', { params: { peer: 'north' }, body: {} });
    assert.ok(removed.revokedAtMs);
    await assert.rejects(client.hello(), { code: 'PEER_REVOKED' });
    await south.close();
    const served = await south.serve();
    const { port } = south.served.site.peerAddress;
    const elsewhere = { params: { peer: 'south' }, body: { host: '127.0.0.1', port } };
    await northApi.call('peer.address', elsewhere);
    await assert.rejects((await clientOf(t, north, south)).hello(), { code: 'PEER_REVOKED' });
    const { entries } = await served.call('audit.list');
    assert.deepEqual(
      entries.filter(({ act }) => act === 'peer.remove').map(({ phase, details }) => [phase, details]),
      [
        ['done', {}],
        ['intent', { name: 'north', force: false }],
      ],
    );
    const { token } = await served.call('site.token', { body: { host: '127.0.0.1' } });
    await northApi.call('site.pair', { body: { token, host: '127.0.0.1' } });
    await (await clientOf(t, north, south)).hello();
  });

  it('a peer is not removed by mistake while machines are protected to it or replicas come from it', async (t) => {
    const { directory, northApi, southApi } = await twoPairedSites(t);
    const disk = join(directory, 'disk.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(8 * MIB)]);
    await northApi.call('vm.add', {
      body: {
        configuration: {
          ...{ name: 'box', uuid: '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ab', architecture: 'x86_64' },
          ...{
            chipset: 'q35',
            firmware: 'bios',
            cpus: 1,
            memoryBytes: 64 * MIB,
            nics: [],
            guestAgent: false,
          },
          disks: [{ diskId: 'disk0', bus: 'virtio-blk', sizeBytes: 8 * MIB }],
        },
        disks: [{ diskId: 'disk0', path: disk, format: 'qcow2' }],
      },
    });
    await northApi.call('vm.protect', {
      ...BOX,
      body: { every: {}, retention: { types: { crash: 3, app: 0 } } },
    });
    const created = await northApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in created);
    const query = { waitMs: '30000' };
    const { state } = await northApi.call('job.show', { params: { job: created.job.jobId }, query });
    assert.equal(state, 'done');
    const refused = (what: RegExp) => ({ code: 'SITE_PEER_IN_USE', message: what });
    const remove = (force: boolean) => ({ body: { force } });
    await assert.rejects(
      northApi.call('peer.remove', { params: { peer: 'south' }, ...remove(false) }),
      refused(/the copies of box go there/),
    );
    await assert.rejects(
      southApi.call('peer.remove', { params: { peer: 'north' }, ...remove(false) }),
      refused(/the replicas of box come from there/),
    );
    assert.ok((await northApi.call('site.peers')).every(({ revokedAtMs }) => revokedAtMs === undefined));
    await southApi.call('peer.remove', { params: { peer: 'north' }, ...remove(true) });
    assert.equal((await southApi.call('point.list', BOX)).length, 1, 'what is there stays');
    await northApi.call('peer.remove', { params: { peer: 'south' }, ...remove(true) });
    const again = await northApi.call('peer.remove', { params: { peer: 'south' }, ...remove(true) });
    assert.ok(again.revokedAtMs);
  });

  it('a peer is reached where it listens now, and a name that is none is told', async (t) => {
    const { south, northApi } = await twoPairedSites(t);
    await south.close();
    await south.serve();
    const { port } = south.served.site.peerAddress;
    const body = { host: '127.0.0.1', port };
    const changed = await northApi.call('peer.address', { params: { peer: 'south' }, body });
    assert.deepEqual(changed.address, body);
    for (;;) {
      const [peer] = await northApi.call('site.peers');
      if (peer?.presence === 'reachable') break;
      await sleep(systemClock, 20);
    }
    await assert.rejects(northApi.call('peer.address', { params: { peer: 'west' }, body }), {
      code: 'SITE_PEER_UNKNOWN',
    });
    await northApi.call('peer.remove', { params: { peer: 'south' }, body: {} });
    await assert.rejects(northApi.call('peer.address', { params: { peer: 'south' }, body }), {
      code: 'SITE_PEER_UNKNOWN',
    });
  });
});
