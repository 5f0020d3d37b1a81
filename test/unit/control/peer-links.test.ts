import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { HEARTBEAT_EVERY_MS, PeerLinks, SILENT_AFTER_MS } from '../../../src/control/peers/peer-links.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { Hello, Peer, PeerClient, PeerDirectory } from '../../../src/peer/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { failure, SITE_ID } from './fake-machine.ts';

const PEER = {
  ...{ siteId: SITE_ID, name: 'Bergen', caCertificate: '', signingKey: '', pairedAtMs: 0 },
  address: { host: 'bergen.example', port: 7443 },
} satisfies Peer;

const HELLO: Hello = { siteId: SITE_ID, version: '1.0.0', protocol: 1, skewMs: 0, roundTripMs: 2 };

/** Links to one peer whose answers the test gives. */
async function linked(t: TestContext) {
  const clock = new FakeClock();
  const alerts = new Map<string, string>();
  const told: string[] = [];
  const connected: Peer[] = [];
  let closed = 0;
  let peer: Peer = PEER;
  let answer: () => Hello = () => HELLO;
  let watcher: (peer: Peer) => void = () => undefined;
  const links = new PeerLinks({
    clock,
    log: silentLog,
    peers: {
      list: () => [peer],
      get: () => peer,
      watch: (fn: typeof watcher) => {
        watcher = fn;
        return () => undefined;
      },
    } as unknown as PeerDirectory,
    connect: (to) => {
      connected.push(to);
      return { hello: async () => answer(), close: () => void closed++ } as unknown as PeerClient;
    },
    alerts: {
      raise: (key, _severity, { code }) => void alerts.set(key, code),
      clear: (key) => void alerts.delete(key),
    },
    onReachable: (siteId) => void told.push(siteId),
  });
  t.after(async () => {
    await links.close();
    assert.equal(clock.pending, 0, 'no timer outlives the links');
    assert.equal(closed, connected.length, 'every client is closed');
  });
  await clock.turn(0);
  const answers = (fn: () => Hello): void => {
    answer = fn;
  };
  const change = async (to: Peer): Promise<void> => {
    peer = to;
    watcher(to);
    await clock.turn(0);
  };
  return { clock, links, alerts, told, connected, answers, change };
}

const silent = (): never => {
  throw failure('PEER_UNREACHABLE', 'later');
};

describe('links with peers', () => {
  it('tell when a peer is reachable, once, and when it was last seen', async (t) => {
    const { clock, links, told } = await linked(t);
    await clock.turn(5 * HEARTBEAT_EVERY_MS);
    assert.deepEqual(told, [SITE_ID]);
    const [view] = links.views();
    assert.deepEqual(
      [view!.presence, view!.version, view!.lastSeenAtMs],
      ['reachable', '1.0.0', clock.wallMs()],
    );
  });

  it('tell that a peer is reachable once more when its site was started again between two heartbeats', async (t) => {
    const { clock, told, answers } = await linked(t);
    for (const startId of [undefined, 'first', 'first', 'second', 'second', undefined]) {
      answers(() => ({ ...HELLO, ...(startId ? { startId } : {}) }));
      await clock.turn(HEARTBEAT_EVERY_MS);
    }
    // When the link was made, and when a program came that tells, was started again, and gave way to one that does not.
    assert.deepEqual(told, Array(4).fill(SITE_ID));
  });

  it('raise an alert when a peer has been silent for a minute, not before, and clear it when it is back', async (t) => {
    const { clock, links, alerts, told, answers } = await linked(t);
    answers(silent);
    await clock.turn(SILENT_AFTER_MS - 1);
    assert.equal(links.view(SITE_ID)!.presence, 'silent');
    assert.equal(alerts.size, 0);
    await clock.turn(1);
    assert.deepEqual([...alerts.values()], ['SITE_PEER_SILENT']);
    answers(() => HELLO);
    await clock.turn(HEARTBEAT_EVERY_MS);
    assert.equal(alerts.size, 0);
    assert.deepEqual(told, [SITE_ID, SITE_ID]);
  });

  it('tell at once that a peer refuses this site', async (t) => {
    const { clock, alerts, answers } = await linked(t);
    answers(() => {
      throw failure('PEER_REVOKED', 'never');
    });
    await clock.turn(HEARTBEAT_EVERY_MS);
    assert.deepEqual([...alerts.values()], ['PEER_REVOKED']);
  });

  it('wait for a site that has just been paired to know this one, and tell when it does not', async (t) => {
    const { clock, links, alerts, answers, change } = await linked(t);
    const unknown = (): never => {
      throw failure('PEER_UNKNOWN', 'never');
    };
    answers(unknown);
    await change({ ...PEER, name: 'Bergen 2' });
    await clock.turn(2000);
    assert.equal(alerts.size, 0);
    answers(() => HELLO);
    await clock.turn(1000);
    assert.equal(links.view(SITE_ID)!.presence, 'reachable', 'it is asked again soon');
    answers(unknown);
    await clock.turn(HEARTBEAT_EVERY_MS);
    assert.deepEqual([...alerts.values()], ['PEER_UNKNOWN'], 'it has forgotten this site');
    await change({ ...PEER, name: 'Bergen 3' });
    assert.equal(alerts.size, 0);
    await clock.turn(HEARTBEAT_EVERY_MS);
    assert.deepEqual([...alerts.values()], ['PEER_UNKNOWN'], 'it never knew it');
  });

  it('warn of clocks that differ by more than 5 s, whatever the round trip hides', async (t) => {
    const { clock, alerts, answers } = await linked(t);
    answers(() => ({ ...HELLO, skewMs: -6000 }));
    await clock.turn(HEARTBEAT_EVERY_MS);
    assert.deepEqual([...alerts.values()], ['SITE_CLOCK_SKEW']);
    answers(() => ({ ...HELLO, skewMs: 5400, roundTripMs: 1000 }));
    await clock.turn(HEARTBEAT_EVERY_MS);
    assert.equal(alerts.size, 0, 'the difference may be the measurement’s');
  });

  it('are made anew when the peer has another address, and end when it is revoked', async (t) => {
    const { links, connected, change } = await linked(t);
    await change({ ...PEER, address: { host: 'elsewhere.example', port: 1 } });
    assert.equal(connected.at(-1)!.address.host, 'elsewhere.example');
    await change({ ...PEER, revokedAtMs: 1 });
    assert.equal(connected.length, 2);
    assert.throws(() => links.client(SITE_ID), { code: 'SITE_PEER_UNKNOWN' });
  });
});
