import type { RebuildReport } from '../api/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Random } from '../lib/random.ts';

/** A stream that may be a terminal. */
export type Screen = NodeJS.WritableStream & { readonly isTTY?: boolean };

/** Everything that the command line takes from outside; `main.ts` gives the real things, a test its own. */
export interface World {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly workingDirectory: string;
  /** For results. */
  readonly output: Screen;
  /** For progress, questions and errors. */
  readonly messages: Screen;
  readonly clock: Clock;
  readonly random: Random;
  readonly files: FileSystem;
  readonly host: SiteHost;
  /** Told of SIGINT and SIGTERM instead of the process being ended; returns the function that ends it. */
  onInterrupt(listener: () => void): () => void;
  /** Asks the person at the terminal and returns the line; undefined where there is none. */
  ask(question: string): Promise<string | undefined>;
}

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** What the command line does to a site without its API: there is none before `init` and `serve`. */
export interface SiteHost {
  /** Creates a site in a data directory and returns the text of its recovery kit. Throws SITE_EXISTS. */
  init(o: InitRequest): Promise<{ readonly siteId: string; readonly kit: string }>;
  /** Opens the site and listens. Throws SITE_MISSING, SITE_LOCKED and the like. */
  serve(o: { dataDirectory: string; logLevel: LogLevel }): Promise<ServedSite>;
  /** Refills the index of a site that does not run. */
  rebuild(o: { dataDirectory: string }): Promise<RebuildReport>;
  /** The recovery kit as of now, with the peers that are paired. */
  kit(o: { dataDirectory: string }): Promise<string>;
}

export interface InitRequest {
  readonly dataDirectory: string;
  /** May be left out with a kit, which has a name. */
  readonly name?: string;
  /** Text of the recovery kit of the site that the new installation is to be. */
  readonly fromKit?: string;
  /** Under which other sites reach this one. */
  readonly host?: string;
  readonly apiPort?: number;
  readonly peerPort?: number;
}

export interface ServedSite {
  readonly apiAddress: ListenAddress;
  readonly peerAddress: ListenAddress;
  /** Ends the API and the replication; machines run on. */
  close(): Promise<void>;
}
