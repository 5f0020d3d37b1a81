import { join } from 'node:path';
import { ReplicaFences } from '../../src/control/replicas/replica-fences.ts';
import { branchNetworks, CpuGroups, Failovers, type FailoverTools } from '../../src/failover/index.ts';
import { endRun, HYPERVISOR_ERRORS, processesOfRun, type StartRequest } from '../../src/hypervisor/index.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { failuresOf } from '../../src/lib/errors.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { afterHearing } from '../../src/recovery-point/index.ts';
import { tenureOfReplica, withTenure } from '../../src/replica/index.ts';
import { machineProcess } from './machine-process.ts';
import { copy } from './seed-acts.ts';
import { seedSites } from './seed-sites.ts';
import type { CleanUp } from './temporary.ts';

/** Of each of its seconds the test takes one twentieth. */
const PACE = 20;
const CLOCK: Clock = {
  wallMs: systemClock.wallMs,
  monotonicMs: () => systemClock.monotonicMs() * PACE,
  after: (delayMs, fn) => systemClock.after(delayMs / PACE, fn),
};
const hypervisorFailure = failuresOf(HYPERVISOR_ERRORS);

type At = 'start' | 'run' | 'picture' | 'recorded';

/** A site with a replica of three points. What is to happen while its machines come up happens `at` that step, once. */
export async function threePoints(t: CleanUp) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  for (const offset of [0, 4096, 8192]) {
    await box.write(offset);
    await copy(sites, box);
  }
  const replica = sites.replicas.list()[0]!;
  const { siteId } = sites.target;
  const happens = new Map<At, () => Promise<void>>();
  const does = async (at: At) => {
    const work = happens.get(at);
    happens.delete(at);
    await work?.();
  };
  /** Numbers of the points whose guests have run, in the order in which they did. */
  const ran: number[] = [];
  const start = async ({ runDirectory, disks }: StartRequest) => {
    const chain = Object.values(disks)[0]!;
    await does('start');
    const resume = async () => {
      const [point] = replica.points.filter(({ statement }) =>
        chain.at(-2)!.path.includes(statement.pointId),
      );
      ran.push(point!.statement.sequence);
      await does('run');
    };
    return machineProcess(t, runDirectory, { resume, picture: () => does('picture') });
  };
  const files: FileSystem = {
    ...nodeFiles,
    open: async (path, how) => {
      if (path.includes('console.png') && how !== 'read') await does('recorded');
      return nodeFiles.open(path, how);
    },
  };
  const tools = {
    ...{ files, clock: CLOCK, random: systemRandom, log: silentLog, siteId },
    hypervisor: {
      start,
      processesOf: processesOfRun,
      end: (run: string) => endRun(run, systemClock),
      offer: () => Promise.reject(hypervisorFailure('MACHINE_NOT_RUNNING', 'nobody says what it offers')),
      acceleration: async () => ({ accelerator: 'tcg' }),
    },
    signer: { keyId: 'ed25519:test', sign: () => Buffer.alloc(64) },
    ...{ cpuGroups: new CpuGroups(systemClock), networks: branchNetworks, machinesHere: () => [] },
    testRules: () => ({ mostRunning: 8, freeFloorBytes: 0 }),
    freeBytes: async () => 2 ** 40,
    runDirectory: join(sites.directory, 'b'),
  } as unknown as FailoverTools;
  const failovers = new Failovers(tools);
  const fences = new ReplicaFences({
    ...{ siteId, clock: CLOCK, failovers, log: silentLog, replicas: { list: () => [replica] } },
    alerts: { raise: () => undefined, clear: () => undefined },
    audit: { note: () => undefined },
    passOn: async () => undefined,
  });
  t.after(() => fences.close());
  /** The home of the machine takes it back; `look`: and what runs of it here is ended, as it is by a site that hears of that. */
  const hear = async (o: { look: boolean }) => {
    await replica.update((record) => {
      const claim = { epoch: record.epoch + 1, siteId: sites.origin.siteId };
      return withTenure(record, afterHearing(tenureOfReplica(record, siteId), siteId, claim));
    });
    if (o.look) fences.look(replica);
  };
  return {
    ...{ replica, failovers, ran, hear, runDirectory: tools.runDirectory },
    at: (at: At, work: () => Promise<void>) => void happens.set(at, work),
    processes: async () => {
      const all = replica.branches.map(({ branchId }) => processesOfRun(join(tools.runDirectory, branchId)));
      return (await Promise.all(all)).flat();
    },
    tenure: () => tenureOfReplica(replica.record, siteId).state,
  };
}
