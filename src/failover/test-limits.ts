import { join } from 'node:path';
import Type from 'typebox';
import type { MachineConfiguration } from '../hypervisor/index.ts';
import { loadRecord, recordKind, storeRecord } from '../lib/records.ts';
import type { Trunk } from '../replica/index.ts';
import type { TestOptions } from './options.ts';
import type { FailoverTools } from './tools.ts';

const LimitsSchema = Type.Object({
  /** In place of the machine's own memory and CPUs. */
  memoryBytes: Type.Optional(Type.Integer({ minimum: 16 * 1024 * 1024, maximum: 2 ** 46 })),
  cpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 1024 })),
  /** Of the time of one CPU of this host; 200 are two CPUs. The whole process counts. */
  cpuPercent: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
  /** Share of the CPUs while others want them too, 100 being everybody's. */
  cpuWeight: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
  /** Of all disks of the test together, reads and writes. */
  diskBytesPerSecond: Type.Optional(Type.Integer({ minimum: 4096 })),
  diskOperationsPerSecond: Type.Optional(Type.Integer({ minimum: 1 })),
  /** From then on it is cleaned up by itself, by this site's wall clock. */
  endsAtMs: Type.Optional(Type.Integer({ minimum: 0 })),
});
/** `branches/<branch>/limits.json`: what a test may take of this host. */
export type TestLimits = Type.Static<typeof LimitsSchema>;
const TEST_LIMITS = recordKind('test-limits', 1, LimitsSchema);

type Files = Pick<FailoverTools, 'files'>;

/** What a test that is asked for may take. Throws FAILOVER_LIMIT_UNAVAILABLE before there is anything to be limited. */
export async function limitsOf(
  { clock, cpuGroups, testRules }: Pick<FailoverTools, 'clock' | 'cpuGroups' | 'testRules'>,
  { limits, lifetimeMs }: TestOptions,
): Promise<TestLimits> {
  const asked = limits?.cpuPercent !== undefined || limits?.cpuWeight !== undefined;
  if (asked) await cpuGroups.check();
  const lasting = lifetimeMs ?? testRules().lifetimeMs;
  return { ...limits, ...(lasting === undefined ? {} : { endsAtMs: clock.wallMs() + lasting }) };
}

/** Durable on return. */
export function storeLimits(
  { files }: Files,
  replica: Trunk,
  branchId: string,
  limits: TestLimits,
): Promise<void> {
  return storeRecord(files, limitsPath(replica, branchId), TEST_LIMITS, limits);
}

/** What a branch was limited to when it was made; nothing where nobody said anything. */
export async function loadLimits({ files }: Files, replica: Trunk, branchId: string): Promise<TestLimits> {
  return (await loadRecord(files, limitsPath(replica, branchId), TEST_LIMITS)) ?? {};
}

function limitsPath(replica: Trunk, branchId: string): string {
  return join(replica.layout.branch(branchId), 'limits.json');
}

/** The machine with the memory and the CPUs that its test may have. */
export function limited(
  configuration: MachineConfiguration,
  { memoryBytes, cpus }: TestLimits,
): MachineConfiguration {
  return {
    ...configuration,
    memoryBytes: memoryBytes ?? configuration.memoryBytes,
    cpus: cpus ?? configuration.cpus,
  };
}
