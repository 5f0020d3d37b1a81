/**
 * What does a recovery plan add to the boots of its machines? Twenty lab machines in four tiers, each up when its guest agent answers: brought
 * up by a plan from points of a replica, and, in turn, by a script that starts the same disks as flat images with plain
 * `qemu-system-x86_64`, a tier when the one before it is up, with as many at a time.
 *
 * And what does the run itself cost a step, with machines that are up at once? Everything is recorded as ever. `node bench/plan.ts [ROUNDS]`
 */
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type LabDisk, type LabMachine, startLabMachine } from '../lab/index.ts';
import type { JobView, PlanDocument, PlanRun } from '../src/api/index.ts';
import { EventHub } from '../src/control/base/event-hub.ts';
import { touchedNow } from '../src/control/plans/absence.ts';
import { PlanRunner } from '../src/control/plans/plan-runner.ts';
import { PlanStore } from '../src/control/plans/plan-store.ts';
import { connectGuest } from '../src/hypervisor/index.ts';
import { bootClock } from '../src/lib/boot-clock.ts';
import { systemClock as clock } from '../src/lib/clock.ts';
import { silentLog } from '../src/lib/log.ts';
import { nodeFiles } from '../src/lib/node-files.ts';
import { runCommand } from '../src/lib/processes.ts';
import { newId, systemRandom } from '../src/lib/random.ts';
import type { TestApi } from '../test/support/api.ts';
import { resultOf } from '../test/support/paired-sites.ts';
import { type ShopMachine, sitesWithShop } from '../test/support/shop-sites.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const TIERS = 4;
const MACHINES_OF_TIER = 5;
const ROUNDS = 3;
const RATIO_TARGET = 1.15;
const STEP_TARGET_MS = 20;
/** As the plan does it. */
const MOST_AT_ONCE = 4;
const STEPS_RUNS = 5;

const MACHINES: readonly ShopMachine[] = Array.from({ length: TIERS * MACHINES_OF_TIER }, (_, index) => ({
  name: `m${String(index).padStart(2, '0')}`,
  address: `10.77.0.${index + 2}/24`,
  mac: `52:54:00:77:03:${index.toString(16).padStart(2, '0')}`,
}));

const PLAN: PlanDocument = {
  plan: 'bench',
  machines: Object.fromEntries(
    MACHINES.map(({ name }, index) => [name, { tier: 1 + Math.floor(index / MACHINES_OF_TIER) }]),
  ),
};

export async function run(rounds = ROUNDS): Promise<void> {
  const stepMs: number[] = [];
  for (let times = 0; times < STEPS_RUNS; times++) stepMs.push(await stepsAlone());
  console.log(
    `a step of a run of ${MACHINES.length} machines that are up at once takes, in ms, ${atMost(median(stepMs), STEP_TARGET_MS, 1)} (median of ${STEPS_RUNS} runs)`,
  );
  await withScope(async (scope) => {
    const { directory, home, awayApi } = await sitesWithShop(scope, MACHINES);
    await home.close();
    await awayApi.call('plan.put', { body: PLAN });
    const planned: number[] = [];
    const plain: number[] = [];
    for (let round = 0; round < rounds; round++) {
      // In turn, and each of them first as often as the other.
      const both = [
        async () => plain.push(await bootPlainly(directory)),
        async () => planned.push(await recover(awayApi)),
      ];
      for (const one of round % 2 === 0 ? both : both.toReversed()) await one();
    }
    const ratios = planned.map((ms, round) => ms / plain[round]!);
    console.table(
      planned.map((ms, round) => ({
        'plain QEMU, s': Number((plain[round]! / 1000).toFixed(1)),
        'plan, s': Number((ms / 1000).toFixed(1)),
        ratio: Number(ratios[round]!.toFixed(3)),
      })),
    );
    console.log(
      `${MACHINES.length} machines in ${TIERS} tiers: a plan takes of the time of plain QEMU ${atMost(median(ratios), RATIO_TARGET)}`,
    );
  });
}

/** From the command until all are up; everything is cleaned up before the return. */
async function recover(api: TestApi): Promise<number> {
  const sinceMs = clock.monotonicMs();
  const body = { mode: 'unplanned', confirmOtherSideDown: true } as const;
  const { job } = await api.call('plan.run', { params: { plan: PLAN.plan }, body });
  const done = (await resultOf(api, job)) as PlanRun;
  const tookMs = clock.monotonicMs() - sinceMs;
  if (done.verdict !== 'done') throw new Error(JSON.stringify(done.steps));
  for (const { machine, branchId } of done.steps) {
    const params = { machine, branch: branchId! };
    await resultOf(api, await api.call('failover.cleanup', { params }));
  }
  return tookMs;
}

