/**
 * The shapes of the QEMU machine protocol, and their decoders. Source: QEMU, `docs/interop/qmp-spec.txt`
 * (since 8.1 `qmp-spec.rst`). A decoder returns undefined for what is not such a message.
 */

export interface QmpGreeting {
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  /** The distribution's name of the build; may be empty. */
  readonly package: string;
  /** Capabilities that may be switched on, such as `oob`; this client uses none. */
  readonly capabilities: readonly string[];
}

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** The host's wall clock when the event happened; both −1 if QEMU could not read it. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

/** What a command got: a value, or an error of a class and a description for people. */
export type Reply = { readonly value: unknown } | { readonly error: ReplyError };

export interface ReplyError {
  readonly class: string;
  readonly desc: string;
}

export type Fields = Readonly<Record<string, unknown>>;

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The object in a line of JSON, or undefined if it is anything else. */
export function parseFields(line: Buffer): Fields | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line.toString('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  return isFields(value) ? value : undefined;
}

export function decodeGreeting(message: Fields): QmpGreeting | undefined {
  const body = message.QMP;
  if (!isFields(body) || !isFields(body.version) || !isFields(body.version.qemu)) return undefined;
  const { major, minor, micro } = body.version.qemu;
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') return undefined;
  const name = body.version.package ?? '';
  const capabilities = body.capabilities ?? [];
  if (typeof name !== 'string' || !Array.isArray(capabilities)) return undefined;
  return {
    version: { major, minor, micro },
    package: name,
    capabilities: capabilities.filter((capability) => typeof capability === 'string'),
  };
}

export function decodeEvent(message: Fields): QmpEvent | undefined {
  const { event, data = {}, timestamp } = message;
  if (typeof event !== 'string' || !isFields(data) || !isFields(timestamp)) return undefined;
  const { seconds, microseconds } = timestamp;
  if (typeof seconds !== 'number' || typeof microseconds !== 'number') return undefined;
  return { event, data, timestamp: { seconds, microseconds } };
}

export function decodeReply(message: Fields): Reply | undefined {
  if ('return' in message) return { value: message.return };
  if (!isFields(message.error)) return undefined;
  const { class: errorClass, desc } = message.error;
  if (typeof errorClass !== 'string' || typeof desc !== 'string') return undefined;
  return { error: { class: errorClass, desc } };
}

/** A reply to this id is for nobody: a pause guard wrote the command into a connection that its parent reads. */
export const PAUSE_GUARD_ID = 'warmsite-pause-guard';
