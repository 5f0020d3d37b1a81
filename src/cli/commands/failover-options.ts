import type { NicConnection, ProbeRequest } from '../../api/index.ts';
import { invalid, listed, named, parseCount, parseDuration, parseName } from '../values.ts';

export interface ProbeOption {
  readonly probe?: readonly ProbeRequest[];
}

export interface ConnectOption {
  readonly connect?: ReturnType<typeof parseConnection>[];
}

/** `agent`, `serial:REGEX`, `tcp:HOST:PORT`, each with `@LIMIT`. */
function parseProbe(text: string): ProbeRequest {
  const [, body = text, limit] = /^(.*)@(\d[\d.]*[a-z]+)$/.exec(text) ?? [];
  const limitMs = limit === undefined ? {} : { limitMs: parseDuration(limit) };
  if (body === 'agent') return { kind: 'agent', ...limitMs };
  const [, pattern] = /^serial:(.+)$/.exec(body) ?? [];
  if (pattern !== undefined) return { kind: 'serial', pattern, ...limitMs };
  const [, host, port] = /^tcp:(.+):(\d+)$/.exec(body) ?? [];
  if (host !== undefined) return { kind: 'tcp', host, port: parseCount(port!, 1, 65_535), ...limitMs };
  throw invalid(text, 'a probe such as agent, serial:login: or tcp:192.0.2.10:443, with @LIMIT if you like');
}

/** `NIC=bridge:NAME` or `NIC=tap:NAME`. */
function parseConnection(text: string): readonly [nicId: string, NicConnection] {
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
  'agent, serial:REGEX or tcp:HOST:PORT, with @LIMIT if you like (agent@2m); repeatable',
  listed('--probe', parseProbe),
] as const;

export const NAME_OPTION = [
  '--name <name>',
  'what you call the branch; it can stand for its id',
  named('--name', parseName),
] as const;

/** What the options say, as the site takes it. */
export function askedOf({ name, probe, connect }: { readonly name?: string } & ProbeOption & ConnectOption): {
  name?: string;
  probes?: ProbeRequest[];
  networks?: Record<string, NicConnection>;
} {
  return {
    ...(name === undefined ? {} : { name }),
    ...(probe === undefined ? {} : { probes: [...probe] }),
    ...(connect === undefined ? {} : { networks: Object.fromEntries(connect) }),
  };
}
