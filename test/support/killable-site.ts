import { type ChildProcess, spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { freePorts } from '../../demo/free-ports.ts';
import { initSite } from '../../src/control/index.ts';
import { exitOf } from '../../src/lib/processes.ts';
import { TestApi } from './api.ts';
import { lastFirst } from './last-first.ts';
import { pair } from './paired-sites.ts';
import { endRunsOf } from './run-ends.ts';
import { SITE_TOOLS } from './served-sites.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

const COUNTED_ACTS = join(import.meta.dirname, 'counted-acts.ts');
const WARMSITE = join(import.meta.dirname, '..', '..', 'bin', 'warmsite.mjs');

/** A site that is served by a process of its own, which may be killed at any instant and begun again. */
export class KillableSite {
  readonly dataDirectory: string;
  readonly #namespace: string | undefined;
  readonly #programs: string | undefined;
  #child: ChildProcess | undefined;

  private constructor(
    dataDirectory: string,
    { namespace, programs }: { readonly namespace?: string; readonly programs?: string },
  ) {
    this.dataDirectory = dataDirectory;
    this.#namespace = namespace;
    this.#programs = programs;
  }

  /**
   * `namespace`: the network namespace that it is served in, which a test reaches at `apiHost`. `programs`: a directory whose programs come
   * before those of the host.
   */
  static async init(
    t: CleanUp,
    directory: string,
    name: string,
    peerPort: number,
    o: {
      readonly namespace?: string;
      readonly apiHost?: string;
      readonly peerHost?: string;
      readonly programs?: string;
    } = {},
  ): Promise<KillableSite> {
    const { apiHost = '127.0.0.1', peerHost = '127.0.0.1' } = o;
    const dataDirectory = join(directory, name);
    const settings = {
      ...{ advertisedHost: '127.0.0.1', api: { host: apiHost, port: 0 } },
      peer: { host: peerHost, port: peerPort },
    };
    await initSite(SITE_TOOLS, { dataDirectory, name, settings });
    const site = new KillableSite(dataDirectory, o);
    t.after(async () => {
      await site.end('SIGKILL');
      await endRunsOf(dataDirectory);
    });
    return site;
  }

  /** With `countingIn` its acts are written to that file from `endAfter` on: `counted-acts.ts`. */
  async serve({ countingIn }: { readonly countingIn?: string } = {}): Promise<TestApi> {
    const counting = countingIn === undefined ? [] : ['--import', COUNTED_ACTS];
    const site = [WARMSITE, '--data', this.dataDirectory, 'site', 'serve', '--log-level', 'error'];
    const args = [...counting, ...site];
    // `ip` becomes the site: what is killed is the site itself.
    const [command, ...rest] = this.#namespace
      ? ['ip', 'netns', 'exec', this.#namespace, process.execPath, ...args]
      : [process.execPath, ...args];
    const path = [...(this.#programs ? [this.#programs] : []), process.env.PATH].join(':');
    const child = spawn(command!, rest, {
      stdio: ['ignore', 'pipe', 'inherit', countingIn === undefined ? 'ignore' : 'ipc'],
      cwd: dirname(this.dataDirectory),
      env: { ...process.env, PATH: path, ...(countingIn === undefined ? {} : { COUNTED_ACTS: countingIn }) },
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      child.stdout!.once('data', () => resolve());
      child.once('exit', (code) => reject(new Error(`the site ended by itself with ${code}`)));
    });
    child.stdout!.resume();
    return TestApi.of(this.dataDirectory);
  }

  /** From now on its acts are written down, and it is killed right after the one of that name. */
  async endAfter(act: string): Promise<void> {
    const child = this.#child!;
    const answered = new Promise<void>((resolve) => child.once('message', () => resolve()));
    child.send({ endsAfter: act });
    await answered;
  }

  /** When its process has ended, by whatever. */
  async ended(): Promise<void> {
    if (this.#child) await exitOf(this.#child);
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await exitOf(child);
  }
}

/** Two sites as processes of their own, served and paired: machines of `home` can be protected to `away`. */
export async function killablePair(context: CleanUp) {
  const t = lastFirst(context);
  const directory = await temporaryDirectory(t);
  const [homePort, awayPort] = await freePorts(2);
  const home = await KillableSite.init(t, directory, 'home', homePort!);
  const away = await KillableSite.init(t, directory, 'away', awayPort!);
  const homeApi = await home.serve();
  const awayApi = await away.serve();
  await pair(homeApi, awayApi);
  return { t, directory, home, away, homeApi, awayApi };
}
