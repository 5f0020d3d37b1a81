import {
  chmod,
  chown,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { libFailure } from '../src/lib/errors.ts';
import { runCommand } from '../src/lib/processes.ts';
import { librariesOf } from './build-guest.ts';

/** Debian's packages put each major version into a directory of its own. */
const INSTALLED = '/usr/lib/postgresql';
const PROGRAMS = ['postgres', 'pg_ctl', 'psql', 'pg_amcheck', 'pg_isready'] as const;
const MODULES = ['plpgsql.so', 'amcheck.so'] as const;
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
 * An ext4 disk (qcow2, without partitions) with a PostgreSQL of the host's packages and an empty cluster with data checksums: a root of its own, for
 * `chroot` in a guest. Built without mounting; in the guest, `data` and `var/run/postgresql` are to be given to its user `postgres`.
 */
export async function buildPostgresDisk(directory: string): Promise<PostgresDisk> {
  const versions = (await readdir(INSTALLED).catch(() => [])).sort((a, b) => Number(a) - Number(b));
  const version = versions.at(-1);
  if (version === undefined) {
    throw libFailure(
      'TOOL_MISSING',
      'PostgreSQL is not installed (Debian: apt-get install --no-install-recommends postgresql-15; its server may be stopped)',
      {
        context: { command: 'postgres' },
      },
    );
  }
  const tree = await mkdtemp(join(tmpdir(), 'warmsite-postgres-'));
  try {
    return await buildIn(tree, directory, version);
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

async function buildIn(tree: string, directory: string, version: string): Promise<PostgresDisk> {
  // The cluster's owner must get through.
  await chmod(tree, 0o755);
  const programs = join(INSTALLED, version, 'bin');
  for (const name of ['dev', 'proc', 'tmp', 'bin', 'etc', 'var/run/postgresql', 'usr/bin']) {
    await mkdir(join(tree, name), { recursive: true });
  }
  const modules = MODULES.map((name) => join(INSTALLED, version, 'lib', name));
  const files = [
    ...PROGRAMS.map((name) => join(programs, name)),
    ...modules,
    '/usr/bin/setpriv',
    '/bin/dash',
  ];
  for (const path of [...files, ...(await librariesOf(files))]) await copyInto(tree, path);
  await copyFile('/bin/dash', join(tree, 'bin', 'sh'));
  for (const name of PROGRAMS) await symlink(join(programs, name), join(tree, 'usr', 'bin', name));
  const shared = join('/usr/share/postgresql', version);
  await cp(shared, join(tree, shared), { recursive: true });
  await writeFile(
    join(tree, 'etc', 'passwd'),
    `postgres:x:${POSTGRES_USER}:${POSTGRES_USER}::/data:/bin/sh\n`,
  );
  await writeFile(join(tree, 'etc', 'group'), `postgres:x:${POSTGRES_USER}:\n`);
  await makeCluster(tree, programs);
  const raw = join(directory, 'postgres.raw');
  const path = join(directory, 'postgres.qcow2');
  const sizeBytes = 192 * 1024 * 1024;
  await runCommand('mke2fs', ['-q', '-t', 'ext4', '-d', tree, raw, String(sizeBytes / 1024)]);
  await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
  await rm(raw);
  return { path, sizeBytes };
}

async function copyInto(tree: string, path: string): Promise<void> {
  await mkdir(dirname(join(tree, path)), { recursive: true });
  await copyFile(path, join(tree, path));
}

/** PostgreSQL refuses to run as root, also for this. */
async function makeCluster(tree: string, programs: string): Promise<void> {
  const data = join(tree, 'data');
  await mkdir(data);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) await chown(data, POSTGRES_USER, POSTGRES_USER);
  const user = String(POSTGRES_USER);
  const run = (program: string, args: readonly string[], input?: string) => {
    const line = [join(programs, program), ...args];
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
