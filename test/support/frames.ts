import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { systemClock, withTimeout } from '../../src/lib/clock.ts';
import { exitOf } from '../../src/lib/processes.ts';
import type { CleanUp } from './temporary.ts';

const LIMIT_MS = 60_000;

/** What is said on a bridge of this host, as tcpdump(8) reads it, until the test ends. */
export class Frames {
  readonly #lines: string[] = [];
  readonly #watchers = new Set<() => void>();

  /** On return everything that comes from now on is seen. */
  static async on(t: CleanUp, bridge: string, filter: string): Promise<Frames> {
    const frames = new Frames();
    const child = spawn('tcpdump', ['-i', bridge, '-n', '-e', '-l', '--immediate-mode', filter]);
    t.after(async () => {
      child.kill('SIGTERM');
      await exitOf(child);
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      const lines = (text + part).split('\n');
      text = lines.pop()!;
      frames.#lines.push(...lines);
      for (const look of [...frames.#watchers]) look();
    });
    for (let said = ''; !said.includes('listening on'); ) said += String(await once(child.stderr, 'data'));
    return frames;
  }

  /** The first frame that matches, seen already or still to come. */
  seen(pattern: RegExp): Promise<string> {
    const seen = () =>
      new Promise<string>((resolve) => {
        const look = () => {
          const line = this.#lines.find((one) => pattern.test(one));
          if (line === undefined) return;
          this.#watchers.delete(look);
          resolve(line);
        };
        this.#watchers.add(look);
        look();
      });
    const late = () => new Error(`no frame matches ${pattern}:\n${this.#lines.join('\n')}`);
    return withTimeout(systemClock, LIMIT_MS, seen, late);
  }
}
