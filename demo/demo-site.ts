import { type ChildProcess, spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { join } from 'node:path';
import type { RouteAnswer } from '../src/api/index.ts';
import { ApiClient, readApiAccess } from '../src/cli/index.ts';
import { systemClock } from '../src/lib/clock.ts';
import { nodeFiles } from '../src/lib/node-files.ts';
import { exitOf } from '../src/lib/processes.ts';
import { say } from './say.ts';

const WARMSITE = join(import.meta.dirname, '..', 'bin', 'warmsite.mjs');

/**
 * One site of the demonstration: a data directory, the process that serves it, and the command line spoken to it. Acts go
 * through the command line, as a person would do them; looking on goes through the API, which is quicker.
 */
export class DemoSite {
  readonly name: string;
  readonly dataDirectory: string;
  #process: ChildProcess | undefined;
  #client: ApiClient | undefined;

  constructor(name: string, directory: string) {
    this.name = name;
    this.dataDirectory = join(directory, name);
  }

  get processId(): number | undefined {
    return this.#process?.pid;
  }

  get logPath(): string {
    return `${this.dataDirectory}.log`;
  }

  /** Starts the site's process; returns when it says that it serves. */
  async serve(): Promise<void> {
    say.command(this.name, ['site', 'serve']);
    const child = spawn(process.execPath, [WARMSITE, '--data', this.dataDirectory, 'site', 'serve'], {
      stdio: ['ignore', 'pipe', openSync(this.logPath, 'a')],
    });
    this.#process = child;
    await new Promise<void>((resolve, reject) => {
      child.stdout!.once('data', () => resolve());
      child.once('exit', (code) =>
        reject(new Error(`site ${this.name} ended with ${code}; see ${this.logPath}`)),
      );
    });
    child.stdout!.resume();
    this.#client = new ApiClient({
      access: await readApiAccess(nodeFiles, this.dataDirectory),
      clock: systemClock,
    });
  }

  /** Ends the site's process by the given signal and waits for its end. Machines that it started run on. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.#client?.close();
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await exitOf(child);
  }

  /** Leaves the site's process running when the demonstration ends. */
  leaveRunning(): void {
    this.#client?.close();
    this.#process?.stdout?.destroy();
    this.#process?.unref();
  }

  /** Types one command; returns what it printed as JSON. */
  async run(args: readonly string[]): Promise<unknown> {
    say.command(this.name, args);
    const child = spawn(process.execPath, [WARMSITE, '--data', this.dataDirectory, '--json', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const outputs = Promise.all([textOf(child.stdout), textOf(child.stderr)]);
    const { code } = await exitOf(child);
    const [stdout, stderr] = await outputs;
    if (code !== 0) throw new Error(`warmsite ${args.join(' ')} ended with ${code}: ${stdout || stderr}`);
    return stdout.trim() === '' ? undefined : JSON.parse(stdout);
  }

  machine(name: string): Promise<RouteAnswer<'vm.show'>> {
    return this.#api.call('vm.show', { params: { machine: name } });
  }

  points(name: string): Promise<RouteAnswer<'point.list'>> {
    return this.#api.call('point.list', { params: { machine: name } });
  }

  branches(name: string): Promise<RouteAnswer<'failover.list'>> {
    return this.#api.call('failover.list', { params: { machine: name } });
  }

  alerts(): Promise<RouteAnswer<'alert.list'>> {
    return this.#api.call('alert.list', {});
  }

  machines(): Promise<RouteAnswer<'vm.list'>> {
    return this.#api.call('vm.list', {});
  }

  get #api(): ApiClient {
    if (!this.#client) throw new Error(`site ${this.name} is not being served`);
    return this.#client;
  }
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  return text;
}
