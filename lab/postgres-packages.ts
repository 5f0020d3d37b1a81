import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../src/lib/errors.ts';
import { labFailure } from './errors.ts';
import { namesIn, publishDirectory } from './kernel.ts';
import { installedPackages, type ListedPackage, listPackages, unpackPackages } from './packages.ts';

/** A PostgreSQL server for a guest: unpacked Debian packages, with the libraries that this host lacks. */
export interface PostgresPackages {
  /** The root of the unpacked files. */
  readonly tree: string;
  /** Major version, which names its directories: `usr/lib/postgresql/MAJOR`, `usr/share/postgresql/MAJOR`. */
  readonly major: string;
}

/** Debian's packages put each major version into a directory of its own. */
const VERSIONS = 'usr/lib/postgresql';
const LIBRARY = /^(?:lib|zlib)/;
/** Compiles queries, which is switched off in the guest: 22 MB that nobody would load. */
const UNUSED_LIBRARY = /^libllvm/;
/** Belongs to the server's version, whatever this host has of it. */
const OWN_LIBRARY = 'libpq5';

/**
 * PostgreSQL from Debian's packages, without installing them: that would start a server on this host. The first call downloads
 * the version that the host's package lists name, with those libraries it depends on that are not installed; no root needed. Later
 * calls find it in `directory` as `postgresql-VERSION`, ask nobody and stay with it until somebody deletes it. Concurrent
 * callers are safe.
 *
 * Throws LAB_PACKAGES_UNAVAILABLE when the lists know none or the download fails.
 */
export async function findPostgres(directory: string): Promise<PostgresPackages> {
  const known = await openNewest(directory);
  if (known) return known;
  await mkdir(directory, { recursive: true });
  const aside = await mkdtemp(join(directory, 'postgres-aside-'));
  try {
    const tree = join(aside, 'tree');
    const version = await unpackServer(aside, tree);
    await publishDirectory(tree, join(directory, `postgresql-${version}`));
  } catch (error) {
    throw labFailure(
      'LAB_PACKAGES_UNAVAILABLE',
      `PostgreSQL for a guest could not be fetched into ${directory}/postgresql-VERSION: ${messageOf(error)}`,
      { cause: error },
    );
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  const postgres = await openNewest(directory);
  if (!postgres) {
    throw labFailure('LAB_PACKAGES_UNAVAILABLE', `the packages unpacked in ${directory} hold no PostgreSQL`);
  }
  return postgres;
}

/** Returns the server's version. */
async function unpackServer(aside: string, tree: string): Promise<string> {
  const [newest] = await listPackages(['postgresql']);
  const server = newest?.depends.find((name) => /^postgresql-\d+$/.test(name));
  if (server === undefined) throw new Error('the package lists know no PostgreSQL');
  const packages = await withLibraries([server, server.replace('-', '-client-')]);
  await unpackPackages(
    packages.map(({ name, version }) => `${name}=${version}`),
    aside,
    tree,
  );
  return packages.find(({ name }) => name === server)!.version;
}

/** These packages, the libraries that they depend on and this host lacks, and those of the libraries. */
async function withLibraries(names: readonly string[]): Promise<ListedPackage[]> {
  const installed = await installedPackages();
  const found = new Map<string, ListedPackage>();
  let wanted = names;
  while (wanted.length > 0) {
    const listed = await listPackages(wanted);
    for (const one of listed) found.set(one.name, one);
    const libraries = new Set(listed.flatMap(({ depends }) => depends).filter((name) => LIBRARY.test(name)));
    wanted = [...libraries].filter(
      (name) =>
        !found.has(name) && !UNUSED_LIBRARY.test(name) && (name === OWN_LIBRARY || !installed.has(name)),
    );
  }
  return [...found.values()];
}

async function openNewest(directory: string): Promise<PostgresPackages | undefined> {
  const names = (await namesIn(directory)).filter((name) => /^postgresql-\d/.test(name));
  const newest = names.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  if (newest === undefined) return undefined;
  const tree = join(directory, newest);
  const major = (await namesIn(join(tree, VERSIONS)))[0];
  return major === undefined ? undefined : { tree, major };
}
