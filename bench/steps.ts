import { join } from 'node:path';
import { type FailoverReport, Failovers, type FailoverTools, UNDO_STEPS } from '../src/failover/index.ts';
import { hypervisorFailure } from '../src/hypervisor/errors.ts';
import { systemClock as clock } from '../src/lib/clock.ts';
import { silentLog } from '../src/lib/log.ts';
import { nodeFiles } from '../src/lib/node-files.ts';
import { systemRandom } from '../src/lib/random.ts';
import { AT_ONCE } from '../test/support/actor.ts';
import { type FakeHost, FakeHypervisor } from '../test/support/fake-hypervisor.ts';
import { ImageLocks } from '../test/support/fake-images.ts';
import { FakeMachine } from '../test/support/fake-machine.ts';
import { copy } from '../test/support/seed-acts.ts';
import { seedSites } from '../test/support/seed-sites.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

/**
 * What do failovers themselves cost a step? The real acts, with each step durable on the real disk as ever, upon a replica of three points and two disks,
 * in the place of QEMU a stand-in whose guests are up at once: what remains is the time of the state machine and of its records.
 * `node bench/steps.ts [ROUNDS]`
 */
const ROUNDS = 20;
const STEP_TARGET_MS = 20;
/** Of the steps of an undoing the last is that of the other site. */
const UNDO_STEPS_HERE = UNDO_STEPS.filter(({ name }) => name !== 'withdraw').length;

export async function run(rounds = ROUNDS): Promise<void> {
  await withScope(async (scope) => {
    const sites = await seedSites(scope);
    const box = await sites.addMachine({ seed: false });
    for (const offset of [0, 4096, 8192]) {
      await box.write(offset);
      await copy(sites, box);
    }
    const [replica] = sites.replicas.list();
    await replica!.update((record) => ({ ...record, retention: { types: { crash: 8 } } }));
    const failovers = failoversAt(sites.directory, sites.target.siteId);
    scope.after(() => failovers.close());
    const { pointId } = replica!.newest!.statement;
    const taken: Record<'test' | 'start' | 'undo', number[]> = { test: [], start: [], undo: [] };
    for (let round = 0; round < rounds; round++) {
      // A guest without a console fails its test with the picture; that is on record like any other end.
      const test = await timed(() => failovers.test(replica!, { pointId }, { probes: [] }));
      taken.test.push(test.tookMs / stepsOf(test.value));
      const word = { confirmedOtherSideDown: true, probes: [] } as const;
      const start = await timed(() => failovers.start(replica!, { pointId }, word));
      // The right is seized before any point is tried.
      taken.start.push(start.tookMs / (1 + stepsOf(start.value)));
      const undo = await timed(() => failovers.undo(replica!, { graceMs: 0 }));
      taken.undo.push(undo.tookMs / UNDO_STEPS_HERE);
      await failovers.cleanup(replica!, start.value.branchId!);
    }
    console.log(`a step of it, in ms (median of ${rounds} rounds):`);
    for (const [act, stepMs] of Object.entries(taken)) {
      const most = Math.max(...stepMs).toFixed(1);
      console.log(`failover ${act}: ${atMost(median(stepMs), STEP_TARGET_MS, 1)}, most ${most}`);
    }
  });
}

function stepsOf({ attempts }: FailoverReport): number {
  return attempts.flatMap(({ steps }) => steps).length;
}

function failoversAt(directory: string, siteId: string): Failovers {
  const locks = new ImageLocks();
  const machines: FakeHost['machines'] = new Map();
  const start: FakeHost['start'] = async ({ qmpPath }, disks, { paused }) => {
    const guest = await FakeMachine.start({ files: nodeFiles, locks, process: AT_ONCE, disks, paused });
    machines.set(qmpPath, guest);
    return guest;
  };
  const hypervisor = new FakeHypervisor({ host: { machines, start }, actor: AT_ONCE });
  // What nobody says cannot be missed.
  hypervisor.offer = () =>
    Promise.reject(hypervisorFailure('MACHINE_NOT_RUNNING', 'nobody says what it offers'));
  const none = async () => undefined;
  const tools: FailoverTools = {
    ...{ files: nodeFiles, clock, random: systemRandom, log: silentLog, siteId, hypervisor },
    signer: { keyId: 'ed25519:bench', sign: () => Buffer.alloc(64) },
    testRules: () => ({ mostRunning: 8, freeFloorBytes: 0 }),
    freeBytes: async () => 2 ** 40,
    cpuGroups: { check: none, make: none, enter: none, remove: none },
    networks: {
      isolate: async () => ({ report: { kind: 'unplugged', reason: 'no NIC' }, attachments: {} }),
      connect: async () => ({ report: { kind: 'connected', unplugged: [] }, attachments: {} }),
      remove: none,
    },
    programs: { run: () => Promise.reject(new Error('no program is asked for')) },
    machinesHere: () => [],
    runDirectory: join(directory, 'b'),
  };
  return new Failovers(tools);
}

async function timed<T>(work: () => Promise<T>): Promise<{ readonly value: T; readonly tookMs: number }> {
  const sinceMs = clock.monotonicMs();
  const value = await work();
  return { value, tookMs: clock.monotonicMs() - sinceMs };
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS));
}
