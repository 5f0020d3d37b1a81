/**
 * Loaded before a site's own program (`--import`): writes down what its process does that outlives it, and ends the process by SIGKILL
 * right after one act of that. The program knows nothing of it.
 *
 * An act is what the next process may find: a file or a directory made durable, a name made, changed or removed, a change of the
 * database, a program begun, a process ended, an order to a machine. Each is a line in the file that COUNTED_ACTS names: its name, without what
 * is another one each time; a tab; and the path that it was about. The second act of a name is «NAME (2)».
 *
 * It begins with a message `{ endsAfter: NAME }` from the process that has begun this one, which gets `counting` for an answer.
 */
import childProcess from 'node:child_process';
import fs from 'node:fs';
import files, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';
import { DatabaseSync } from 'node:sqlite';

const kill = process.kill.bind(process);
const lines = fs.openSync(process.env.COUNTED_ACTS!, 'a');
/** Ids, and what comes after the names of temporary directories. */
const CHANCE = /[0-9a-hjkmnp-tv-z]{26}|(?<=ws-kvm-)\w+/g;
/** Of questions to QEMU nothing is left. */
const ORDER = /"execute":"(?!query|qmp_capabilities|qom-get|qom-list)([a-z_-]+)"/;
const RUN = new RegExp(`${process.cwd()}/\\w+/run/\\w+`);
const times = new Map<string, number>();
let endsAfter: string | undefined;

function did(kind: string, what: string): void {
  if (endsAfter === undefined) return;
  const about = what.replace(/\s+/g, ' ').trim();
  const name = `${kind} ${about.replace(process.cwd(), '').replace(CHANCE, '…')}`;
  const time = (times.get(name) ?? 0) + 1;
  times.set(name, time);
  const act = time === 1 ? name : `${name} (${time})`;
  fs.writeSync(lines, `${act}\t${about}\n`);
  if (act === endsAfter) kill(process.pid, 'SIGKILL');
}

process.on('message', (told: { readonly endsAfter: string }) => {
  endsAfter = told.endsAfter;
  times.clear();
  process.send!('counting');
});
process.channel!.unref();

/** Puts another function in the place of one that programs import. */
function instead<O, K extends keyof O>(of: O, name: K, make: (own: O[K]) => O[K]): void {
  of[name] = make(of[name]);
}

instead(files, 'open', (open) => async (path, ...others) => {
  const handle = await open(path, ...others);
  const sync = handle.sync.bind(handle);
  handle.sync = async () => {
    await sync();
    did('sync', String(path));
  };
  return handle satisfies FileHandle;
});
instead(files, 'rename', (rename) => async (from, to) => {
  await rename(from, to);
  did('rename', String(to));
});
instead(files, 'rm', (rm) => async (path, ...others) => {
  const wasThere = fs.existsSync(path);
  await rm(path, ...others);
  if (wasThere) did('remove', String(path));
});
instead(files, 'mkdir', (mkdir) => {
  const making = async (path: string, ...others: [object]) => {
    const wasThere = fs.existsSync(path);
    const made = await mkdir(path, ...others);
    if (!wasThere) did('directory', path);
    return made;
  };
  return making as typeof mkdir;
});
instead(childProcess, 'spawn', (spawn) => {
  const spawning = (command: string, args: readonly string[], options: object) => {
    const child = spawn(command, args, options);
    // Of what runs in a directory of its own that is said as well.
    const own = RUN.exec(args.join(' '))?.[0] ?? '';
    did('program', [command, ...args.slice(0, 2), own].join(' '));
    return child;
  };
  return spawning as typeof spawn;
});
instead(process, 'kill', () => (processId, signal) => {
  const sent = kill(processId, signal);
  if (signal !== 0) did('signal', String(signal));
  return sent;
});
instead(net.Socket.prototype, 'write', (write) => {
  return function (this: net.Socket, ...data: unknown[]) {
    const taken = Reflect.apply(write, this, data) as boolean;
    const order = typeof data[0] === 'string' ? ORDER.exec(data[0]) : null;
    if (order) did('order', order[1]!);
    return taken;
  } as typeof write;
});
instead(DatabaseSync.prototype, 'exec', (exec) => {
  return function (this: DatabaseSync, sql) {
    const wasOpen = this.isTransaction;
    Reflect.apply(exec, this, [sql]);
    if (wasOpen && !this.isTransaction) did('database', sql);
  };
});
instead(DatabaseSync.prototype, 'prepare', (prepare) => {
  return function (this: DatabaseSync, sql, ...others) {
    const statement = Reflect.apply(prepare, this, [sql, ...others]) as ReturnType<typeof prepare>;
    const run = statement.run.bind(statement) as (...values: unknown[]) => ReturnType<typeof statement.run>;
    statement.run = (...values: unknown[]) => {
      const result = run(...values);
      if (!this.isTransaction) did('database', sql);
      return result;
    };
    return statement;
  } as typeof prepare;
});

syncBuiltinESMExports();
