import type { Command } from 'commander';
import { Context, type Report } from '../context.ts';
import type { World } from '../world.ts';

/** Makes the action of a command out of work that gives a report; `program` holds the options of all commands. */
export class Runner {
  readonly #world: World;
  readonly #program: Command;
  readonly #finish: (context: Context, report: Report) => void;

  constructor(o: { world: World; program: Command; finish: (context: Context, report: Report) => void }) {
    this.#world = o.world;
    this.#program = o.program;
    this.#finish = o.finish;
  }

  /** Commander hands an action its arguments, then its options, then the command. */
  run<A extends unknown[]>(
    work: (context: Context, ...args: A) => Promise<Report>,
  ): (...args: A) => Promise<void> {
    return async (...args) => {
      const context = new Context(this.#world, this.#program.opts());
      try {
        this.#finish(context, await work(context, ...args));
      } finally {
        context.close();
      }
    };
  }
}

/** Examples for the end of a command's help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}\n`;
}

/** `--wait` is the default of all long work. */
export interface WaitOption {
  readonly wait: boolean;
}

export const WAIT_FLAGS = {
  wait: ['--wait', 'wait until it is done', true],
  noWait: ['--no-wait', 'return as soon as the site has begun'],
} as const;
