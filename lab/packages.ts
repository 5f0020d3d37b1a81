import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../src/lib/processes.ts';

/** A Debian package that the package lists of this host know. */
export interface ListedPackage {
  readonly name: string;
  readonly version: string;
  /** Names of what it depends on; of alternatives the first. */
  readonly depends: readonly string[];
}

/** What `apt-get install` would choose for these names. PROCESS_FAILED when the lists do not know one. */
export async function listPackages(names: readonly string[]): Promise<ListedPackage[]> {
  const { stdout } = await runCommand('apt-cache', ['show', '--no-all-versions', ...names]);
  const stanzas = stdout.split(/\n\n+/).filter((stanza) => stanza.trim() !== '');
  return stanzas.map((stanza) => ({
    name: fieldOf(stanza, 'Package'),
    version: fieldOf(stanza, 'Version'),
    depends: fieldOf(stanza, 'Depends')
      .split(',')
      .map((clause) => clause.trim().split(/[ :(|]/)[0]!)
      .filter((name) => name !== ''),
  }));
}

/** The names of the packages that are installed on this host. */
export async function installedPackages(): Promise<ReadonlySet<string>> {
  const { stdout } = await runCommand('dpkg-query', ['-W', '-f', `\${db:Status-Status} \${Package}\n`]);
  const lines = stdout.split('\n').map((line) => line.split(' '));
  return new Set(lines.filter(([status]) => status === 'installed').map(([, name]) => name!));
}

/**
 * Downloads packages (a name, or `NAME=VERSION`) and unpacks them into `tree`, which need not exist. Nothing is installed, none of
 * their scripts runs, and root is not needed. `aside` is a directory that exists, for what is needed meanwhile.
 */
export async function unpackPackages(names: readonly string[], aside: string, tree: string): Promise<void> {
  const archives = await mkdtemp(join(aside, 'archives-'));
  // Debian's archives delete superseded packages: an old list names what is no longer there.
  await runCommand('apt-get', ['-q', 'download', ...names], { cwd: archives });
  for (const archive of await readdir(archives)) {
    await runCommand('dpkg-deb', ['-x', join(archives, archive), tree]);
  }
  await rm(archives, { recursive: true });
}

function fieldOf(stanza: string, name: string): string {
  return new RegExp(`^${name}: (.*)$`, 'm').exec(stanza)?.[1] ?? '';
}
