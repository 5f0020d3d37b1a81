import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../src/lib/errors.ts';
import { labFailure } from './errors.ts';
import { namesIn, publishDirectory } from './kernel.ts';
import { installedPackages, type ListedPackage, listPackages, unpackPackages } from './packages.ts';

/** A server of Debian's packages. */
export interface ServerPackages {
  /** `NAME-VERSION` is the directory of the unpacked files. */
  readonly name: string;
  /** The packages with its programs; the first one's version is the server's. Asked only when there is something to download. */
  packages(): Promise<readonly string[]>;
  /** The library that belongs to the server's version, whatever this host has of it. */
  readonly ownLibrary: string;
}

const LIBRARY = /^(?:lib|zlib)/;
/** Compiles queries, which is switched off in the guest: 22 MB that nobody would load. */
const UNUSED_LIBRARY = /^libllvm/;

/**
 * The root of a server's unpacked packages. They are not installed: that would start a server on this host. The first call downloads
 * the version that the host's package lists name, with those libraries it depends on that are not installed; no root needed. Later
 * calls find it in `directory` as `NAME-VERSION`, ask nobody and stay with it until somebody deletes it. Concurrent
 * callers are safe.
 *
 * Throws LAB_PACKAGES_UNAVAILABLE when the lists know none or the download fails.
 */
export async function findServer(directory: string, server: ServerPackages): Promise<string> {
  const known = await newestOf(directory, server);
  if (known !== undefined) return known;
  await mkdir(directory, { recursive: true });
  const aside = await mkdtemp(join(directory, `${server.name}-aside-`));
  try {
    const tree = join(aside, 'tree');
    const version = await unpackServer(aside, tree, server);
    const place = join(directory, `${server.name}-${version}`);
    await publishDirectory(tree, place);
    return place;
  } catch (error) {
    throw labFailure(
      'LAB_PACKAGES_UNAVAILABLE',
      `${server.name} for a guest could not be fetched into ${directory}/${server.name}-VERSION: ${messageOf(error)}`,
      { cause: error },
    );
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

/** Returns the server's version, without Debian's epoch, whose colon would end a path in a list of paths. */
async function unpackServer(aside: string, tree: string, server: ServerPackages): Promise<string> {
  const names = await server.packages();
  const packages = await withLibraries(names, server.ownLibrary);
  await unpackPackages(
    packages.map(({ name, version }) => `${name}=${version}`),
    aside,
    tree,
  );
  return packages.find(({ name }) => name === names[0])!.version.replace(/^\d+:/, '');
}

/** These packages, the libraries that they depend on and this host lacks, and those of the libraries. */
async function withLibraries(names: readonly string[], ownLibrary: string): Promise<ListedPackage[]> {
  const installed = await installedPackages();
  const found = new Map<string, ListedPackage>();
  let wanted = names;
  while (wanted.length > 0) {
    const listed = await listPackages(wanted);
    for (const one of listed) found.set(one.name, one);
    const libraries = new Set(listed.flatMap(({ depends }) => depends).filter((name) => LIBRARY.test(name)));
    wanted = [...libraries].filter(
      (name) =>
        !found.has(name) && !UNUSED_LIBRARY.test(name) && (name === ownLibrary || !installed.has(name)),
    );
  }
  return [...found.values()];
}

async function newestOf(directory: string, { name }: ServerPackages): Promise<string | undefined> {
  const versions = new RegExp(`^${name}-\\d`);
  const names = (await namesIn(directory)).filter((entry) => versions.test(entry));
  const newest = names.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  return newest === undefined ? undefined : join(directory, newest);
}
