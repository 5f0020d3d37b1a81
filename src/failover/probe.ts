import { isIPv4 } from 'node:net';
import { failoverFailure } from './errors.ts';

/** A question that a guest answers only when it runs as it should. Limits count from the moment its CPUs run. */
export type Probe =
  /** The guest agent answers. */
  | { readonly kind: 'agent'; readonly limitMs?: number }
  /** A line of the serial console matches the regular expression; only its first 1000 characters are looked at. */
  | { readonly kind: 'serial'; readonly pattern: string; readonly limitMs?: number }
  /**
   * Somebody accepts a TCP connection at `host:port`: inside the branch's isolated network, or, where it is connected to networks of
   * this host, from here. `host` is an IPv4 address;
   * `from` is the address with prefix length that the probing side takes on that network, by default the last free
   * one of the host's /24. `network` names the network at the protected site; the first NIC's if absent.
   */
  | {
      readonly kind: 'tcp';
      readonly host: string;
      readonly port: number;
      readonly limitMs?: number;
      readonly network?: string;
      readonly from?: string;
    };

export interface ProbeResult {
  readonly probe: Probe;
  readonly passed: boolean;
  /** From the start of the guest's CPUs until the probe was decided. */
  readonly durationMs: number;
  /** Why it failed; may hold a guest's words. */
  readonly reason?: string;
}

/** Long enough for a server without hardware acceleration to check its disks and start its services. */
const LIMIT_MS_DEFAULT = 180_000;
const LIMIT_MS_MAX = 24 * 60 * 60 * 1000;

export function limitOf(probe: Probe): number {
  return probe.limitMs ?? LIMIT_MS_DEFAULT;
}

/** What is asked when nobody says what to ask: the agent, where there is one; a guest without one is only looked at. */
export function defaultProbes(configuration: { readonly guestAgent: boolean }): readonly Probe[] {
  return configuration.guestAgent ? [{ kind: 'agent' }] : [];
}

/** Throws FAILOVER_PROBE_INVALID, before anything is started. */
export function checkProbes(probes: readonly Probe[]): void {
  for (const probe of probes) {
    const limitMs = limitOf(probe);
    if (!(limitMs > 0 && limitMs <= LIMIT_MS_MAX)) throw invalid(`a limit of ${limitMs} ms`);
    if (probe.kind === 'serial') patternOf(probe.pattern);
    if (probe.kind === 'tcp') checkTcp(probe);
  }
}

function checkTcp(probe: Extract<Probe, { kind: 'tcp' }>): void {
  if (!isIPv4(probe.host)) throw invalid(`«${probe.host}» is not an IPv4 address`);
  if (!Number.isInteger(probe.port) || probe.port < 1 || probe.port > 65_535) {
    throw invalid(`port ${probe.port}`);
  }
  const [address, prefix, ...rest] = probingAddress(probe).split('/');
  if (!isIPv4(address!) || !/^([1-9]|[12]\d|3[01])$/.test(prefix ?? '') || rest.length > 0) {
    throw invalid(`«${probe.from}» is not an IPv4 address with its prefix length`);
  }
}

/** The address that the probing side takes, so that the guest is its neighbour. */
export function probingAddress(probe: Extract<Probe, { kind: 'tcp' }>): string {
  if (probe.from !== undefined) return probe.from;
  const octets = probe.host.split('.');
  return `${octets.slice(0, 3).join('.')}.${octets[3] === '254' ? 253 : 254}/24`;
}

export function patternOf(pattern: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch (error) {
    throw failoverFailure('FAILOVER_PROBE_INVALID', `«${pattern}» is not a regular expression`, {
      cause: error,
    });
  }
}

function invalid(what: string) {
  return failoverFailure('FAILOVER_PROBE_INVALID', `${what} cannot be used in a probe`);
}
