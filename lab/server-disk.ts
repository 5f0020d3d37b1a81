import { chmod, chown, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { runCommand } from '../src/lib/processes.ts';
import { librariesOf } from './build-guest.ts';
import { namesIn } from './kernel.ts';

/** A disk (qcow2, ext4 without partitions) with a database server: a root of its own, for `chroot` in a guest. */
export interface ServerDisk {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Who owns the server: `nobody` of every Debian, who has a name of its own in the tree. */
const SERVER_USER = 65_534;

/** What a server's disk is made from. */
export interface ServerTree {
  /** The root that the guest will see. */
  readonly root: string;
  /** The root of the server's unpacked packages. */
  readonly unpacked: string;
  /**
   * Puts programs and modules into the root, with the shared libraries they need; paths are those of the packages' files or of this host's.
   * Files of the packages have the place there that they have in their tree, files of this host the same as here.
   */
  addPrograms(paths: readonly string[]): Promise<void>;
  /** An empty directory `data` that is the server's. */
  makeData(): Promise<string>;
  /**
   * Runs a program of the root, with the root's libraries, on this host. Servers refuse to run as root, also for the making of their data. What
   * runs is the copy, which its user may read wherever the packages are; it finds its other files by the place of its program.
   */
  run(program: string, args: readonly string[], input?: string): Promise<void>;
}

/**
 * Builds the disk of a server without mounting; `user` is the name under which it runs in the guest, where what is its own is to be given to it.
 * Throws what `fill` throws, LAB_LIBRARY_MISSING, TOOL_MISSING, PROCESS_FAILED.
 */
export async function buildServerDisk(
  directory: string,
  o: { name: string; user: string; sizeBytes: number; unpacked: string },
  fill: (tree: ServerTree) => Promise<void>,
): Promise<ServerDisk> {
  const root = await mkdtemp(join(tmpdir(), `warmsite-${o.name}-`));
  try {
    // The data's owner must get through.
    await chmod(root, 0o755);
    for (const name of ['dev', 'proc', 'tmp', 'bin', 'etc', 'usr/bin']) {
      await mkdir(join(root, name), { recursive: true });
    }
    await writeFile(
      join(root, 'etc', 'passwd'),
      `root:x:0:0::/:/bin/sh\n${o.user}:x:${SERVER_USER}:${SERVER_USER}::/data:/bin/sh\n`,
    );
    await writeFile(join(root, 'etc', 'group'), `root:x:0:\n${o.user}:x:${SERVER_USER}:\n`);
    await fill(treeIn(root, o.unpacked));
    const raw = join(directory, `${o.name}.raw`);
    const path = join(directory, `${o.name}.qcow2`);
    await runCommand('mke2fs', ['-q', '-t', 'ext4', '-d', root, raw, String(o.sizeBytes / 1024)]);
    await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
    await rm(raw);
    return { path, sizeBytes: o.sizeBytes };
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function treeIn(root: string, unpacked: string): ServerTree {
  const isRoot = process.getuid?.() === 0;
  const libraryDirectories = new Set<string>();
  const placeOf = (path: string) =>
    join(root, path.startsWith(`${unpacked}/`) ? path.slice(unpacked.length) : path);
  return {
    ...{ root, unpacked },
    addPrograms: async (paths) => {
      const libraries = await librariesOf(paths, await libraryDirectoriesOf(unpacked));
      for (const from of [...paths, ...libraries]) {
        await mkdir(dirname(placeOf(from)), { recursive: true });
        await copyFile(from, placeOf(from));
      }
      for (const path of libraries) libraryDirectories.add(dirname(placeOf(path)));
    },
    makeData: async () => {
      const data = join(root, 'data');
      await mkdir(data);
      if (isRoot) await chown(data, SERVER_USER, SERVER_USER);
      return data;
    },
    run: async (program, args, input) => {
      const search = `LD_LIBRARY_PATH=${[...libraryDirectories].join(':')}`;
      const user = String(SERVER_USER);
      const as = isRoot ? ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups'] : [];
      const [command, ...rest] = [...as, 'env', search, join(root, program), ...args];
      await runCommand(command!, rest, input === undefined ? {} : { input });
    },
  };
}

/** Where the packages have libraries: Debian's directories are named after the kind of machine. */
async function libraryDirectoriesOf(unpacked: string): Promise<string[]> {
  const places = ['lib', 'usr/lib'].map(async (place) => {
    const names = await namesIn(join(unpacked, place));
    return names.filter((name) => name.includes('-linux-gnu')).map((name) => join(unpacked, place, name));
  });
  return (await Promise.all(places)).flat();
}
