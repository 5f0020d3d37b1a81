import type { DoctorCheck, DoctorReport, FencingRule, PeerView } from '../../api/index.ts';
import type { Hypervisor } from '../../hypervisor/index.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { spaceAt } from '../../lib/host-files.ts';
import { runCommand } from '../../lib/processes.ts';
import { failureOf } from '../base/alerts.ts';
import type { ChainState } from '../base/audit.ts';
import { type Finding, failed, ok, warning } from '../base/finding.ts';
import { siteFiles } from '../base/site-files.ts';
import { CONTROL_ERRORS } from '../errors.ts';
import { SKEW_WARNING_MS } from '../peers/peer-links.ts';
import { startFinding } from '../replicas/start-checks.ts';
import { keysFinding, rightsFinding } from './file-checks.ts';
import { type CheckedMachine, disksFinding, machineFinding } from './machine-checks.ts';

export interface DoctorSubject {
  readonly dataDirectory: string;
  readonly hypervisor: Hypervisor;
  readonly peers: readonly PeerView[];
  /** The machines that are at home here. */
  readonly machines: readonly CheckedMachine[];
  /** Machines that may have to be started here, by the configurations that they would have. */
  readonly toStart: readonly { readonly name: string; readonly configuration: unknown }[];
  /** Machines and replicas that could not be opened. */
  readonly broken: readonly { readonly machineId: string; readonly error: unknown }[];
  readonly audit: () => ChainState;
  /** What fences here, and whether it could. */
  readonly fencing: () => Promise<FencingRule>;
  /** What the older generations of machines take. */
  readonly formerBytes: () => Promise<number>;
  readonly ports: { readonly peer: number };
}

const QEMU_MINIMUM = { major: 7, minor: 2 };
export const FREE_FRACTION_MIN = 0.1;
/** Of the file system, which older generations may take before a person is told. */
const FORMER_FRACTION_MAX = 0.1;
const OPEN_FILES_MIN = 4096;
/** CAP_NET_ADMIN and CAP_SYS_ADMIN (capabilities(7)): what network namespaces and taps need. */
const NETWORK_CAPABILITIES = (1n << 12n) | (1n << 21n);

/** Looks at everything of this host that the site needs. Changes nothing; every finding but a good one says what to do. */
export async function examine(subject: DoctorSubject): Promise<DoctorReport> {
  const checks: DoctorCheck[] = [];
  const look = async (check: string, work: () => Promise<Finding>): Promise<void> => {
    checks.push({ check, ...(await findingOf(work)) });
  };
  await look('qemu-system-x86_64', () => qemuFinding('qemu-system-x86_64', 'qemu-system-x86'));
  await look('qemu-img', () => qemuFinding('qemu-img', 'qemu-utils'));
  await look('qemu-nbd', () => qemuFinding('qemu-nbd', 'qemu-utils'));
  // Ends the tools of a process that is killed: bound-process.ts in the hypervisor.
  await look('setpriv', () => toolFinding('setpriv', 'util-linux'));
  await look('acceleration', () => accelerationFinding(subject.hypervisor));
  await look('network namespaces', networkFinding);
  await look('data directory', () => rightsFinding(subject.dataDirectory));
  await look('keys', () => keysFinding(siteFiles(subject.dataDirectory).keys));
  await look('disk space', () => spaceFinding(subject.dataDirectory));
  await look('older generations', () => formerFinding(subject));
  await look('open files', openFilesFinding);
  await look('site port', async () => ok(`listens at port ${subject.ports.peer}`));
  const { fencing, lack } = await subject.fencing();
  if (fencing) await look('fencing', async () => fencingFinding(fencing.program, lack));
  await look('audit log', async () => auditFinding(subject.audit()));
  for (const peer of subject.peers) {
    if (peer.revokedAtMs === undefined) await look(`peer ${peer.name}`, async () => peerFinding(peer));
  }
  for (const machine of subject.machines) {
    await look(`machine ${machine.name}`, () => machineFinding(machine));
    await look(`disks of ${machine.name}`, () => disksFinding(machine));
  }
  for (const { name, configuration } of subject.toStart) {
    await look(`start of ${name}`, () => startFinding(subject.hypervisor, configuration));
  }
  for (const { machineId, error } of subject.broken) {
    await look(`files of ${machineId}`, () => Promise.reject(failureOf(error)));
  }
  const has = (verdict: DoctorCheck['verdict']) => checks.some((check) => check.verdict === verdict);
  return { verdict: has('failed') ? 'failed' : has('warning') ? 'warning' : 'ok', checks };
}

/** A check that cannot be made is a finding too. */
async function findingOf(work: () => Promise<Finding>): Promise<Finding> {
  try {
    return await work();
  } catch (error) {
    if (!isFailure(error)) throw error;
    return failed(messageOf(error), error.hint);
  }
}

