import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { loadIdentity, PeerClient, PeerDirectory } from '../../../src/peer/index.ts';
import { BOX, machineThatIsOff, pair, pairedSites, resultOf } from '../../support/paired-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const MIB = 1024 * 1024;

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
    const { home, away, homeApi, awayApi } = await pairedSites(t);
    const client = await clientOf(t, home, away);
    await client.hello();
    const removed = await awayApi.call('peer.remove', { params: { peer: 'home' }, body: {} });
    assert.ok(removed.revokedAtMs);
    await assert.rejects(client.hello(), { code: 'PEER_REVOKED' });
    await away.close();
    const served = await away.serve();
    const { port } = away.served.site.peerAddress;
    const elsewhere = { params: { peer: 'away' }, body: { host: '127.0.0.1', port } };
    await homeApi.call('peer.address', elsewhere);
    await assert.rejects((await clientOf(t, home, away)).hello(), { code: 'PEER_REVOKED' });
    const { entries } = await served.call('audit.list');
    assert.deepEqual(
      entries.filter(({ act }) => act === 'peer.remove').map(({ phase, details }) => [phase, details]),
      [
        ['done', {}],
        ['intent', { name: 'home', force: false }],
      ],
    );
    await pair(homeApi, served);
    await (await clientOf(t, home, away)).hello();
  });

  it('a peer is not removed by mistake while machines are protected to it or replicas come from it', async (t) => {
    const { directory, homeApi, awayApi } = await pairedSites(t);
    const disk = join(directory, 'disk.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(8 * MIB)]);
    const body = machineThatIsOff({ path: disk, sizeBytes: 8 * MIB, format: 'qcow2' });
    await homeApi.call('vm.add', { body });
    await homeApi.call('vm.protect', {
      ...BOX,
      body: { every: {}, retention: { types: { crash: 3, app: 0 } } },
    });
    const created = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in created);
    await resultOf(homeApi, created.job);
    const refused = (what: RegExp) => ({ code: 'SITE_PEER_IN_USE', message: what });
    const remove = (force: boolean) => ({ body: { force } });
    await assert.rejects(
      homeApi.call('peer.remove', { params: { peer: 'away' }, ...remove(false) }),
      refused(/the copies of box go there/),
    );
    await assert.rejects(
      awayApi.call('peer.remove', { params: { peer: 'home' }, ...remove(false) }),
      refused(/the replicas of box come from there/),
    );
    assert.ok((await homeApi.call('site.peers')).every(({ revokedAtMs }) => revokedAtMs === undefined));
    await awayApi.call('peer.remove', { params: { peer: 'home' }, ...remove(true) });
    assert.equal((await awayApi.call('point.list', BOX)).length, 1, 'what is there stays');
    await homeApi.call('peer.remove', { params: { peer: 'away' }, ...remove(true) });
    const again = await homeApi.call('peer.remove', { params: { peer: 'away' }, ...remove(true) });
    assert.ok(again.revokedAtMs);
  });

  it('a peer is reached where it listens now, and a name that is none is told', async (t) => {
    const { away, homeApi } = await pairedSites(t);
    await away.close();
    await away.serve();
    const { port } = away.served.site.peerAddress;
    const body = { host: '127.0.0.1', port };
    const changed = await homeApi.call('peer.address', { params: { peer: 'away' }, body });
    assert.deepEqual(changed.address, body);
    for (;;) {
      const [peer] = await homeApi.call('site.peers');
      if (peer?.presence === 'reachable') break;
      await sleep(systemClock, 20);
    }
    await assert.rejects(homeApi.call('peer.address', { params: { peer: 'west' }, body }), {
      code: 'SITE_PEER_UNKNOWN',
    });
    await homeApi.call('peer.remove', { params: { peer: 'away' }, body: {} });
    await assert.rejects(homeApi.call('peer.address', { params: { peer: 'away' }, body }), {
      code: 'SITE_PEER_UNKNOWN',
    });
  });
});
