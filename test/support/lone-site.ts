import assert from 'node:assert/strict';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCodeOf } from '../../src/lib/errors.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { ReplicaLayout } from '../../src/replica/index.ts';
import type { TestApi } from './api.ts';
import { tracesOf } from './branch-traces.ts';
import { eventually } from './eventually.ts';
import { type KillableSite, killablePair } from './killable-site.ts';
import { machineThatIsOff } from './paired-sites.ts';
import { endRunsOf } from './run-ends.ts';
import { BY_HAND, verifiedCopy, write, writeToTip } from './site-of-box.ts';
import type { CleanUp } from './temporary.ts';

const SIZE_BYTES = 32 * 1024 * 1024;
const MIB = 1024 * 1024;
/** In the first MiB of each machine's disk: in its older point, and in the newest one. */
export const PATTERNS = { older: 1, newest: 2 } as const;
const ID = '[0-9a-hjkmnp-tv-z]{26}';
const BRANCH = new RegExp(`/branches/(${ID})`);

/** A recovery site whose other site is gone. It may be begun again, from the very same files, as often as a test likes. */
export interface LoneSite {
  readonly site: KillableSite;
  /** A bridge of this host, for the NIC «lan» of each machine. */
  readonly bridge: string;
  /** Nothing that was done is left; serves, and writes down what it does when it is told to. */
  fresh(): Promise<TestApi>;
  /** The names of what the site has done since it was told to write it down. */
  acts(): Promise<string[]>;
  /** What is there and was not at the beginning, of branches of which the acts speak and of files of replicas and machines. */
  left(): Promise<string[]>;
  /** The disk of a branch of a machine. */
  diskOf(branch: { readonly machineId: string; readonly branchId: string }): string;
}

/** Machines without a guest of which the site has two points each. */
export async function loneSite(context: CleanUp, names: readonly string[]): Promise<LoneSite> {
  const { t, directory, home, away, homeApi, awayApi } = await killablePair(context);
  const machineIds: string[] = [];
  for (const [index, name] of names.entries()) {
    const of = { params: { machine: name } };
    const path = join(directory, `${name}.qcow2`);
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
    await write(path, PATTERNS.older, 0, MIB);
    const mac = `52:54:00:aa:01:0${index}`;
    const body = machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' }, [
      { nicId: 'lan', model: 'virtio-net-pci', mac, network: 'office' },
    ]);
    assert.ok('configuration' in body);
    const uuid = `6f1f2c3e-0d2a-4b5e-8f7a-0123456789${10 + index}`;
    const configuration = { ...(body.configuration as object), name, uuid };
    const added = await homeApi.call('vm.add', { body: { ...body, configuration } });
    machineIds.push(added.machineId);
    await homeApi.call('vm.protect', { ...of, body: BY_HAND });
    await verifiedCopy(homeApi, of);
    await writeToTip(homeApi, PATTERNS.newest, 0, of);
    await verifiedCopy(homeApi, of);
    assert.equal((await awayApi.call('point.list', of)).length, 2);
  }
  const bridge = `wsk${process.pid}`;
  await runCommand('ip', ['link', 'add', bridge, 'type', 'bridge']);
  t.after(async () => {
    await runCommand('ip', ['link', 'delete', 'dev', bridge]);
  });
  await home.end('SIGTERM');
  await away.end('SIGTERM');

  const { dataDirectory } = away;
  const kept = join(directory, 'kept');
  const countingIn = join(directory, 'acts');
  await runCommand('cp', ['-a', dataDirectory, kept]);
  const lines = async () => (await readFile(countingIn, 'utf8')).split('\n').slice(0, -1);
  const layoutOf = (machineId: string) => new ReplicaLayout(dataDirectory, machineId);
  const traces = async () => {
    const runDirectory = join(dataDirectory, 'run');
    const all = new Set((await lines()).flatMap((line) => BRANCH.exec(line)?.[1] ?? []));
    const found = machineIds.flatMap((machineId) =>
      [...all].map((id) => tracesOf({ runDirectory, branchesDirectory: layoutOf(machineId).branches }, id)),
    );
    return (await Promise.all(found)).flat();
  };
  return {
    ...{ site: away, bridge },
    fresh: async () => {
      await away.end('SIGKILL');
      await endRunsOf(dataDirectory);
      for (const path of [dataDirectory, countingIn]) await rm(path, { recursive: true, force: true });
      await runCommand('cp', ['-a', kept, dataDirectory]);
      return away.serve({ countingIn });
    },
    acts: async () => (await lines()).map((line) => line.split('\t')[0]!),
    left: async () => {
      const there = new Set(await namesIn(kept));
      return [...(await traces()), ...(await namesIn(dataDirectory)).filter((name) => !there.has(name))];
    },
    diskOf: ({ machineId, branchId }) => join(layoutOf(machineId).branch(branchId), 'disk0.qcow2'),
  };
}

/** Of replicas, machines at home and what runs; the addresses of the site itself are not among them. */
async function namesIn(dataDirectory: string): Promise<string[]> {
  const below = ['replicas', 'protected', 'run'].map(async (kind) => {
    const names = await readdir(join(dataDirectory, kind), { recursive: true });
    return names.map((name) => join(kind, name));
  });
  return (await Promise.all(below)).flat().filter((name) => new RegExp(ID).test(name));
}

/**
 * By the directory of what it runs: the process that a site has there, or has left there. A QEMU that is just beginning is two for a moment, and a
 * program that was about to fail one.
 */
export async function runsOf(dataDirectory: string): Promise<Map<string, number>> {
  const run = new RegExp(`${dataDirectory}/run/(${ID})/`);
  return eventually(async () => {
    const found = new Map<string, number>();
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      const id = run.exec(await commandLineOf(name))?.[1];
      if (id === undefined) continue;
      if (found.has(id)) return undefined;
      found.set(id, Number(name));
    }
    return found;
  });
}

async function commandLineOf(processId: string): Promise<string> {
  try {
    return await readFile(`/proc/${processId}/cmdline`, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(systemCodeOf(error) ?? '')) return '';
    throw error;
  }
}
