/** Two sites as processes of their own, paired over the wire; one of them at a time is killed at any instant. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LedgerPort } from '../../../lab/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { randomBelow, systemRandom } from '../../../src/lib/random.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import { Replicas, verifyPoint } from '../../../src/replica/index.ts';
import type { TestApi } from '../../support/api.ts';
import { killablePair } from '../../support/killable-site.ts';
import { assertLedger, INCREMENT_BYTES_MAX } from '../../support/lab-sites.ts';
import { BOX, someonesMachine } from '../../support/paired-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const LIFE_MS_MAX = 2500;
const POINT_LIMIT_MS = 60_000;

const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 14_400_000 }) };

/** The newest point that a site lists, as soon as it is younger than `sequence`. */
async function pointAfter(api: TestApi, sequence: number): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + POINT_LIMIT_MS;
  for (;;) {
    const machines = await api.call('vm.list');
    const points = machines.length > 0 ? await api.call('point.list', BOX) : [];
    const newest = Math.max(0, ...points.map((point) => point.sequence ?? 0));
    if (newest > sequence) return newest;
    assert.ok(systemClock.monotonicMs() < deadlineMs, `no point after ${sequence} came`);
    await sleep(systemClock, 100);
  }
}

test(
  'S0.10 either site goes on where it was when its process alone is killed at any instant',
  LIMIT,
  async (context) => {
    const { t, directory, home, away, ...apis } = await killablePair(context);
    let { homeApi, awayApi } = apis;

    const { lab, attach } = await someonesMachine(t, directory);
    const ledger = await LedgerPort.connect({ path: lab.ledgerPath, clock: systemClock });
    t.after(() => ledger.close());
    await homeApi.call('vm.add', { body: { attach } });
    const retention = { types: { crash: 6, app: 2 } };
    await homeApi.call('vm.protect', { ...BOX, body: { every: { crash: 500 }, retention } });
    const seeded = await pointAfter(awayApi, 0);

    const kills = sized({ what: 'S0.10: kills of one site process', normal: 4, full: 200 });
    for (let i = 0; i < kills; i++) {
      const victim = i % 2 === 0 ? away : home;
      await sleep(systemClock, randomBelow(systemRandom, LIFE_MS_MAX));
      await victim.end('SIGKILL');
      // The guest was never asked to wait for any of this.
      await ledger.next();
      const api = await victim.serve();
      if (victim === away) awayApi = api;
      else homeApi = api;
    }
    const promised = ledger.last!.seq;
    const copied = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
    assert.ok('job' in copied && copied.job);
    const job = await homeApi.call('job.show', {
      params: { job: copied.job.jobId },
      query: { waitMs: '60000' },
    });
    assert.equal(job.state, 'done', JSON.stringify(job.failure));
    for (const { sequence, receivedBytes } of await awayApi.call('point.list', BOX))
      assert.ok(sequence === seeded || receivedBytes! < INCREMENT_BYTES_MAX, `${receivedBytes} bytes`);

    const { protected: shown } = await homeApi.call('vm.show', BOX);
    for (const { chain } of shown!.disks) assert.ok(chain.length <= 10, 'the protected chain stays short');

    await home.end('SIGTERM');
    await away.end('SIGTERM');
    const images = new QemuImages({ clock: systemClock });
    const tools = {
      ...{ files: nodeFiles, images, clock: systemClock, log: silentLog },
      zones: new Zones(),
      isSignedBySource: () => true,
    };
    const replicas = await Replicas.open(tools, away.dataDirectory);
    assert.deepEqual(replicas.broken, []);
    const [replica] = replicas.list();
    const sequences = replica!.points.map(({ statement }) => statement.sequence);
    assert.deepEqual([...new Set(sequences)], sequences);
    context.diagnostic(`${sequences.at(-1)} points in ${kills} lives`);
    let held = 0;
    for (const { statement } of replica!.points) {
      await verifyPoint(tools, replica!, statement.pointId);
      const chainOf = (disk: string) =>
        replica!.chain(statement.pointId, disk === 'system' ? 'disk0' : 'disk1');
      held = await assertLedger(images, chainOf, held);
    }
    assert.ok(held >= promised, `the newest point ends with ${held}, ${promised} were promised`);
  },
);
