import { chmod, chown, copyFile, cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { runCommand } from '../src/lib/processes.ts';
import { LAB_CACHE, librariesOf } from './build-guest.ts';
import { namesIn } from './kernel.ts';
import { findPostgres, type PostgresPackages } from './postgres-packages.ts';

/** What runs in the guest, and `initdb`. */
const PROGRAMS = ['postgres', 'pg_ctl', 'psql', 'pg_amcheck', 'pg_isready', 'initdb'] as const;
/** The last one is loaded by `initdb`. */
const MODULES = ['plpgsql.so', 'amcheck.so', 'dict_snowball.so'] as const;
/** Who owns the server: `nobody` of every Debian, whose name in the tree is `postgres`. */
const POSTGRES_USER = 65_534;

const SETTINGS = `
unix_socket_directories = '/var/run/postgresql'
listen_addresses = ''
max_connections = 10
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
jit = off
timezone = 'GMT'
log_timezone = 'GMT'
logging_collector = off
autovacuum = off
`;

const CONTENT = `
CREATE EXTENSION amcheck;
CREATE TABLE orders (id bigint PRIMARY KEY, amount bigint NOT NULL);
`;

export interface PostgresDisk {
  readonly path: string;
  readonly sizeBytes: number;
}

/**
 * An ext4 disk (qcow2, without partitions) with a PostgreSQL of Debian's packages and an empty cluster with data checksums: a root of its own, for
 * `chroot` in a guest. Built without mounting; in the guest, `data` and `var/run/postgresql` are to be given to its user `postgres`.
 *
 * The packages are unpacked below `cache` and not installed (see `findPostgres`). Throws what that throws, LAB_LIBRARY_MISSING, TOOL_MISSING, PROCESS_FAILED.
 */
export async function buildPostgresDisk(directory: string, cache = LAB_CACHE): Promise<PostgresDisk> {
  const postgres = await findPostgres(cache);
  const tree = await mkdtemp(join(tmpdir(), 'warmsite-postgres-'));
  try {
    return await buildIn(tree, directory, postgres);
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

async function buildIn(tree: string, directory: string, postgres: PostgresPackages): Promise<PostgresDisk> {
  // The cluster's owner must get through.
  await chmod(tree, 0o755);
  const home = join('/usr/lib/postgresql', postgres.major);
  const programs = join(home, 'bin');
  for (const name of ['dev', 'proc', 'tmp', 'bin', 'etc', 'var/run/postgresql', 'usr/bin']) {
    await mkdir(join(tree, name), { recursive: true });
  }
  const unpacked = [
    ...PROGRAMS.map((name) => join(programs, name)),
    ...MODULES.map((name) => join(home, 'lib', name)),
  ].map((path) => join(postgres.tree, path));
  const files = [...unpacked, '/usr/bin/setpriv', '/bin/dash'];
  const libraries = await librariesOf(files, await libraryDirectories(postgres));
  const places = [...files, ...libraries].map((from) => ({ from, to: placeInGuest(from, postgres) }));
  for (const { from, to } of places) {
    await mkdir(dirname(join(tree, to)), { recursive: true });
    await copyFile(from, join(tree, to));
  }
  await copyFile('/bin/dash', join(tree, 'bin', 'sh'));
  for (const name of PROGRAMS) await symlink(join(programs, name), join(tree, 'usr', 'bin', name));
  const shared = join('/usr/share/postgresql', postgres.major);
  await cp(join(postgres.tree, shared), join(tree, shared), { recursive: true });
  await writeFile(
    join(tree, 'etc', 'passwd'),
    `postgres:x:${POSTGRES_USER}:${POSTGRES_USER}::/data:/bin/sh\n`,
  );
  await writeFile(join(tree, 'etc', 'group'), `postgres:x:${POSTGRES_USER}:\n`);
  const search = new Set(libraries.map((path) => dirname(join(tree, placeInGuest(path, postgres)))));
  await makeCluster(tree, programs, [...search].join(':'));
  const raw = join(directory, 'postgres.raw');
  const path = join(directory, 'postgres.qcow2');
  const sizeBytes = 192 * 1024 * 1024;
  await runCommand('mke2fs', ['-q', '-t', 'ext4', '-d', tree, raw, String(sizeBytes / 1024)]);
  await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
  await rm(raw);
  return { path, sizeBytes };
}

/** Where the packages have libraries: Debian's directories are named after the kind of machine. */
async function libraryDirectories({ tree }: PostgresPackages): Promise<string[]> {
  const places = ['lib', 'usr/lib'].map(async (place) => {
    const names = await namesIn(join(tree, place));
    return names.filter((name) => name.includes('-linux-gnu')).map((name) => join(tree, place, name));
  });
  return (await Promise.all(places)).flat();
}

/** Files of the packages have the place there that they have in their tree, files of this host the same as here. */
function placeInGuest(path: string, { tree }: PostgresPackages): string {
  return path.startsWith(`${tree}/`) ? path.slice(tree.length) : path;
}

/**
 * PostgreSQL refuses to run as root, also for this. What runs is the copy in `tree`, which its user may read wherever the cache is; it finds its
 * other files by the place of its program.
 */
async function makeCluster(tree: string, programs: string, libraryPath: string): Promise<void> {
  const data = join(tree, 'data');
  await mkdir(data);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) await chown(data, POSTGRES_USER, POSTGRES_USER);
  const user = String(POSTGRES_USER);
  const run = (program: string, args: readonly string[], input?: string) => {
    const line = ['env', `LD_LIBRARY_PATH=${libraryPath}`, join(tree, programs, program), ...args];
    const whole = isRoot
      ? ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', ...line]
      : line;
    return runCommand(whole[0]!, whole.slice(1), input === undefined ? {} : { input });
  };
  const how = ['--locale=C', '--encoding=UTF8', '--auth=trust', '--username=postgres', '--wal-segsize=1'];
  await run('initdb', ['-D', data, '--data-checksums', '--no-instructions', ...how]);
  await writeFile(join(data, 'postgresql.auto.conf'), SETTINGS);
  // Single-user mode takes one command a line.
  await run('postgres', ['--single', '-D', data, 'postgres'], CONTENT);
}
