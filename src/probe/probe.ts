import { probeFailure } from './errors.ts';
import { patternOf } from './pattern.ts';

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
    }
  /** A web server answers, from where a TCP probe is asked: with this status (any from 200 to 399 if absent), and a body that matches. */
  | {
      readonly kind: 'http';
      /** With an IPv4 address for the host. Certificates are not looked at. */
      readonly url: string;
      /** The name that the server is asked for, where it has several. */
      readonly name?: string;
      readonly status?: number;
      /** Regular expression, `^` and `$` at lines; only the first 64 KiB are looked at. */
      readonly pattern?: string;
      readonly limitMs?: number;
      readonly network?: string;
      readonly from?: string;
    }
  /** A program of the guest, run by its agent without a shell, ends with exit code 0, and what it prints matches. */
  | {
      readonly kind: 'guest';
      readonly command: string;
      readonly arguments?: readonly string[];
      readonly pattern?: string;
      readonly limitMs?: number;
    }
  /** A database of the guest answers a query: its own client is run in the guest, by the agent, as whoever may ask it there. */
  | {
      readonly kind: 'sql';
      readonly system: SqlSystem;
      readonly query: string;
      /** Its name; for SQLite the path of its file, without which nothing is asked. */
      readonly database?: string;
      /** Of what it prints, a row a line. Any rows if absent. */
      readonly pattern?: string;
      readonly limitMs?: number;
    }
  /** A program of the operator at this site ends with exit code 0 (`SitePrograms`), in the isolated network or on this host. */
  | { readonly kind: 'script'; readonly program: string; readonly limitMs?: number };

export type SqlSystem = 'postgresql' | 'mariadb' | 'mysql' | 'sqlite';

/** A probe over the network. */
export type NetworkProbe = Extract<Probe, { kind: 'tcp' | 'http' }>;

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

const OCTET = '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const IPV4 = new RegExp(`^${OCTET}(\\.${OCTET}){3}$`);

function isIPv4(text: string): boolean {
  return IPV4.test(text);
}

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
    if (probe.kind === 'http') checkHttp(probe);
    if (probe.kind === 'sql') checkSql(probe);
    if ('pattern' in probe && probe.pattern !== undefined) patternOf(probe.pattern);
  }
}

function checkTcp(probe: Extract<Probe, { kind: 'tcp' }>): void {
  if (!isIPv4(probe.host)) throw invalid(`«${probe.host}» is not an IPv4 address`);
  if (!Number.isInteger(probe.port) || probe.port < 1 || probe.port > 65_535) {
    throw invalid(`port ${probe.port}`);
  }
  checkFrom(probe);
}

function checkHttp(probe: Extract<Probe, { kind: 'http' }>): void {
  const url = URL.parse(probe.url);
  const isWeb = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (!isWeb || !isIPv4(url.hostname)) {
    throw invalid(`«${probe.url}» is not the URL of a web server at an IPv4 address`);
  }
  if (probe.name !== undefined && !/^[A-Za-z0-9.:_-]{1,253}$/.test(probe.name)) {
    throw invalid(`«${probe.name}», as the name of a server,`);
  }
  checkFrom(probe);
}

/** Without the path of a file, or with an option in its place, `sqlite3` takes the query for one, asks nothing and ends well. */
function checkSql({ system, database = '-' }: Extract<Probe, { kind: 'sql' }>): void {
  if (system === 'sqlite' && database.startsWith('-')) {
    throw invalid('a query of SQLite without the path of its file as `database`');
  }
}

function checkFrom(probe: NetworkProbe): void {
  const [address, prefix, ...rest] = probingAddress(probe).split('/');
  if (!isIPv4(address!) || !/^([1-9]|[12]\d|3[01])$/.test(prefix ?? '') || rest.length > 0) {
    throw invalid(`«${probe.from}» is not an IPv4 address with its prefix length`);
  }
}

/** The address that the probing side takes, so that the guest is its neighbour. */
export function probingAddress(probe: NetworkProbe): string {
  if (probe.from !== undefined) return probe.from;
  const host = probe.kind === 'tcp' ? probe.host : new URL(probe.url).hostname;
  const octets = host.split('.');
  return `${octets.slice(0, 3).join('.')}.${octets[3] === '254' ? 253 : 254}/24`;
}

/** The client of a database, as it is called in a guest; pure. */
export function sqlClientOf({ system, query, database }: Extract<Probe, { kind: 'sql' }>): readonly string[] {
  const at = database === undefined ? [] : [database];
  switch (system) {
    case 'postgresql': {
      // Its administrator is let in by who he is, so that no password is needed.
      const client = ['psql', '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1', '-d', database ?? 'postgres'];
      return ['runuser', '-u', 'postgres', '--', ...client, '-c', query];
    }
    case 'mariadb':
    case 'mysql':
      return [system, '-N', '-B', '-e', query, ...at];
    case 'sqlite':
      return ['sqlite3', '-batch', '-bail', '-readonly', ...at, query];
  }
}

function invalid(what: string) {
  return probeFailure('FAILOVER_PROBE_INVALID', `${what} cannot be used in a probe`);
}
