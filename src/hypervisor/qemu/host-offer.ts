import { totalmem } from 'node:os';
import { isFailure } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import { hypervisorFailure } from '../errors.ts';
import type { HostOffer } from '../startability.ts';
import { runBound } from './bound-process.ts';
import { describedFirmware } from './firmware-descriptors.ts';

/** Asked of a QEMU that has no machine and ends at once: some 50 ms (docs/qemu.md, «Checks ahead of a start»). */
const QUESTIONS = ['qmp_capabilities', 'query-machines', 'query-cpu-definitions', 'quit'] as const;

/** What this host has for machines. Throws TOOL_MISSING, PROCESS_FAILED, QEMU_REPLY_UNEXPECTED. */
export async function hostOffer(accelerator: 'kvm' | 'tcg'): Promise<Omit<HostOffer, 'media'>> {
  const { stdout } = await runBound(
    'qemu-system-x86_64',
    [
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-S'],
      ...['-machine', `none,accel=${accelerator}`, '-qmp', 'stdio'],
    ],
    { input: QUESTIONS.map((execute) => `${JSON.stringify({ execute })}\n`).join('') },
  );
  const [, machines, processors] = answersIn(stdout);
  return {
    accelerator,
    machineTypes: new Map(
      recordsOf(machines).flatMap(({ name, alias, 'cpu-max': cpusMax }) =>
        [name, alias].flatMap((each): [string, { cpusMax: number }][] =>
          typeof each === 'string' && typeof cpusMax === 'number' ? [[each, { cpusMax }]] : [],
        ),
      ),
    ),
    cpuModels: new Map(
      recordsOf(processors).flatMap(({ name, 'unavailable-features': missing }) =>
        typeof name === 'string' ? [[name, { missingFeatures: textsOf(missing) }]] : [],
      ),
    ),
    firmware: await describedFirmware(),
    hasTpm: await isThere('swtpm'),
    memoryBytes: totalmem(),
  };
}

async function isThere(command: string): Promise<boolean> {
  try {
    await runCommand(command, ['--version']);
    return true;
  } catch (error) {
    // One that does not even tell its version is of no use to a machine.
    if (isFailure(error, 'TOOL_MISSING', 'PROCESS_FAILED')) return false;
    throw error;
  }
}

/** The answers in the order of the questions, without greeting and events. */
function answersIn(output: string): unknown[] {
  try {
    return output
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
      .flatMap((message) => ('return' in message ? [message.return] : []));
  } catch (error) {
    throw unexpected(error);
  }
}

function recordsOf(answer: unknown): Readonly<Record<string, unknown>>[] {
  if (!Array.isArray(answer) || answer.length === 0) throw unexpected(undefined);
  return answer.filter((one) => typeof one === 'object' && one !== null);
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}

function unexpected(cause: unknown) {
  return hypervisorFailure('QEMU_REPLY_UNEXPECTED', 'QEMU did not say which machines it has', { cause });
}
