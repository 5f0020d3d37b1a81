/** An hour of copies every five seconds, made by a site itself: how deep the chain of a running machine becomes in QEMU. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { LedgerPort } from '../../../lab/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { ReplicaLayout } from '../../../src/replica/layout.ts';
import { loadPoints } from '../../../src/replica/loading.ts';
import { assertLedger } from '../../support/lab-sites.ts';
import { BOX, pairedSites, someonesMachine } from '../../support/paired-sites.ts';
import { verifiedCopy } from '../../support/site-of-box.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';
import { chainInHeaders } from '../../support/sound-layers.ts';

const EVERY_MS = 5000;
const LOOK_EVERY_MS = 100;
/** Layers above the owner's file: the tip, and one that is on its way. */
const DEPTH_MAX = 2;

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 4_500_000 }) };

it(
  'S0.14 a machine that its site copies every five seconds never has more than two layers above its own file',
  LIMIT,
  async (context) => {
    const { t, directory, away, homeApi, awayApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    const ledger = await LedgerPort.connect({ path: lab.ledgerPath, clock: systemClock });
    t.after(() => ledger.close());
    const { machineId } = await homeApi.call('vm.add', { body: { attach } });
    const retention = { types: { crash: 6 } };
    await homeApi.call('vm.protect', { ...BOX, body: { every: {}, retention } });
    const first = await verifiedCopy(homeApi);

    const spanMs = 1000 * sized({ what: 'S0.14: seconds of copies every five', normal: 60, full: 3600 });
    await homeApi.call('vm.policy', { ...BOX, body: { every: { crash: EVERY_MS } } });
    const untilMs = systemClock.monotonicMs() + spanMs;
    const seen = new Map<number, number>();
    while (systemClock.monotonicMs() < untilMs) {
      for (const { inserted } of (await lab.execute('query-block')) as QueryBlock) {
        const depth = inserted?.backing_file_depth ?? 0;
        seen.set(depth, (seen.get(depth) ?? 0) + 1);
      }
      await sleep(systemClock, LOOK_EVERY_MS);
    }
    await homeApi.call('vm.policy', { ...BOX, body: { every: {} } });
    const promised = (await ledger.next()).seq;
    const last = await verifiedCopy(homeApi);
    const copies = last.sequence - first.sequence;
    context.diagnostic(`${copies} copies; looks by depth: ${JSON.stringify(Object.fromEntries(seen))}`);
    assert.ok(Math.max(...seen.keys()) <= DEPTH_MAX, `depth ${Math.max(...seen.keys())}`);
    assert.ok(copies >= (0.9 * spanMs) / EVERY_MS, `${copies} copies`);

    // What has gone through so many merges at both sites is what the guest has written.
    const point = { params: { machine: 'box', point: last.pointId } };
    assert.equal((await awayApi.call('point.show', point)).state, 'verified');
    await away.close();
    const layout = new ReplicaLayout(away.dataDirectory, machineId);
    const { statement } = (await loadPoints(nodeFiles, layout)).at(-1)!;
    const chains = {
      system: await chainInHeaders(layout.layer('disk0', statement.pointId)),
      data: await chainInHeaders(layout.layer('disk1', statement.pointId)),
    };
    await assertLedger(new QemuImages({ clock: systemClock }), (disk) => chains[disk], promised);
  },
);

type QueryBlock = readonly { readonly inserted?: { readonly backing_file_depth: number } }[];
