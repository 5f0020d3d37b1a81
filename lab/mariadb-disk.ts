import { copyFile, cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LAB_CACHE } from './build-guest.ts';
import { buildServerDisk, type ServerDisk, type ServerTree } from './server-disk.ts';
import { findServer, type ServerPackages } from './server-packages.ts';

const PACKAGES: ServerPackages = {
  name: 'mariadb',
  packages: async () => ['mariadb-server-core', 'mariadb-client-core'],
  ownLibrary: 'libmariadb3',
};
const PROGRAMS = ['usr/sbin/mariadbd', 'usr/bin/mariadb', 'usr/bin/mariadb-check'] as const;
/** What the recipe's scripts and the server's start call. */
const APPLETS = ['sh', 'cat', 'chown', 'grep', 'kill', 'mkfifo', 'rm', 'sleep', 'usleep'] as const;
const SHARED = 'usr/share/mysql';

const SETTINGS = `[mariadbd]
user = mysql
datadir = /data
tmpdir = /tmp
socket = /run/mysqld/mysqld.sock
log_error = /data/server.log
log_bin = binlog
skip_networking
performance_schema = off
innodb_log_file_size = 8M
innodb_buffer_pool_size = 16M
innodb_buffer_pool_dump_at_shutdown = off
innodb_data_file_path = ibdata1:4M:autoextend
innodb_autoextend_increment = 1
innodb_temp_data_file_path = ibtmp1:2M:autoextend
key_buffer_size = 1M
aria_pagecache_buffer_size = 1M

[client]
socket = /run/mysqld/mysqld.sock
`;

/** One table with transactions, and one without, which a power loss leaves marked as crashed. */
const CONTENT = `
CREATE DATABASE shop;
CREATE TABLE shop.transfers (id bigint PRIMARY KEY AUTO_INCREMENT, amount bigint NOT NULL) ENGINE=InnoDB;
CREATE TABLE shop.audit (id bigint PRIMARY KEY AUTO_INCREMENT, amount bigint NOT NULL) ENGINE=MyISAM;
`;

/**
 * A disk with a MariaDB of Debian's packages and a database `shop`, whose user `root` logs in by the socket as Debian's does. In the guest,
 * `data`, `tmp` and `run/mysqld` are to be given to its user `mysql`.
 *
 * The packages are unpacked below `cache` and not installed (see `findServer`). Throws what that and `buildServerDisk` throw.
 */
export async function buildMariadbDisk(directory: string, cache = LAB_CACHE): Promise<ServerDisk> {
  const unpacked = await findServer(cache, PACKAGES);
  const disk = { name: 'mariadb', user: 'mysql', sizeBytes: 128 * 1024 * 1024, unpacked };
  return await buildServerDisk(directory, disk, fill);
}

async function fill(tree: ServerTree): Promise<void> {
  const { root, unpacked } = tree;
  await tree.addPrograms(PROGRAMS.map((path) => join(unpacked, path)));
  await copyFile('/bin/busybox', join(root, 'bin', 'busybox'));
  for (const name of APPLETS) await symlink('busybox', join(root, 'bin', name));
  for (const name of ['english', 'charsets']) {
    await cp(join(unpacked, SHARED, name), join(root, SHARED, name), { recursive: true });
  }
  for (const name of ['run/mysqld', 'etc/mysql']) await mkdir(join(root, name), { recursive: true });
  const settings = join(root, 'etc', 'mysql', 'my.cnf');
  await writeFile(settings, SETTINGS);
  const data = await tree.makeData();
  const places = [`--datadir=${data}`, `--tmpdir=${data}`, `--lc-messages-dir=${join(root, SHARED)}`];
  const noTraces = ['--skip-log-bin', `--log-error=${join(data, 'bootstrap.log')}`];
  await tree.run(
    'usr/sbin/mariadbd',
    [`--defaults-file=${settings}`, '--bootstrap', ...places, ...noTraces],
    await bootstrapOf(unpacked),
  );
}

/** What `mariadb-install-db` feeds to the server, without the texts of its help and without the schema `sys`; one statement a line. */
async function bootstrapOf(unpacked: string): Promise<string> {
  const files = ['mysql_system_tables.sql', 'mysql_system_tables_data.sql'];
  const system = await Promise.all(files.map((name) => readFile(join(unpacked, SHARED, name), 'utf8')));
  const first = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = 'root';\n";
  return `${first}${system.join('\n')}\n${CONTENT}`;
}
