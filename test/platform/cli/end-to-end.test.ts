import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  type AlertView,
  CLIENT_FILES,
  type DoctorReport,
  type JobView,
  type MachineView,
  type PeerView,
  type PointView,
  type RouteAnswer,
  type SiteView,
} from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { type CommandResult, exitOf, runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { retrying } from '../../../src/lib/retry.ts';
import { lastFirst } from '../../support/last-first.ts';
import { machineThatIsOff } from '../../support/paired-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const WARMSITE = join(import.meta.dirname, '..', '..', '..', 'bin', 'warmsite.mjs');
const MIB = 1024 * 1024;
const ALL_EXIT_CODES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130];

/** A site as a person has it: a data directory, commands typed at it, and the process that serves it. */
class TypedSite {
  readonly name: string;
  readonly dataDirectory: string;
  readonly kitPath: string;
  readonly #t: CleanUp;
  /** Every command is a process: what the first one has compiled, the others need not. */
  readonly #compileCache: string;

  constructor(t: CleanUp, directory: string, name: string) {
    this.#t = t;
    this.#compileCache = join(directory, 'compiled');
    this.name = name;
    this.dataDirectory = join(directory, name);
    this.kitPath = join(directory, `${name}.kit`);
  }

  run(...args: readonly string[]): Promise<CommandResult> {
    const variable = `NODE_COMPILE_CACHE=${this.#compileCache}`;
    return runCommand('env', [variable, process.execPath, WARMSITE, '--data', this.dataDirectory, ...args], {
      allowExit: ALL_EXIT_CODES,
    });
  }

  /** The document that a command prints; it must succeed and print nothing else. */
  async json<T>(...args: readonly string[]): Promise<T> {
    const { exitCode, stdout, stderr } = await this.run('--json', ...args);
    assert.deepEqual([exitCode, stderr], [0, ''], `${args.join(' ')}: ${stdout}`);
    return JSON.parse(stdout) as T;
  }

  /** The command fails with this exit code and this code in its document. */
  async fails(exitCode: number, code: string, ...args: readonly string[]): Promise<void> {
    const ran = await this.run('--json', ...args);
    const { error } = JSON.parse(ran.stdout) as { error: { code: string; hint: string } };
    assert.deepEqual([ran.exitCode, error.code], [exitCode, code], ran.stdout);
    assert.notEqual(error.hint, '');
  }

  init(...options: readonly string[]): Promise<{ siteId: string; recoveryKit: string | null }> {
    return this.json(
      'site',
      'init',
      '--host',
      '127.0.0.1',
      '--api-port',
      '0',
      '--peer-port',
      '0',
      ...options,
    );
  }

  /** Serves the site in a process of its own; resolves when it says that it listens. */
  async serve(): Promise<ServingProcess> {
    const child = spawn(
      process.execPath,
      [WARMSITE, '--data', this.dataDirectory, 'site', 'serve', '--json'],
      {
        env: { ...process.env, NODE_COMPILE_CACHE: this.#compileCache },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    this.#t.after(async () => {
      child.kill('SIGKILL');
      await exitOf(child);
    });
    const log: string[] = [];
    child.stderr.on('data', (chunk: Buffer) => log.push(String(chunk)));
    await new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve());
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`${this.name} ended with ${code}: ${log.join('')}`)));
    });
    return {
      async end(signal) {
        child.kill(signal);
        return { ...(await exitOf(child)), log: log.join('') };
      },
    };
  }
}

interface ServingProcess {
  end(signal: 'SIGTERM' | 'SIGINT'): Promise<{ code: number | null; log: string }>;
}

