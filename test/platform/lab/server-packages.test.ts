/** Fetching a server for a guest, with package tools of our own on the path: no network. */
import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { POSTGRES_PACKAGES } from '../../../lab/postgres-disk.ts';
import { findServer } from '../../../lab/server-packages.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

/** Name: version, and what it depends on. */
const LISTED: Readonly<Record<string, readonly [string, string]>> = {
  postgresql: ['15+248', 'postgresql-15'],
  'postgresql-15': [
    '1:15.20-0',
    'locales | locales-all, postgresql-client-15, tzdata, libllvm14, libxml2 (>= 2.7), libc6, libpq5',
  ],
  'postgresql-client-15': ['15.20-0', 'libpq5 (>= 15.20), zlib1g'],
  libpq5: ['15.20-0', 'libldap-2.5-0:amd64, libc6'],
  libxml2: ['2.9', 'libicu72'],
  'libldap-2.5-0': ['2.5', ''],
  libicu72: ['72.1', 'libc6'],
};
const INSTALLED = ['libc6', 'zlib1g', 'libpq5'];

interface Host {
  readonly cache: string;
  /** The arguments of every `apt-get` so far. */
  asked(): Promise<string[]>;
}

/** A host whose lists know LISTED; `download` is what its `apt-get download NAME=VERSION …` does for each `$p`. */
async function hostWith(t: TestContext, download: string): Promise<Host> {
  const directory = await temporaryDirectory(t);
  const bin = join(directory, 'bin');
  const cache = join(directory, 'cache');
  const tree = join(directory, 'package');
  const lists = join(directory, 'lists');
  for (const path of [bin, lists, join(tree, 'DEBIAN'), join(tree, 'usr/lib/postgresql/15/bin')]) {
    await mkdir(path, { recursive: true });
  }
  await writeFile(
    join(tree, 'DEBIAN', 'control'),
    'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: p\nDescription: p\n',
  );
  await runCommand('dpkg-deb', ['--root-owner-group', '-b', tree, join(directory, 'any.deb')]);
  for (const [name, [version, depends]] of Object.entries(LISTED)) {
    const field = depends === '' ? '' : `Depends: ${depends}\n`;
    await writeFile(join(lists, name), `Package: ${name}\nVersion: ${version}\n${field}\n`);
  }
  const scripts = {
    'apt-cache': `shift 2; cd ${lists} && cat "$@"`,
    'dpkg-query': `printf 'installed %s\\n' ${INSTALLED.join(' ')}; echo 'config-files libxml2'`,
    'apt-get': `echo "$*" >>${directory}/asked; shift 2; for p in "$@"; do ${download}; done`,
  };
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(bin, name), `#!/bin/sh\nset -e\n${script}\n`);
    await chmod(join(bin, name), 0o755);
  }
  await writeFile(join(directory, 'asked'), '');
  const before = process.env.PATH;
  process.env.PATH = `${bin}:${before}`;
  t.after(() => {
    process.env.PATH = before;
  });
  return {
    cache,
    asked: async () => (await readFile(join(directory, 'asked'), 'utf8')).split('\n').slice(0, -1),
  };
}

test('a server for a guest comes with the libraries that this host lacks; found again without a question', async (t) => {
  const host = await hostWith(t, 'cp ../../../any.deb "$p.deb"');
  const postgres = await findServer(host.cache, POSTGRES_PACKAGES);
  assert.equal(postgres, join(host.cache, 'postgresql-15.20-0'), 'a colon would end it in a list of paths');
  assert.deepEqual(await readdir(host.cache), ['postgresql-15.20-0']);
  const [asked] = await host.asked();
  const names = ['postgresql-15', 'postgresql-client-15', 'libpq5', 'libxml2', 'libldap-2.5-0', 'libicu72'];
  assert.deepEqual(
    asked!.split(' ').slice(2).sort(),
    names.map((name) => `${name}=${LISTED[name]![0]}`).sort(),
  );
  assert.equal(await findServer(host.cache, POSTGRES_PACKAGES), postgres);
  assert.equal((await host.asked()).length, 1);
});

test('a download that fails says what to do and leaves nothing behind; the next call tries again', async (t) => {
  const host = await hostWith(t, 'echo "E: Failed to fetch $p" >&2; exit 100');
  for (const calls of [1, 2]) {
    await assert.rejects(findServer(host.cache, POSTGRES_PACKAGES), (error) => {
      assert.ok(isFailure(error, 'LAB_PACKAGES_UNAVAILABLE'));
      assert.match(error.message, /Failed to fetch postgresql-15=1:15\.20-0/);
      assert.match(error.hint, /apt-get update/);
      return true;
    });
    assert.deepEqual(await readdir(host.cache), []);
    assert.equal((await host.asked()).length, calls);
  }
});
