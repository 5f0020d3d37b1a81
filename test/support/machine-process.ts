import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { type RunningMachine, runPaths } from '../../src/hypervisor/index.ts';
import { monitorOption } from '../../src/hypervisor/qemu/command-line.ts';
import type { CleanUp } from './temporary.ts';

/** One pixel is black and the other one white. */
const PICTURE = Buffer.concat([Buffer.from('P6\n2 1\n255\n'), Buffer.from([0, 0, 0, 255, 255, 255])]);

/** A machine without QEMU: a process that is found by its command line, as a hypervisor is, and whose guest says that it is up. */
export async function machineProcess(
  t: CleanUp,
  runDirectory: string,
  on: { readonly resume?: () => Promise<void>; readonly picture?: () => Promise<void> } = {},
): Promise<RunningMachine> {
  const process_ = spawn(process.execPath, ['-e', 'setInterval(() => 0, 1000)', monitorOption(runDirectory)]);
  const gone = new Promise<void>((resolve) => process_.once('exit', () => resolve()));
  t.after(() => void process_.kill('SIGKILL'));
  await writeFile(runPaths(runDirectory).serialPath, 'up\n');
  const nothing = async () => undefined;
  return {
    ...{ gone, announce: nothing, disconnect: nothing, processId: process_.pid },
    resume: on.resume ?? nothing,
    consolePicture: async (path: string) => {
      await writeFile(path, PICTURE);
      await on.picture?.();
    },
    pressPowerButton: async () => void process_.kill('SIGTERM'),
    ...{ state: async () => 'running', onEvent: () => () => undefined, sockets: { qmpPath: '' } },
  } as unknown as RunningMachine;
}
