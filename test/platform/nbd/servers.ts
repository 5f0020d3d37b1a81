import { spawn } from 'node:child_process';
import { watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../../src/lib/clock.ts';
import { exitOf, spawnFailure } from '../../../src/lib/processes.ts';
import { type NbdAddress, NbdClient, type NbdConnectOptions } from '../../../src/nbd/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

export interface RunningServer {
  readonly address: NbdAddress & { kind: 'unix' };
  /** Ends the server without a chance to say good-bye. */
  kill(): Promise<void>;
}

/**
 * Starts a server in the foreground and returns when it listens: all of them write their pid file then. `argsOf`
 * gets the paths of the socket and of the pid file.
 */
export async function startServer(
  t: CleanUp,
  command: string,
  argsOf: (socket: string, pidFile: string) => readonly string[],
): Promise<RunningServer> {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 's');
  const pidFile = join(directory, 'pid');
  const child = spawn(command, argsOf(path, pidFile), { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  let said = '';
  child.stderr.on('data', (data: Buffer) => {
    said = (said + data.toString()).slice(-4000);
  });
  t.after(async () => {
    // Not SIGTERM: nbdkit would wait for its clients, which are closed by a later hook.
    child.kill('SIGKILL');
    await exited;
  });
  await new Promise<void>((resolve, reject) => {
    const watcher = watch(directory);
    const look = (): void => {
      stat(pidFile).then(
        ({ size }) => {
          if (size === 0) return;
          watcher.close();
          resolve();
        },
        () => undefined, // not there yet: the next change of the directory brings the next look
      );
    };
    watcher.on('change', look);
    look();
    child.once('error', (error) => {
      watcher.close();
      reject(spawnFailure(command, error));
    });
    child.once('exit', (code) => {
      watcher.close();
      reject(new Error(`${command} ended with ${code} before it listened: ${said}`));
    });
  });
  return {
    address: { kind: 'unix', path },
    async kill() {
      child.kill('SIGKILL');
      await exitOf(child);
    },
  };
}

/** qemu-nbd; `-t` keeps it up after the last client has gone. */
export const qemuNbd = (t: CleanUp, ...args: string[]) =>
  startServer(t, 'qemu-nbd', (socket, pid) => ['-t', '-e', '8', '-k', socket, '--pid-file', pid, ...args]);

export const nbdkit = (t: CleanUp, ...args: string[]) =>
  startServer(t, 'nbdkit', (socket, pid) => ['-f', '-U', socket, '-P', pid, ...args]);

export const storageDaemon = (t: CleanUp, ...args: string[]) =>
  startServer(t, 'qemu-storage-daemon', (socket, pid) => [
    '--pidfile',
    pid,
    '--nbd-server',
    `addr.type=unix,addr.path=${socket}`,
    ...args,
  ]);

export async function clientOf(
  t: CleanUp,
  server: { readonly address: NbdAddress },
  o: Partial<NbdConnectOptions> = {},
): Promise<NbdClient> {
  const client = await NbdClient.connect({
    address: server.address,
    exportName: '',
    clock: systemClock,
    ...o,
  });
  t.after(() => client.close());
  return client;
}
