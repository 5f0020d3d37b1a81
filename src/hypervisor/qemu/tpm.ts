import { mkdir } from 'node:fs/promises';
import { runCommand } from '../../lib/processes.ts';
import { hypervisorFailure } from '../errors.ts';
import type { StartRequest } from '../hypervisor.ts';
import { runPaths } from './command-line.ts';

/** The argument that names its control socket: no two run directories share it, so that it also tells whose emulator a process is. */
export function tpmControlOption(runDirectory: string): string {
  return `type=unixio,path=${runPaths(runDirectory).tpmPath}`;
}

/**
 * Starts the emulator of a machine's TPM, a process of its own that ends when its machine lets go of it. A directory without a state
 * gets a new TPM. Throws TOOL_MISSING, PROCESS_FAILED.
 */
export async function startTpm({ configuration, runDirectory, tpmDirectory }: StartRequest): Promise<void> {
  if (tpmDirectory === undefined) {
    const said = `nothing says where the TPM of ${configuration.name} has its state`;
    throw hypervisorFailure('MACHINE_CONFIGURATION_INVALID', said, {
      context: { machine: configuration.name },
    });
  }
  const paths = runPaths(runDirectory);
  await mkdir(tpmDirectory, { recursive: true, mode: 0o700 });
  await runCommand('swtpm', [
    ...['socket', '--tpm2', '--tpmstate', `dir=${tpmDirectory},mode=0600`],
    ...['--ctrl', tpmControlOption(runDirectory), '--terminate', '--daemon'],
    ...['--pid', `file=${paths.tpmPidPath}`, '--log', `file=${paths.tpmLogPath}`],
  ]);
}
