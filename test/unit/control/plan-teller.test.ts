/** Every site that is left has every plan: also one that has lost what it was told. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import type { AlertSink } from '../../../src/control/base/alerts.ts';
import type { AuditedAct } from '../../../src/control/base/audit.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { HEARTBEAT_EVERY_MS, PeerLinks } from '../../../src/control/peers/peer-links.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { PlanTeller } from '../../../src/control/plans/plan-teller.ts';
import type { Json } from '../../../src/lib/canonical-json.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { Peer, PeerClient, PeerDirectory } from '../../../src/peer/index.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

type Tools = ConstructorParameters<typeof PlanTeller>[0];

/** Two sites that answer each other. */
function sites(t: CleanUp) {
  const tellers = new Map<string, PlanTeller>();
  /** What the people of both sites are told. */
  const said: string[] = [];
  const callOf = (from: string, to: string) => async (name: string, body: Json) =>
    tellers.get(to)!.calls[name]!({ siteId: from } as never, body, undefined as never);
  const open = async (siteId: string, otherId: string, directory: string, wire?: Tools['links']) => {
    const alerts: AlertSink = {
      raise: (key, _severity, { code }) => void said.push(`${siteId}: ${code} ${key}`),
      clear: () => undefined,
    };
    const tools = { files: nodeFiles, clock: systemClock, alerts, events: new EventHub() };
    const store = await PlanStore.open(tools, directory);
    const links =
      wire ??
      ({
        views: () => (tellers.has(otherId) ? [{ siteId: otherId, presence: 'reachable' }] : []),
        client: () => ({ call: callOf(siteId, otherId) }),
      } as unknown as Tools['links']);
    const audit = {
      note: ({ actor, act, subject }: AuditedAct) => void said.push(`${siteId}: ${act} ${actor} ${subject}`),
    } as unknown as Tools['audit'];
    const teller = new PlanTeller({ store, links, audit, clock: systemClock, log: silentLog });
    tellers.set(siteId, teller);
    const close = async () => {
      tellers.delete(siteId);
      await teller.close();
    };
    t.after(close);
    return { store, teller, close };
  };
  return { open, tellers, callOf, said };
}

/** Links as a site has them, to one other that is there always; `started` says how often. */
function linksTo(
  t: CleanUp,
  siteId: string,
  o: { call: unknown; started: () => number; onReachable: () => void },
) {
  const clock = new FakeClock();
  const peer = { siteId, name: siteId } as Peer;
  const hello = async () => ({
    ...{ siteId, version: '1.0.0', protocol: 1, skewMs: 0, roundTripMs: 2 },
    startId: String(o.started()),
  });
  const links = new PeerLinks({
    ...{ clock, log: silentLog, alerts: { raise: () => undefined, clear: () => undefined } },
    peers: { list: () => [peer], get: () => peer, watch: () => () => undefined } as unknown as PeerDirectory,
    connect: () => ({ hello, call: o.call, close: () => undefined }) as unknown as PeerClient,
    onReachable: o.onReachable,
  });
  t.after(() => links.close());
  return { links, clock };
}

it('F5 a site that begins its plans anew is told them once more by those that have them', async (t) => {
  const { open } = sites(t);
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'plans.json');
  const north = await open('north', 'south', await temporaryDirectory(t));
  const first = await open('south', 'north', directory);
  for (const plan of ['shop', 'mail']) await north.store.put({ plan, machines: { db: {} } });
  const namesAt = ({ store }: typeof first) => store.plans.map(({ document }) => document.plan).toSorted();
  const hasBoth = (at: typeof first) => eventually(async () => namesAt(at).length === 2 || undefined);
  await hasBoth(first);
  await first.close();
  await writeFile(path, '{');
  const unread = await open('south', 'north', directory);
  north.teller.reached('south');
  await unread.close();
  await rm(path);
  const anew = await open('south', 'north', directory);
  north.teller.reached('south');
  await hasBoth(anew);
  assert.deepEqual(namesAt(anew), ['mail', 'shop']);
});

it('F5 a site that was started again between two heartbeats, its plans moved away, is told them once more', async (t) => {
  const { open, tellers, callOf } = sites(t);
  const directory = await temporaryDirectory(t);
  let started = 1;
  const { links, clock } = linksTo(t, 'south', {
    call: callOf('north', 'south'),
    started: () => started,
    onReachable: () => tellers.get('north')?.reached('south'),
  });
  const first = await open('south', 'north', directory);
  const north = await open('north', 'south', await temporaryDirectory(t), links);
  await clock.turn(0);
  await north.store.put({ plan: 'shop', machines: { db: {} } });
  const hasShop = (at: typeof first) => eventually(async () => at.store.find('shop'));
  await hasShop(first);
  await first.close();
  await rm(join(directory, 'plans.json'));
  const anew = await open('south', 'north', directory);
  started += 1;
  assert.equal(links.view('south')!.presence, 'reachable', 'nobody missed it');
  await clock.turn(HEARTBEAT_EVERY_MS);
  await hasShop(anew);
});

it('F5 a plan that both sites have changed is told to their people once, however often the link comes and goes', async (t) => {
  const { open, said } = sites(t);
  const directory = await temporaryDirectory(t);
  const alone = await open('south', 'north', directory);
  await alone.store.put({ plan: 'shop', machines: { web: {} } });
  await alone.close();
  const north = await open('north', 'south', await temporaryDirectory(t));
  await north.store.put({ plan: 'shop', machines: { db: {} } });
  let south = await open('south', 'north', directory);
  for (const mark of ['first', 'second', 'third']) {
    north.teller.reached('south');
    // Told after the shop.
    await north.store.put({ plan: mark, machines: { db: {} } });
    await eventually(async () => south.store.find(mark));
  }
  assert.ok(south.store.find('shop')!.conflict);
  const ofShop = () => said.filter((one) => one.includes('shop')).toSorted();
  const once = [
    ...['north: PLAN_CHANGED_TWICE plan:shop', 'north: plan.told peer:south shop'],
    ...['south: PLAN_CHANGED_TWICE plan:shop', 'south: plan.told peer:north shop'],
  ];
  assert.deepEqual(ofShop(), once);
  // A process that was killed before it had told of it leaves that to the next one.
  await south.close();
  south = await open('south', 'north', directory);
  assert.deepEqual(ofShop(), [...once, 'south: PLAN_CHANGED_TWICE plan:shop'].toSorted());
});
