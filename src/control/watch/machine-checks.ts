import { dirname } from 'node:path';
import { lackOf, type Right } from '../../lib/host-files.ts';
import type { MachinePresence, ProtectedMachine } from '../../replication/index.ts';
import { type Finding, failed, ok, warning } from '../base/finding.ts';
import { presenceFailure } from '../machines/presence-failure.ts';

/** What a machine of this site needs of its host. */
export interface CheckedMachine {
  readonly name: string;
  readonly kind: 'managed' | 'attached';
  readonly presence: MachinePresence;
  readonly sockets: { readonly qmpPath: string; readonly agentPath?: string | undefined };
  /** Files that are written, and files that are only read. */
  readonly written: readonly string[];
  readonly read: readonly string[];
}

export function checkedMachine(
  machine: Pick<ProtectedMachine, 'record' | 'presence' | 'chain'>,
): CheckedMachine {
  const { name, kind, sockets, disks } = machine.record;
  const own = disks.flatMap(({ chain }) => chain.map(({ path }) => path));
  // Merges go into the owner's youngest file, the guest writes to the tip; whatever lies below belongs to others too.
  const origins = disks.map(({ chain }) => chain.at(-1)!.path);
  const tips = disks.map(({ diskId }) => machine.chain(diskId).at(-1)!.path);
  const written = [...new Set([...origins, ...tips])];
  return {
    ...{ name, kind, sockets, presence: machine.presence },
    ...{ written, read: own.filter((path) => !written.includes(path)) },
  };
}

/** Whether a machine runs as this site knows it, and can be talked to. */
export async function machineFinding({ name, kind, presence, sockets }: CheckedMachine): Promise<Finding> {
  if (presence.state === 'stale' || presence.state === 'unreachable') {
    const { message, hint } = presenceFailure(name, presence);
    const lack =
      presence.state === 'unreachable' ? await lackAt(sockets.qmpPath, 'read and write') : undefined;
    return lack ? failed(`${message}; its QMP socket: ${lack}`, remedyFor(kind)) : failed(message, hint);
  }
  if (presence.state === 'stopped') {
    // Who starts a machine of somebody else makes the sockets; a site that cannot come near them would take it for off.
    const directory = dirname(sockets.qmpPath);
    const lack = kind === 'attached' ? await lackAt(directory, 'enter') : undefined;
    return lack
      ? warning(`it seems not to run; the directory of its sockets: ${lack}`, remedyFor(kind))
      : ok('it does not run');
  }
  const { qmpPath, agentPath } = sockets;
  for (const [what, path] of Object.entries({ 'QMP socket': qmpPath, 'guest agent socket': agentPath })) {
    const lack = path === undefined ? undefined : await lackAt(path, 'read and write');
    if (lack) return failed(`it runs; its ${what}: ${lack}`, remedyFor(kind));
  }
  return agentPath === undefined
    ? warning(
        'it runs; no socket of a guest agent is known',
        'Its copies are crash-consistent only. For others install qemu-guest-agent in the guest and add the machine with `--agent`.',
      )
    : ok('it runs, and its sockets can be used');
}

/** Whether the files of its disks can be used. */
export async function disksFinding({ written, read }: CheckedMachine): Promise<Finding> {
  const lacks: string[] = [];
  for (const path of written) lacks.push(...(await fileLack(path, 'read and write')));
  for (const path of read) lacks.push(...(await fileLack(path, 'read')));
  if (lacks.length === 0) return ok(`${written.length + read.length} files can be used`);
  return failed(
    lacks.join('; '),
    'Give the user that serves the site those rights, mount what is not mounted, restore what is gone; of files that lie elsewhere now tell `warmsite vm move`.',
  );
}

async function fileLack(path: string, right: Right): Promise<string[]> {
  const lack = (await lackAt(dirname(path), 'enter')) ?? (await lackAt(path, right));
  return lack ? [lack] : [];
}

async function lackAt(path: string, right: Right): Promise<string | undefined> {
  const code = await lackOf(path, right);
  if (code === undefined) return undefined;
  if (code === 'ENOENT' || code === 'ENOTDIR') return `${path} is not there`;
  if (code === 'EROFS') return `${path} lies on a file system that is mounted read-only`;
  return `${path}: this user lacks the right to ${right === 'enter' ? 'enter it' : `${right} it`} (${code})`;
}

function remedyFor(kind: CheckedMachine['kind']): string {
  return kind === 'managed'
    ? 'The site makes these sockets itself: stop and start the machine (`warmsite vm stop`, `warmsite vm start`).'
    : 'Start the machine with these sockets on its command line, where the user that serves the site may enter the directory, read and write.';
}
