import { resolve } from 'node:path';
import { ApiClient } from './api-client.ts';
import { cliFailure } from './errors.ts';
import type { Page } from './page.ts';
import { noProgress, type ProgressDisplay, progressOn } from './progress.ts';
import { readApiAccess } from './site-files.ts';
import type { World } from './world.ts';

/** Where a site lives unless --data or WARMSITE_DATA says otherwise. */
export const DATA_DIRECTORY_DEFAULT = '/var/lib/warmsite';

/** The exit code of an act that was done and found something bad: a probe that failed, a proof that is missing. */
export const EXIT_FOUND_BAD = 1;

/** What a command has to say, for programs and for people. */
export interface Report {
  /** The one JSON document of `--json`. */
  readonly document: unknown;
  readonly print: (page: Page) => void;
  /** 0 unless given. */
  readonly exitCode?: number;
}

/** What the commands of one run share: global options, the connection with the site, the terminal. */
export class Context {
  readonly world: World;
  readonly dataDirectory: string;
  readonly json: boolean;
  #api: ApiClient | undefined;

  constructor(world: World, options: { readonly data?: string; readonly json?: boolean }) {
    this.world = world;
    const data = options.data ?? (world.environment.WARMSITE_DATA || DATA_DIRECTORY_DEFAULT);
    this.dataDirectory = resolve(world.workingDirectory, data);
    this.json = options.json ?? false;
  }

  /** The API of the site in the data directory. */
  async api(): Promise<ApiClient> {
    const { clock, files } = this.world;
    this.#api ??= new ApiClient({ access: await readApiAccess(files, this.dataDirectory), clock });
    return this.#api;
  }

  get nowMs(): number {
    return this.world.clock.wallMs();
  }

  path(path: string): string {
    return resolve(this.world.workingDirectory, path);
  }

  progress(): ProgressDisplay {
    return this.json ? noProgress : progressOn(this.world.messages, this.world.clock);
  }

  /**
   * Runs work that only watches: an interrupt ends the watching with CLI_WATCH_ENDED, and `goesOn` tells the person how to
   * look again.
   */
  async watching<T>(
    what: string,
    goesOn: string,
    work: (display: ProgressDisplay, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const interrupt = new AbortController();
    const remove = this.world.onInterrupt(() =>
      interrupt.abort(cliFailure('CLI_WATCH_ENDED', `you stopped watching ${what}`, { hint: goesOn })),
    );
    const display = this.progress();
    try {
      return await work(display, interrupt.signal);
    } finally {
      display.end();
      remove();
    }
  }

  /** Goes on if the person types `word`; throws CLI_CONFIRMATION_MISSING otherwise. */
  async confirm(o: { question: string; word: string; option: string }): Promise<void> {
    const answer = this.json ? undefined : await this.world.ask(`${o.question}\nType «${o.word}» to go on: `);
    if (answer?.trim() === o.word) return;
    const said =
      answer === undefined
        ? `this needs your word. ${o.question}`
        : `«${o.word}» was not typed; nothing was done`;
    throw cliFailure('CLI_CONFIRMATION_MISSING', said, {
      hint: `Run the command in a terminal and type «${o.word}», or give ${o.option}.`,
    });
  }

  /** Lets go of the connection; the next `api` makes another one. */
  close(): void {
    this.#api?.close();
    this.#api = undefined;
  }
}
