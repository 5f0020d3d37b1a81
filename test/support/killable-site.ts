import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { freePorts } from '../../demo/free-ports.ts';
import { initSite } from '../../src/control/index.ts';
import { exitOf } from '../../src/lib/processes.ts';
import { TestApi } from './api.ts';
import { lastFirst } from './last-first.ts';
import { pair } from './paired-sites.ts';
import { SITE_TOOLS } from './served-sites.ts';
import { type CleanUp, temporaryDirectory } from './temporary.ts';

const WARMSITE = join(import.meta.dirname, '..', '..', 'bin', 'warmsite.mjs');

/** A site that is served by a process of its own, which may be killed at any instant and begun again. */
export class KillableSite {
  readonly dataDirectory: string;
  #child: ChildProcess | undefined;

  private constructor(dataDirectory: string) {
    this.dataDirectory = dataDirectory;
  }

  static async init(t: CleanUp, directory: string, name: string, peerPort: number): Promise<KillableSite> {
    const dataDirectory = join(directory, name);
    const settings = {
      ...{ advertisedHost: '127.0.0.1', api: { host: '127.0.0.1', port: 0 } },
      peer: { host: '127.0.0.1', port: peerPort },
    };
    await initSite(SITE_TOOLS, { dataDirectory, name, settings });
    const site = new KillableSite(dataDirectory);
    t.after(() => site.end('SIGKILL'));
    return site;
  }

  async serve(): Promise<TestApi> {
    const args = [WARMSITE, '--data', this.dataDirectory, 'site', 'serve', '--log-level', 'error'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve());
      child.once('exit', (code) => reject(new Error(`the site ended by itself with ${code}`)));
    });
    child.stdout.resume();
    return TestApi.of(this.dataDirectory);
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
