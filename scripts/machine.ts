import { cpus, release, totalmem } from 'node:os';
import { isFailure } from '../src/lib/errors.ts';
import { runCommand } from '../src/lib/processes.ts';

/** Where and on what a measurement or a test run was made: enough to judge its numbers. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  /** Version of qemu-system-x86_64, or «not installed». */
  readonly qemu: string;
}

export async function describeMachine(): Promise<Machine> {
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    qemu: await qemuVersion(),
  };
}

/** One line for the head of a report. */
export function machineLine(machine: Machine): string {
  const { processor, cores, memoryGib, kernel, node, qemu } = machine;
  return `${cores} × ${processor}, ${memoryGib} GiB, Linux ${kernel}, QEMU ${qemu}, Node ${node}`;
}

async function qemuVersion(): Promise<string> {
  try {
    const { stdout } = await runCommand('qemu-system-x86_64', ['--version']);
    return /version (\S+)/.exec(stdout)?.[1] ?? 'unknown';
  } catch (error) {
    if (isFailure(error, 'TOOL_MISSING')) return 'not installed';
    throw error;
  }
}

export interface Commit {
  readonly id: string;
  /** True when the work tree holds changes that no commit has. */
  readonly modified: boolean;
}

/**
 * The commit that is checked out in `directory`. `ignore` names files that do not count, because the run itself writes them:
 * of commits that change nothing else the older one is named.
 */
export async function describeCommit(directory: string, ignore: readonly string[] = []): Promise<Commit> {
  const pathspec = [':(top)', ...ignore.map((path) => `:(top,exclude)${path}`)];
  const log = ['log', '-1', '--format=%h', '--abbrev=12', '--', ...pathspec];
  const { stdout: id } = await runCommand('git', log, { cwd: directory });
  const { stdout: changes } = await runCommand('git', ['status', '--porcelain', '--', ...pathspec], {
    cwd: directory,
  });
  return { id: id.trim(), modified: changes.trim() !== '' };
}

export function commitLine(commit: Commit): string {
  return commit.modified ? `${commit.id} with uncommitted changes` : commit.id;
}
