/**
 * The demonstration: two sites as separate processes, a running machine replicated from one to the other, the first site
 * killed in the middle of a transfer, the machine brought up at the second, and everything that was promised checked.
 *
 *   npm run demo             ends everything that it started
 *   npm run demo -- --keep   leaves both sites and the recovered machine running
 *   npm run demo -- --plan   three machines that talk to each other, recovered by a plan and brought home; needs bridges of this host
 *   --seconds N              watches replication for N seconds instead of 60
 */
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { LedgerPort, type LedgerReport } from '../lab/index.ts';
import type { RouteAnswer } from '../src/api/index.ts';
import type { FailoverReport } from '../src/failover/index.ts';
import { systemClock } from '../src/lib/clock.ts';
import { type Ends, endProcess, pairedDemoSites } from './demo-sites.ts';
import { leaveRunning } from './kept.ts';
import { describeLabMachine } from './lab-machine.ts';
import { recoverShop } from './plan-demo.ts';
import { checkPointLedger } from './recovered-ledger.ts';
import { report } from './report.ts';
import { say } from './say.ts';
import { watchReplication } from './watch-replication.ts';

const NAME = 'lab';
/** Slow enough for a disaster to find a transfer under way. */
const WAN_BYTES_PER_SECOND = 128 * 1024;

/** What is left of a run that cleaned up after itself. */
const KEPT = join(import.meta.dirname, '..', '.cache', 'demo');

const { values: options } = parseArgs({
  options: {
    keep: { type: 'boolean', default: false },
    plan: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '60' },
  },
});
/** Replication is watched for so long before the disaster. */
const watchSeconds = Number(options.seconds);
const ends: Ends = [];

async function main(): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-demo-'));
  if (!options.keep) ends.push(() => rm(directory, { recursive: true, force: true }));

  const lab = describeLabMachine(directory, NAME);
  const [alpha, beta] = await pairedDemoSites(directory, ends);

  say.chapter('A machine with two disks whose guest writes a ledger');
  const { descriptionPath, ledgerPath } = await lab;
  await alpha.run(['vm', 'add', '--from', descriptionPath]);
  await alpha.run(['vm', 'start', NAME]);
  const alphaQemu = (await alpha.machine(NAME)).protected?.presence.processId;
  if (alphaQemu) ends.push(async () => endProcess(alphaQemu));
  const ledger = await LedgerPort.connect({ path: ledgerPath, clock: systemClock });
  ends.push(async () => ledger.close());
  const reports: LedgerReport[] = [];
  ledger.subscribe((entry) => reports.push(entry));
  const first = await ledger.reached(1, 90_000);
  say.line(`the guest is up; its ledger stands at record ${first.seq}`);

  say.chapter('Protection: a crash-consistent copy every 5 s, an application-consistent one every 20 s');
  await alpha.run(['vm', 'protect', NAME, '--crash-every', '5s', '--app-every', '20s', '--no-wait']);
  const watch = await watchReplication({
    ...{ alpha, beta, machine: NAME, ledger, seconds: watchSeconds },
    afterSeeding: () => alpha.run(['vm', 'policy', NAME, '--rate', `${WAN_BYTES_PER_SECOND / 1024}K/s`]),
  });

  say.chapter('The protected site dies: SIGKILL to its QEMU and to its site process');
  const cutOff = await watch.transferUnderWay();
  if (alphaQemu) endProcess(alphaQemu);
  await alpha.end('SIGKILL');
  const killedAtMs = systemClock.wallMs();
  const lastReport = reports.at(-1)!;
  say.line(`the last record that the guest reported is ${lastReport.seq}`);
  if (cutOff) say.line(`a delta was on its way: ${cutOff.bytesDone} of ${cutOff.bytesTotal} bytes`);

  say.chapter('Failover at the recovery site, by its own choice of point');
  const answer = await beta.run(['failover', 'start', NAME, '--confirm-other-side-down']);
  const failover = (answer as { result: FailoverReport }).result;
  say.line(
    `point #${failover.point.sequence} (${failover.point.consistency}) answers after ${((failover.rtoMs ?? 0) / 1000).toFixed(2)} s`,
  );
  if (failover.branchId && !options.keep) {
    const branchId = failover.branchId;
    ends.push(async () => void (await beta.run(['failover', 'cleanup', NAME, branchId, '--discard-writes'])));
  }

  say.chapter('What was kept');
  const drill = await beta.run(['failover', 'test', NAME, '--point', failover.point.pointId]);
  const bootProof = (drill as { result: FailoverReport }).result;
  const picturePath = await keptPicture(bootProof);
  const points = await beta.points(NAME);
  const { machineId } = await beta.machine(NAME);
  const verified = (await beta.run(['point', 'verify', NAME, failover.point.pointId])) as {
    result: { blocks: number; bytes: number };
  };
  const checked = await checkPointLedger(beta.dataDirectory, machineId, points, failover.point.pointId);
  // What the guest had reported before the cut must be in the point.
  const cutAtMs = cutAtAlphaMs(points, failover.point.pointId);
  const promisedSeq = reports.findLast(({ hostWallMs }) => hostWallMs < cutAtMs)?.seq ?? 0;
  const failed = report({
    ...{ points, killedAtMs, lastReport, cutOff, failover, promisedSeq, ledger: checked },
    ...{
      publishedByType: watch.publishedByType,
      changedBytes: watch.changedBytes,
      receivedBytes: watch.receivedBytes,
    },
    ...{ contentProof: verified.result, bootProof, picturePath },
  });
  console.log(`\n  ${say.elapsedSeconds().toFixed(0)} s in all`);
  if (options.keep) {
    await leaveRunning({ alpha, beta, machine: NAME, branchId: failover.branchId, directory });
    ends.length = 0;
  }
  return failed.length === 0 ? 0 : 1;
}

/**
 * When a point was cut, on the clock of the protected site, which is also that of this process. The recovery site tells its own
 * time, put right by the difference of the clocks that it has measured; some records fit into what that may be off by.
 */
function cutAtAlphaMs(points: RouteAnswer<'point.list'>, pointId: string): number {
  const { cutAtMs, skewMs = 0 } = points.find((point) => point.pointId === pointId)!;
  return Math.floor(cutAtMs + skewMs);
}

/** The console picture of the boot proof, copied to where it outlives the demonstration. */
async function keptPicture({ attempts }: FailoverReport): Promise<string | undefined> {
  const taken = attempts.at(-1)?.picturePath;
  if (!taken) return undefined;
  await mkdir(KEPT, { recursive: true });
  const path = join(KEPT, 'console.png');
  await copyFile(taken, path);
  return path;
}

async function cleanUp(): Promise<void> {
  for (const end of ends.splice(0).reverse()) {
    try {
      await end();
    } catch (error) {
      console.error(`clean-up: ${error instanceof Error ? error.message : String(error)}`);
      process.exitCode = 1;
    }
  }
}

process.once('SIGINT', () => void cleanUp().then(() => process.exit(130)));
try {
  process.exitCode = options.plan ? await recoverShop(ends) : await main();
} finally {
  await cleanUp();
}