/** What a person's script would do, on flat copies of the disks, which are made before the clock runs. */
async function bootPlainly(directory: string): Promise<number> {
  const plain = join(directory, 'plain');
  const started: LabMachine[] = [];
  try {
    for (const { name } of MACHINES) {
      await mkdir(join(plain, name), { recursive: true });
      for (const disk of ['system', 'data']) {
        await copyFile(join(directory, `shop-${name}`, `${disk}.qcow2`), join(plain, name, `${disk}.qcow2`));
      }
    }
    // What was copied is written out before the clock runs: its writeback would slow down the guests of one side alone.
    await runCommand('sync', []);
    const sinceMs = clock.monotonicMs();
    for (let tier = 0; tier < TIERS; tier++) {
      const waiting = MACHINES.slice(tier * MACHINES_OF_TIER, (tier + 1) * MACHINES_OF_TIER);
      const startNext = async (): Promise<void> => {
        for (let next = waiting.shift(); next; next = waiting.shift()) {
          started.push(await bootOne(join(plain, next.name), next.mac));
        }
      };
      await Promise.all(Array.from({ length: MOST_AT_ONCE }, startNext));
    }
    return clock.monotonicMs() - sinceMs;
  } finally {
    for (const machine of started) await machine.stop();
    await rm(plain, { recursive: true, force: true });
  }
}

async function bootOne(directory: string, mac: string): Promise<LabMachine> {
  const disks = ['system', 'data'].map(
    (name): LabDisk => ({ name, path: join(directory, `${name}.qcow2`), format: 'qcow2' }),
  );
  const nic = ['-netdev', 'hubport,id=lan,hubid=1', '-device', `virtio-net-pci,netdev=lan,mac=${mac}`];
  const machine = await startLabMachine({ directory, disks, extraArgs: nic });
  try {
    await machine.agentReady();
    const { qmpPath, agentPath } = machine;
    await using guest = await connectGuest({ qmpPath, agentPath }, { clock, timeoutMs: 60_000 });
    await guest.ping();
    return machine;
  } catch (error) {
    await machine.stop();
    throw error;
  }
}

/** A run whose jobs have ended as soon as they are begun, in milliseconds for each of its steps. */
async function stepsAlone(): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-plan-'));
  try {
    const events = new EventHub();
    const alerts = { raise: () => undefined, clear: () => undefined };
    const store = await PlanStore.open({ files: nodeFiles, clock, alerts, events }, directory);
    const runId = newId(clock, systemRandom);
    await store.addRun({
      ...{
        runId,
        actor: 'bench',
        request: { mode: 'unplanned' },
        document: PLAN,
        startedAtMs: clock.wallMs(),
      },
      ...touchedNow({ clock, bootClock }),
      steps: MACHINES.map(({ name }) => ({ machine: name, machineId: name, state: 'waiting' })),
    });
    const jobs = new Map<string, JobView>();
    const begin = async (): Promise<JobView> => {
      const job = {
        jobId: newId(clock, systemRandom),
        state: 'done',
        result: { verdict: 'passed' },
      } as JobView;
      jobs.set(job.jobId, job);
      return job;
    };
    const nothing = async () => undefined;
    const runner = new PlanRunner(
      {
        ...{ store, events, clock, bootClock, log: silentLog },
        jobs: () => ({
          find: (jobId) => jobs.get(jobId),
          newestOf: () => undefined,
          endOf: async (jobId) => jobs.get(jobId),
          waitFor: async (jobId) => jobs.get(jobId)!,
          cancel: () => undefined,
        }),
        acts: {
          ...{ begin, openTest: nothing, closeTest: nothing, isSo: nothing, objection: nothing },
          hooks: { run: nothing },
          idOf: (machine) => machine,
          branches: async () => [],
          isHeld: () => true,
          restart: () => {
            throw new Error('nothing is booted again');
          },
        },
      },
      runId,
    );
    const sinceMs = clock.monotonicMs();
    const job = { jobId: runId, machineId: PLAN.plan, args: {}, progress: () => undefined };
    const { verdict, steps } = await runner.carryOut({ ...job, signal: new AbortController().signal });
    if (verdict !== 'done') throw new Error(JSON.stringify(steps));
    return (clock.monotonicMs() - sinceMs) / steps.length;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS));
}
