import { copyFile, cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LAB_CACHE } from './build-guest.ts';
import { labFailure } from './errors.ts';
import { namesIn } from './kernel.ts';
import { listPackages } from './packages.ts';
import { buildServerDisk, type ServerDisk, type ServerTree } from './server-disk.ts';
import { findServer, type ServerPackages } from './server-packages.ts';

export const POSTGRES_PACKAGES: ServerPackages = {
  name: 'postgresql',
  packages: async () => {
    const [newest] = await listPackages(['postgresql']);
    const server = newest?.depends.find((name) => /^postgresql-\d+$/.test(name));
    if (server === undefined) throw new Error('the package lists know no PostgreSQL');
    return [server, server.replace('-', '-client-')];
  },
  ownLibrary: 'libpq5',
};
/** What runs in the guest, and `initdb`. */
const PROGRAMS = ['postgres', 'pg_ctl', 'psql', 'pg_amcheck', 'pg_isready', 'initdb'] as const;
/** The last one is loaded by `initdb`. */
const MODULES = ['plpgsql.so', 'amcheck.so', 'dict_snowball.so'] as const;

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

/**
 * A disk with a PostgreSQL of Debian's packages and an empty cluster with data checksums. In the guest, `data` and `var/run/postgresql` are to be
 * given to its user `postgres`.
 *
 * The packages are unpacked below `cache` and not installed (see `findServer`). Throws what that and `buildServerDisk` throw.
 */
export async function buildPostgresDisk(directory: string, cache = LAB_CACHE): Promise<ServerDisk> {
  const unpacked = await findServer(cache, POSTGRES_PACKAGES);
  // Debian's packages put each major version into a directory of its own.
  const major = (await namesIn(join(unpacked, 'usr/lib/postgresql')))[0];
  if (major === undefined) throw labFailure('LAB_PACKAGES_UNAVAILABLE', `${unpacked} holds no PostgreSQL`);
  return await buildServerDisk(
    directory,
    { name: 'postgres', user: 'postgres', sizeBytes: 192 * 1024 * 1024, unpacked },
    (tree) => fill(tree, major),
  );
}

async function fill(tree: ServerTree, major: string): Promise<void> {
  const { root, unpacked } = tree;
  const home = join('/usr/lib/postgresql', major);
  const programs = join(home, 'bin');
  await tree.addPrograms([
    ...PROGRAMS.map((name) => join(unpacked, programs, name)),
    ...MODULES.map((name) => join(unpacked, home, 'lib', name)),
    '/usr/bin/setpriv',
    '/bin/dash',
  ]);
  await copyFile('/bin/dash', join(root, 'bin', 'sh'));
  for (const name of PROGRAMS) await symlink(join(programs, name), join(root, 'usr', 'bin', name));
  const shared = join('/usr/share/postgresql', major);
  await cp(join(unpacked, shared), join(root, shared), { recursive: true });
  await mkdir(join(root, 'var', 'run', 'postgresql'), { recursive: true });
  const data = await tree.makeData();
  const how = ['--locale=C', '--encoding=UTF8', '--auth=trust', '--username=postgres', '--wal-segsize=1'];
  await tree.run(join(programs, 'initdb'), ['-D', data, '--data-checksums', '--no-instructions', ...how]);
  await writeFile(join(data, 'postgresql.auto.conf'), SETTINGS);
  // Single-user mode takes one command a line.
  await tree.run(join(programs, 'postgres'), ['--single', '-D', data, 'postgres'], CONTENT);
}
