/** Every site that is left has every plan: also one that has lost what it was told. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { PlanTeller } from '../../../src/control/plans/plan-teller.ts';
import type { Json } from '../../../src/lib/canonical-json.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { eventually } from '../../support/eventually.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

type Tools = ConstructorParameters<typeof PlanTeller>[0];

/** Two sites that answer each other. */
function sites(t: CleanUp) {
  const tellers = new Map<string, PlanTeller>();
  const open = async (siteId: string, otherId: string, directory: string) => {
    const alerts = { raise: () => undefined, clear: () => undefined };
    const tools = { files: nodeFiles, clock: systemClock, alerts, events: new EventHub() };
    const store = await PlanStore.open(tools, directory);
    const call = async (name: string, body: Json) =>
      tellers.get(otherId)!.calls[name]!({ siteId } as never, body, undefined as never);
    const links = {
      views: () => (tellers.has(otherId) ? [{ siteId: otherId, presence: 'reachable' }] : []),
      client: () => ({ call }),
    } as unknown as Tools['links'];
    const audit = { note: () => undefined } as unknown as Tools['audit'];
    const teller = new PlanTeller({ store, links, audit, clock: systemClock, log: silentLog });
    tellers.set(siteId, teller);
    const close = async () => {
      tellers.delete(siteId);
      await teller.close();
    };
    t.after(close);
    return { store, teller, close };
  };
  return { open };
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
