/**
 * A log entry is an event name with fields, so that it can be counted and searched. Folders from `lib` to
 * `storage` do not log: they return failures.
 */
export interface Log {
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  /** The same log with `fields` on every entry. */
  with(fields: LogFields): Log;
}

export type LogFields = Readonly<Record<string, unknown>>;

const drop = (): void => undefined;

export const silentLog: Log = { info: drop, warn: drop, error: drop, with: () => silentLog };
