import { join } from 'node:path';
import { messageOf } from '../../lib/errors.ts';
import { type Generation, generationsIn } from '../../lib/generations.ts';
import { ProtectedMachine, type ProtectedTools } from '../../replication/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { newestMachine } from './new-machine.ts';

interface OpeningTools extends ProtectedTools {
  readonly dataDirectory: string;
  readonly loop: { readonly alerts: AlertSink };
}

/** What a site has of a machine, or why that cannot be opened; undefined: nothing. */
export type Opened = { readonly machine: ProtectedMachine } | { readonly error: Error } | undefined;

/** The directories of machines, with all their generations, the newest first. */
export async function machinesIn({
  files,
  dataDirectory,
}: Pick<OpeningTools, 'files' | 'dataDirectory'>): Promise<ReadonlyMap<string, readonly Generation[]>> {
  return generationsIn((await files.list(join(dataDirectory, 'protected'))) ?? []);
}

/** Opens the newest generation of a machine; `generations` tells which there are. Never throws: that it cannot be opened is an alert. */
export async function openNewest(
  tools: OpeningTools,
  machineId: string,
  generations: () => Promise<readonly Generation[]> | readonly Generation[],
): Promise<Opened> {
  const { files, dataDirectory, log, loop } = tools;
  const key = `machine:${machineId}`;
  try {
    const layout = await newestMachine(files, dataDirectory, machineId, await generations());
    if (!layout) return undefined;
    const machine = await ProtectedMachine.open(tools, layout);
    loop.alerts.clear(key);
    return { machine };
  } catch (error) {
    log.error('machine.broken', { machineId, reason: messageOf(error) });
    loop.alerts.raise(key, 'critical', failureOf(error), machineId);
    return { error: error instanceof Error ? error : new Error(messageOf(error)) };
  }
}
