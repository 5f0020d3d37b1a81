/**
 * What kind of trouble a failure is. The kind fixes the HTTP status and the exit code, so that a code
 * never has to name either; see `KIND_TABLE`.
 */
export type FailureKind =
  | 'input' // the request itself is wrong: ask differently
  | 'unauthorized' // who asks has not shown that they may
  | 'missing' // the named thing does not exist
  | 'refused' // a rule or a conflict forbids it: a person decides
  | 'unavailable' // the other side or a resource is away: later
  | 'timeout' // it did not answer in the time allowed
  | 'corrupt' // bytes are not what they must be: never retried
  | 'environment' // this host lacks something
  | 'cancelled' // the caller gave up
  | 'protocol'; // a peer spoke nonsense

/** What a caller may do about it: nothing, the same again after a while, or the same over a new connection. */
export type Retry = 'never' | 'later' | 'reconnect';

export interface CodeEntry {
  readonly kind: FailureKind;
  readonly retry: Retry;
  /** What a person should do next; a full sentence in the imperative. */
  readonly remedy: string;
}

/** The codes one folder declares, by name. `docs/errors.md` is the union of all of them. */
export type ErrorCatalogue = Readonly<Record<string, CodeEntry>>;

export const KIND_TABLE: Readonly<Record<FailureKind, { httpStatus: number; exitCode: number }>> = {
  input: { httpStatus: 400, exitCode: 2 },
  unauthorized: { httpStatus: 401, exitCode: 10 },
  missing: { httpStatus: 404, exitCode: 3 },
  refused: { httpStatus: 409, exitCode: 4 },
  unavailable: { httpStatus: 503, exitCode: 5 },
  timeout: { httpStatus: 504, exitCode: 6 },
  corrupt: { httpStatus: 500, exitCode: 7 },
  environment: { httpStatus: 500, exitCode: 8 },
  cancelled: { httpStatus: 499, exitCode: 130 },
  protocol: { httpStatus: 502, exitCode: 9 },
};

export type FailureContext = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface FailureDetails {
  readonly context?: FailureContext;
  /** Replaces the catalogue's remedy where the place knows better. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * An operating error: something the world did. It is thrown, carries a code from a catalogue and says what
 * to do next. A bug is not a Failure but an assertion (`assert.ts`).
 */
export class Failure extends Error {
  readonly code: string;
  readonly kind: FailureKind;
  readonly retry: Retry;
  readonly context: FailureContext;
  readonly hint: string;

  constructor(code: string, entry: CodeEntry, message: string, details: FailureDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'Failure';
    this.code = code;
    this.kind = entry.kind;
    this.retry = entry.retry;
    this.context = details.context ?? {};
    this.hint = details.hint ?? entry.remedy;
  }

  /** The form in which a failure crosses a process border; `message` of the cause only, never its stack. */
  toJSON(): FailureRecord {
    return {
      code: this.code,
      kind: this.kind,
      retry: this.retry,
      message: this.message,
      hint: this.hint,
      context: this.context,
    };
  }
}

export interface FailureRecord {
  readonly code: string;
  readonly kind: FailureKind;
  readonly retry: Retry;
  readonly message: string;
  readonly hint: string;
  readonly context: FailureContext;
}

/**
 * A folder's own way to make failures: `const qmpFailure = failuresOf(QMP_ERRORS)` and then
 * `throw qmpFailure('QMP_TIMEOUT', 'query-status did not answer in 5000 ms', { context: { path } })`.
 */
export function failuresOf<C extends ErrorCatalogue>(catalogue: C) {
  return (code: keyof C & string, message: string, details?: FailureDetails): Failure =>
    new Failure(code, catalogue[code]!, message, details);
}

export function isFailure(error: unknown, ...codes: string[]): error is Failure {
  return error instanceof Failure && (codes.length === 0 || codes.includes(error.code));
}

/** The text of anything thrown, for messages and logs. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node system error (`ENOENT`, `EPIPE`, …), or undefined. */
export function systemCodeOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}

export const LIB_ERRORS = {
  CANCELLED: { kind: 'cancelled', retry: 'never', remedy: 'Start it again when you are ready.' },
  FILE_UNREADABLE: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Check the rights and the health of the file system that holds the path.',
  },
  FILE_UNWRITABLE: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Check rights, free space and the health of the file system that holds the path.',
  },
  DISK_FULL: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Free space on the file system or shorten retention; the work continues by itself afterwards.',
  },
  FSYNC_FAILED: {
    kind: 'corrupt',
    retry: 'later',
    remedy:
      'Check the kernel log and the disk: the file was abandoned and the work restarts from the last durable state.',
  },
  RECORD_CORRUPT: {
    kind: 'corrupt',
    retry: 'never',
    remedy: 'Run `warmsite site rebuild`; keep the damaged file for analysis.',
  },
  RECORD_NEWER: {
    kind: 'refused',
    retry: 'never',
    remedy: 'This record was written by a newer Warmsite: upgrade this installation; nothing was changed.',
  },
  PROCESS_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Read the output shown; `warmsite doctor` tells whether a tool is missing.',
  },
  TOOL_MISSING: {
    kind: 'environment',
    retry: 'never',
    remedy: 'Install the named tool; `warmsite doctor` lists everything that is missing.',
  },
} as const satisfies ErrorCatalogue;

export const libFailure = failuresOf(LIB_ERRORS);