/** A disk with something on it, and the file that `vm add --from` takes; its path is relative, as a person writes it. */
async function describeMachine(directory: string): Promise<string> {
  const disk = join(directory, 'box.qcow2');
  const sizeBytes = 16 * MIB;
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk, String(sizeBytes)]);
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 7 0 ${MIB}`, disk]);
  const path = join(directory, 'box.json');
  const description = machineThatIsOff({ path: 'box.qcow2', sizeBytes, format: 'qcow2' });
  await writeFile(path, JSON.stringify(description));
  return path;
}

describe('the program warmsite', { timeout: 180_000 }, () => {
  it('replicates a machine between two sites, tells what goes wrong, and restores a site from its kit', async (context) => {
    const t = lastFirst(context);
    const directory = await temporaryDirectory(t);
    const home = new TypedSite(t, directory, 'home');
    const away = new TypedSite(t, directory, 'away');

    const { siteId: homeId, recoveryKit } = await home.init('--name', 'home', '--kit-to', home.kitPath);
    assert.equal(recoveryKit, home.kitPath);
    assert.equal((await stat(home.kitPath)).mode & 0o777, 0o600);
    const [{ siteId: awayId }] = await Promise.all([
      away.init('--name', 'away', '--kit-to', away.kitPath),
      home.fails(4, 'SITE_EXISTS', 'site', 'init', '--name', 'x', '--kit-to', join(directory, 'x.kit')),
      home.fails(5, 'CLI_SITE_STOPPED', 'vm', 'list'),
    ]);

    const [homeProcess] = await Promise.all([home.serve(), away.serve()]);
    const { token } = await away.json<RouteAnswer<'site.token'>>('site', 'token');
    const peer = await home.json<PeerView>('site', 'pair', token);
    assert.deepEqual([peer.name, peer.siteId], ['away', awayId]);

    const machine = await home.json<MachineView>('vm', 'add', '--from', await describeMachine(directory));
    assert.deepEqual([machine.name, machine.role], ['box', 'protected']);
    const protectedNow = await home.json<MachineView>(
      ...['vm', 'protect', 'box', '--crash-every', '1h', '--keep-crash', '4', '--keep-app', '0'],
    );
    assert.equal(protectedNow.protected?.replication?.acknowledged?.sequence, 1);
    const tip = protectedNow.protected.disks[0]!.chain.at(-1)!.path;
    // The merge that follows an acknowledgement holds the lock of the file for a moment.
    const backoff = { firstMs: 50, maximumMs: 200, triesMax: 50 };
    await retrying({ clock: systemClock, random: systemRandom }, backoff, () =>
      runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -P 8 ${MIB} ${MIB}`, tip]),
    );
    const { job } = await home.json<{ job: JobView }>('point', 'create', 'box', '--wait');
    assert.equal(job.state, 'done');

    const points = await away.json<PointView[]>('point', 'list', 'box');
    assert.deepEqual(
      points.map(({ sequence, state }) => [sequence, state]),
      [
        [1, 'verified'],
        [2, 'verified'],
      ],
    );
    const verified = await away.run('point', 'verify', 'box', '2');
    assert.equal(verified.exitCode, 0, verified.stderr);
    assert.match(verified.stdout, /every block of point 2 equals what was signed/);

    const [doctor, alerts] = await Promise.all([
      home.run('--json', 'doctor'),
      home.json<AlertView[]>('alert', 'list'),
      home.fails(3, 'MACHINE_UNKNOWN', 'vm', 'show', 'nobody'),
    ]);
    const { verdict, checks } = JSON.parse(doctor.stdout) as DoctorReport;
    assert.equal(doctor.exitCode, verdict === 'failed' ? 1 : 0);
    assert.ok(checks.length > 0);
    assert.deepEqual(alerts, []);
    const tokenPath = join(home.dataDirectory, CLIENT_FILES.operatorToken);
    const right = await readFile(tokenPath);
    await writeFile(tokenPath, 'wrong\n');
    await home.fails(10, 'API_UNAUTHORIZED', 'vm', 'list');
    await writeFile(tokenPath, right);

    const kit = join(directory, 'with-peers.kit');
    await home.json('site', 'kit', '--to', kit);
    const { code, log } = await homeProcess.end('SIGTERM');
    assert.equal(code, 0, log);
    for (const line of log.trim().split('\n')) assert.equal(typeof JSON.parse(line), 'object', line);
    const { exitCode, stdout, stderr } = await home.run('vm', 'list');
    assert.deepEqual([exitCode, stdout], [5, '']);
    assert.match(stderr, /is not being served\nCLI_SITE_STOPPED: Start the site/);

    const found = new TypedSite(t, directory, 'found');
    const restored = await found.init('--from-kit', kit);
    assert.deepEqual([restored.siteId, restored.recoveryKit], [homeId, null]);
    const foundProcess = await found.serve();
    const { name, peers } = await found.json<SiteView>('site', 'show');
    assert.equal(name, 'home');
    assert.deepEqual(
      peers.map(({ siteId }) => siteId),
      [awayId],
    );
    assert.equal((await foundProcess.end('SIGINT')).code, 0);
  });
});
