/**
 * How many points does a recovery site prove in an hour? Two lab machines with points in plenty, whose sources are off; the drill
 * service of a real site boots one after the other, with probes and console picture, and leaves signed proofs. First one guest
 * at a time, then two, which is what two processors have room for. The machines meet no network and no load but that of the site.
 *
 * And how soon has a drill given its memory back when a failover begins? `node bench/drills.ts [POINTS]`, a machine and phase.
 */
import type { DrillView } from '../src/api/index.ts';
import type { FailoverReport } from '../src/failover/index.ts';
import { sleep, systemClock } from '../src/lib/clock.ts';
import type { TestApi } from '../test/support/api.ts';
import { ended, pairedSites, resultOf, someonesMachine } from '../test/support/paired-sites.ts';
import type { TestSite } from '../test/support/served-sites.ts';
import { atLeast, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const POINTS = 10;
const NAMES = ['one', 'two'];
const MEMORY_BYTES = 1024 * 1024 * 1024;
const HOUR_MS = 3_600_000;
const DRILLS_AN_HOUR_TARGET = 50;
const ROUNDS_OF_WAY = 5;

const of = (machine: string) => ({ params: { machine } });

export async function run(points = POINTS): Promise<void> {
  await withScope(async (scope) => {
    const { t, directory, away, homeApi, awayApi } = await pairedSites(scope);
    for (const name of NAMES) await machineWithPoints(t, directory, homeApi, name, points);
    const rows = [
      await proveAll(away, awayApi, 'app', 1, points),
      await proveAll(away, awayApi, 'crash', 2, points),
    ];
    console.table(rows.map(({ row }) => row));
    for (const { atOnce, anHour } of rows) {
      const said = atLeast(anHour, DRILLS_AN_HOUR_TARGET, 0);
      console.log(`${atOnce} at once: drills an hour ${said}`);
    }
    console.log(
      `memory given back ${(await giveWay(awayApi)).toFixed(0)} ms after a failover began (median)`,
    );
  });
}

/** A machine of which the other site has so many points of each type; its guest ends, and leaves the processors to the drills. */
async function machineWithPoints(
  t: Parameters<typeof someonesMachine>[0],
  directory: string,
  api: TestApi,
  name: string,
  points: number,
): Promise<void> {
  const { lab, attach } = await someonesMachine(t, directory, name);
  await api.call('vm.add', { body: { attach } });
  const retention = { types: { crash: 2 * points, app: 2 * points } };
  await api.call('vm.protect', { ...of(name), body: { every: {}, retention } });
  for (let made = 0; made < 2 * points; made++) {
    const type = made % 2 === 0 ? 'app' : 'crash';
    const begun = await api.call('point.create', { ...of(name), body: { type, wait: true } });
    if (!('job' in begun) || !begun.job) throw new Error('no copy was made');
    await resultOf(api, begun.job);
  }
  await lab.stop();
}

/** Lets the site drill all points of a type, and says how fast it was. */
async function proveAll(away: TestSite, api: TestApi, type: string, atOnce: number, points: number) {
  const before = await drills(api);
  const budget = { memoryBytes: MEMORY_BYTES, atOnce };
  await api.call('drill.budget', { body: budget });
  await api.call('drill.setSitePolicy', { body: { copyTypes: [type], proveWithinMs: HOUR_MS } });
  const wanted = NAMES.length * points;
  let done: readonly DrillView[] = [];
  while (done.length < wanted) {
    const least = done.length + 1;
    done = await away.until(async () => {
      const now = (await drills(api)).filter(
        ({ jobId, endedAtMs }) => endedAtMs !== undefined && !before.some((one) => one.jobId === jobId),
      );
      return now.length >= least ? now : undefined;
    });
  }
  const bad = done.filter(({ outcome }) => outcome !== 'passed');
  if (bad.length > 0) throw new Error(`a drill did not pass: ${JSON.stringify(bad[0])}`);
  const tookMs =
    Math.max(...done.map(({ endedAtMs }) => endedAtMs!)) -
    Math.min(...done.map(({ startedAtMs }) => startedAtMs!));
  const eachMs = done.map(({ startedAtMs, endedAtMs }) => endedAtMs! - startedAtMs!);
  const anHour = (done.length * HOUR_MS) / tookMs;
  return {
    ...{ atOnce, anHour },
    row: {
      'at once': atOnce,
      'points (type)': `${done.length} (${type})`,
      'all took, s': (tookMs / 1000).toFixed(1),
      'a drill, s (median)': (median(eachMs) / 1000).toFixed(2),
      'RTO, s (median)': (median(done.map(({ rtoMs }) => rtoMs!)) / 1000).toFixed(2),
      'drills an hour': anHour.toFixed(0),
    },
  };
}

async function drills(api: TestApi): Promise<readonly DrillView[]> {
  const all = await Promise.all(NAMES.map((name) => api.call('drill.list', of(name))));
  return all.flat();
}

/** From the begin of a failover to the end of the drill that it meets; of the first machine's drill and the second one's failover. */
async function giveWay(api: TestApi): Promise<number> {
  await api.call('drill.pause', { body: { isPaused: true } });
  const took: number[] = [];
  for (let round = 0; round < ROUNDS_OF_WAY; round++) {
    const drill = await api.call('drill.now', { ...of('one'), body: {} });
    // Branches tell nobody how far they are.
    while (!(await api.call('failover.list', of('one'))).some(({ running }) => running)) {
      await sleep(systemClock, 20);
    }
    const body = { confirmOtherSideDown: true } as const;
    const failover = await api.call('failover.start', { ...of('two'), body });
    const report = (await resultOf(api, failover)) as FailoverReport;
    const { endedAtMs, failure } = await ended(api, drill);
    if (failure?.code !== 'FAILOVER_GAVE_WAY')
      throw new Error('the drill had ended before the failover began');
    took.push(endedAtMs! - report.startedAtMs);
    const params = { machine: 'two', branch: report.branchId! };
    await resultOf(api, await api.call('failover.cleanup', { params }));
  }
  return median(took);
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? POINTS));
}
