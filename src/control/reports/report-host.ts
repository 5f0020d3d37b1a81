import { arch, release, type } from 'node:os';
import { isFailure } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';

/** The programs and the host that a report was made with. A hypervisor that is not there, or cannot say, has no version. */
export async function hostVersions() {
  return {
    ...{ node: process.version, host: `${type()} ${release()} ${arch()}` },
    ...(await hypervisorVersion()),
  };
}

async function hypervisorVersion(): Promise<{ hypervisor?: string }> {
  try {
    const { stdout } = await runCommand('qemu-system-x86_64', ['--version']);
    const [line = ''] = stdout.split('\n');
    return line === '' ? {} : { hypervisor: line.slice(0, 200) };
  } catch (error) {
    if (!isFailure(error, 'PROCESS_FAILED', 'TOOL_MISSING')) throw error;
    return {};
  }
}
