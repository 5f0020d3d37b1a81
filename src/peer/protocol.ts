/** Numbers and names of `docs/protocol.md`. */

/** The newest protocol spoken here. */
export const PROTOCOL = 1;

export const PATH = {
  hello: '/warmsite/hello',
  call: '/warmsite/call/',
  upload: '/warmsite/upload/',
  pair: '/warmsite/pair',
} as const;

export const HEADER = {
  protocol: 'warmsite-protocol',
  version: 'warmsite-version',
  heartbeat: 'warmsite-heartbeat-ms',
} as const;

export const LIMIT = {
  callBytes: 16 * 1024 * 1024,
  pairBytes: 64 * 1024,
  headBytes: 8 * 1024,
  handshakeMs: 10_000,
  headMs: 10_000,
  callBodyMs: 30_000,
  idleConnectionMs: 60_000,
  connections: 256,
  /** How long the rest of a body is read and dropped after an early answer, so that the answer arrives. */
  lingerMs: 5_000,
  heartbeatMinMs: 100,
  heartbeatMaxMs: 30_000,
  failureTextCharacters: 4000,
  failureContextFields: 32,
} as const;

export const CALL_TIMEOUT_MS = 30_000;
export const STALL_TIMEOUT_MS = 30_000;

/** Probes of the kernel on a silent connection begin after this long. */
export const TCP_KEEP_ALIVE_MS = 30_000;

/** What names a call or the session of an upload. */
export function isCallName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name);
}