async function qemuFinding(command: string, packageName: string): Promise<Finding> {
  return toolFinding(command, packageName, (first) => {
    const [, major, minor] = /(\d+)\.(\d+)/.exec(first) ?? [];
    const isNewEnough =
      Number(major) > QEMU_MINIMUM.major ||
      (Number(major) === QEMU_MINIMUM.major && Number(minor) >= QEMU_MINIMUM.minor);
    return isNewEnough
      ? ok(first)
      : failed(first, `Install version ${QEMU_MINIMUM.major}.${QEMU_MINIMUM.minor} or newer.`);
  });
}

/** Whether a program is there, judged by the first line that it prints of its version. */
async function toolFinding(
  command: string,
  packageName: string,
  judge: (firstLine: string) => Finding = ok,
): Promise<Finding> {
  try {
    const { stdout } = await runCommand(command, ['--version']);
    return judge(stdout.split('\n')[0] ?? '');
  } catch (error) {
    if (!isFailure(error, 'TOOL_MISSING')) throw error;
    return failed(messageOf(error), `Install it; on Debian and Ubuntu the package is ${packageName}.`);
  }
}

async function accelerationFinding(hypervisor: Hypervisor): Promise<Finding> {
  const { accelerator, reason } = await hypervisor.acceleration();
  if (accelerator === 'kvm') return ok('KVM runs guests here');
  const remedy =
    'Guests run here by translation, many times slower: give this user the right to use /dev/kvm, or take a host with hardware virtualisation.';
  return warning(`KVM does not run guests here: ${reason ?? 'unknown why'}`, remedy);
}

async function networkFinding(): Promise<Finding> {
  const remedy =
    'Run the site with CAP_NET_ADMIN and CAP_SYS_ADMIN and install iproute2; without them the cables of test machines stay unplugged.';
  try {
    await runCommand('ip', ['netns', 'list']);
  } catch (error) {
    return warning(messageOf(error), remedy);
  }
  const { stdout } = await runCommand('sh', ['-c', 'grep ^CapEff /proc/self/status']);
  const effective = BigInt(`0x${/[0-9a-f]+$/.exec(stdout.trim())?.[0] ?? '0'}`);
  return (effective & NETWORK_CAPABILITIES) === NETWORK_CAPABILITIES
    ? ok('isolated networks can be made')
    : warning('this process may not make network namespaces', remedy);
}

async function spaceFinding(dataDirectory: string): Promise<Finding> {
  const { freeBytes, totalBytes } = await spaceAt(dataDirectory);
  const shown = `${(freeBytes / 2 ** 30).toFixed(1)} GiB of ${(totalBytes / 2 ** 30).toFixed(1)} GiB are free`;
  return freeBytes >= totalBytes * FREE_FRACTION_MIN
    ? ok(shown)
    : warning(shown, 'Free space on the file system of the data directory, or shorten retention.');
}

async function formerFinding({ dataDirectory, formerBytes }: DoctorSubject): Promise<Finding> {
  const { totalBytes } = await spaceAt(dataDirectory);
  const bytes = await formerBytes();
  const shown = `what machines were here before the last turn takes ${(bytes / 2 ** 30).toFixed(1)} GiB`;
  return bytes < totalBytes * FORMER_FRACTION_MAX
    ? ok(shown)
    : warning(shown, 'Look at it with `warmsite generation list VM`, and remove what nobody misses.');
}

async function openFilesFinding(): Promise<Finding> {
  const { stdout } = await runCommand('sh', ['-c', 'ulimit -n']);
  const limit = stdout.trim() === 'unlimited' ? Number.POSITIVE_INFINITY : Number(stdout);
  return limit >= OPEN_FILES_MIN
    ? ok(`up to ${limit} files may be open`)
    : warning(
        `only ${limit} files may be open`,
        `Raise the limit to ${OPEN_FILES_MIN} or more (LimitNOFILE=).`,
      );
}

function fencingFinding(program: string, lack: string | undefined): Finding {
  if (lack === undefined) return ok(`${program} is there, and may be run`);
  const remedy =
    'Put it there, owned and written to by root or the user of the site alone, and executable; or name another one with `warmsite failover fencing`.';
  return failed(lack, remedy);
}

function auditFinding(state: ChainState): Finding {
  return state.state === 'whole'
    ? ok('its chain of hashes is whole')
    : failed(
        `entry ${state.atSequence} does not fit the one before it`,
        'The database was changed by another hand: keep a copy of site.db and find out whose.',
      );
}

function peerFinding(peer: PeerView): Finding {
  if (peer.presence !== 'reachable') {
    const where = `${peer.address.host}:${peer.address.port}`;
    return failed(
      `does not answer at ${where}`,
      'See that the other site runs and that its port is open from here.',
    );
  }
  const skewMs = peer.skewMs ?? 0;
  const shown = `answers in ${(peer.roundTripMs ?? 0).toFixed(1)} ms, its clock differs by ${(skewMs / 1000).toFixed(2)} s`;
  return Math.abs(skewMs) <= SKEW_WARNING_MS
    ? ok(shown)
    : warning(shown, CONTROL_ERRORS.SITE_CLOCK_SKEW.remedy);
}
