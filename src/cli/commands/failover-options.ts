import type { Command } from 'commander';
import type { NicConnection, ProbeRequest, TestFailoverRequest } from '../../api/index.ts';
import {
  invalid,
  listed,
  named,
  parseCount,
  parseDuration,
  parseName,
  parseRate,
  parseSize,
} from '../values.ts';

export interface ProbeOption {
  readonly probe?: readonly ProbeRequest[];
}

export interface ConnectOption {
  readonly connect?: ReturnType<typeof parseConnection>[];
}

/** `agent`, `serial:REGEX`, `tcp:HOST:PORT`, a URL, `script:NAME`, each with `@LIMIT`. */
function parseProbe(text: string): ProbeRequest {
  const [, body = text, limit] = /^(.*)@(\d[\d.]*[a-z]+)$/.exec(text) ?? [];
  const limitMs = limit === undefined ? {} : { limitMs: parseDuration(limit) };
  if (body === 'agent') return { kind: 'agent', ...limitMs };
  const [, pattern] = /^serial:(.+)$/.exec(body) ?? [];
  if (pattern !== undefined) return { kind: 'serial', pattern, ...limitMs };
  const [, host, port] = /^tcp:(.+):(\d+)$/.exec(body) ?? [];
  if (host !== undefined) return { kind: 'tcp', host, port: parseCount(port!, 1, 65_535), ...limitMs };
  if (/^https?:\/\//.test(body)) return { kind: 'http', url: body, ...limitMs };
  const [, program] = /^script:([A-Za-z0-9][A-Za-z0-9._-]*)$/.exec(body) ?? [];
  if (program !== undefined) return { kind: 'script', program, ...limitMs };
  throw invalid(
    text,
    'a probe such as agent, serial:login:, tcp:192.0.2.10:443, http://192.0.2.10/ or script:NAME, with @LIMIT if you like',
  );
}

/** `NIC=bridge:NAME` or `NIC=tap:NAME`. */
export function parseConnection(text: string): readonly [nicId: string, NicConnection] {
  const [, nicId, kind, name] = /^([a-z0-9][a-z0-9-]*)=(bridge|tap):([A-Za-z0-9._-]{1,15})$/.exec(text) ?? [];
  if (nicId === undefined || name === undefined) {
    throw invalid(text, 'NIC=bridge:NAME or NIC=tap:NAME, such as lan=bridge:br0');
  }
  return [nicId, kind === 'tap' ? { kind, interfaceName: name } : { kind: 'bridge', bridge: name }];
}

export const CONNECT_OPTION = [
  '--connect <NIC=bridge:NAME>',
  'plug a NIC into a bridge of this host, or NIC=tap:NAME; others stay unplugged; repeatable',
  listed('--connect', parseConnection),
] as const;

export const PROBE_OPTION = [
  '--probe <probe>',
  'agent, serial:REGEX, tcp:HOST:PORT, http://HOST/… or script:NAME, with @LIMIT if you like (agent@2m); repeatable',
  listed('--probe', parseProbe),
] as const;

export const NAME_OPTION = [
  '--name <name>',
  'what you call the branch; it can stand for its id',
  named('--name', parseName),
] as const;

export interface LimitOptions {
  readonly memory?: number;
  readonly cpus?: number;
  readonly cpuLimit?: number;
  readonly cpuWeight?: number;
  readonly diskRate?: number;
  readonly diskIops?: number;
  readonly for?: number;
}

/** What a test may take of its host. */
export function addLimitOptions(test: Command): Command {
  return test
    .option('--for <time>', 'clean it up by itself after this time', named('--for', parseDuration))
    .option('--memory <size>', 'other memory than the machine has', named('--memory', parseSize))
    .option('--cpus <count>', 'other CPUs than the machine has', count('--cpus', 1024))
    .option(
      '--cpu-limit <percent>',
      'of one CPU of this host; 200% are two',
      named('--cpu-limit', parsePercent),
    )
    .option(
      '--cpu-weight <weight>',
      'its share while others want the CPUs too; 100 is usual',
      count('--cpu-weight', 10_000),
    )
    .option(
      '--disk-rate <rate>',
      'of all its disks together, such as 20M/s',
      named('--disk-rate', parseDiskRate),
    )
    .option(
      '--disk-iops <count>',
      'operations a second of all its disks together',
      count('--disk-iops', 2 ** 32),
    );
}

function count(option: string, maximum: number): (text: string) => number {
  return named(option, (text) => parseCount(text, 1, maximum));
}

function parsePercent(text: string): number {
  return parseCount(text.replace(/%$/, ''), 1, 100_000);
}

function parseDiskRate(text: string): number {
  const rate = parseRate(text);
  if (rate !== 'unlimited' && rate >= 4096) return rate;
  throw invalid(text, 'a rate of at least 4K/s, such as 20M/s');
}

/** What the limits say, as the site takes it. */
export function limitsOf(o: LimitOptions): Pick<TestFailoverRequest, 'limits' | 'lifetimeMs'> {
  const limits = {
    ...(o.memory === undefined ? {} : { memoryBytes: o.memory }),
    ...(o.cpus === undefined ? {} : { cpus: o.cpus }),
    ...(o.cpuLimit === undefined ? {} : { cpuPercent: o.cpuLimit }),
    ...(o.cpuWeight === undefined ? {} : { cpuWeight: o.cpuWeight }),
    ...(o.diskRate === undefined ? {} : { diskBytesPerSecond: o.diskRate }),
    ...(o.diskIops === undefined ? {} : { diskOperationsPerSecond: o.diskIops }),
  };
  return {
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(o.for === undefined ? {} : { lifetimeMs: o.for }),
  };
}

/** What the options say, as the site takes it. */
export function askedOf({ name, probe }: { readonly name?: string } & ProbeOption): {
  name?: string;
  probes?: ProbeRequest[];
} {
  return {
    ...(name === undefined ? {} : { name }),
    ...(probe === undefined ? {} : { probes: [...probe] }),
  };
}

/** Where the NICs of one machine go. */
export function networksOf({ connect }: ConnectOption): { networks?: Record<string, NicConnection> } {
  return connect === undefined ? {} : { networks: Object.fromEntries(connect) };
}
