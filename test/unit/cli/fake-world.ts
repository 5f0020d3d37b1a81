import { PassThrough } from 'node:stream';
import { runCommandLine, type SiteHost, type World } from '../../../src/cli/index.ts';
import { type Clock, systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';

export interface WorldOptions {
  readonly environment?: Readonly<Record<string, string>>;
  readonly terminal?: boolean;
  readonly clock?: Clock;
  readonly workingDirectory?: string;
  readonly host?: Partial<SiteHost>;
  /** What the person at the terminal answers; without one there is no terminal to ask at. */
  readonly answer?: string;
  /** Called as soon as somebody listens to interrupts, with the way to interrupt. */
  readonly interrupted?: (interrupt: () => void) => void;
}

export interface Ran {
  readonly exitCode: number;
  readonly output: string;
  readonly messages: string;
}

/** Runs one command line in a world of its own and returns what it has written. */
export async function run(args: readonly string[], o: WorldOptions = {}): Promise<Ran> {
  const output = screen(o.terminal ?? false);
  const messages = screen(o.terminal ?? false);
  const world: World = {
    environment: o.environment ?? {},
    workingDirectory: o.workingDirectory ?? '/nowhere',
    output,
    messages,
    clock: o.clock ?? systemClock,
    random: systemRandom,
    files: nodeFiles,
    host: { init: unexpected, serve: unexpected, rebuild: unexpected, kit: unexpected, ...o.host },
    onInterrupt(listener) {
      o.interrupted?.(listener);
      return () => undefined;
    },
    ask: async (question) => {
      if (o.answer !== undefined) messages.write(question);
      return o.answer;
    },
  };
  const exitCode = await runCommandLine(args, world);
  return { exitCode, output: textIn(output), messages: textIn(messages) };
}

function screen(isTTY: boolean): PassThrough & { readonly isTTY: boolean } {
  return Object.assign(new PassThrough({ highWaterMark: 2 ** 24 }), { isTTY });
}

function textIn(stream: PassThrough): string {
  return String(stream.read() ?? '');
}

async function unexpected(): Promise<never> {
  throw new Error('this command does not touch the site but through its API');
}
