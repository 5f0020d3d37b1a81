import type { Command } from 'commander';
import type { MachineChanges } from '../../api/index.ts';
import { cliFailure } from '../errors.ts';
import { invalid, listed, named, parseCount, parseSize } from '../values.ts';

type NicAddresses = NonNullable<MachineChanges['addresses']>[string];

/** How a machine that comes up differs from the one that its point describes. */
export interface ChangeOptions {
  readonly memory?: number | undefined;
  readonly cpus?: number | undefined;
  readonly newMacs?: true;
  readonly newUuid?: true;
  readonly address?: readonly (readonly [nicId: string, NicAddresses])[];
  readonly addressTool?: string;
}

const CPUS_MAX = 1024;
const FORM = 'NIC=ADDRESS/PREFIX, such as lan=192.0.2.5/24,gateway=192.0.2.1,dns=192.0.2.53';
const BYTE = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const IPV4 = new RegExp(`^${BYTE}(?:\\.${BYTE}){3}$`);

/** For a machine that comes up for good. */
export function addChangeOptions(command: Command): Command {
  command.option('--memory <size>', 'other memory than the machine has', named('--memory', parseSize)).option(
    '--cpus <count>',
    'other CPUs than the machine has',
    named('--cpus', (text) => parseCount(text, 1, CPUS_MAX)),
  );
  return addAddressOptions(command);
}

/** By what it is known in a network, and by itself. */
export function addAddressOptions(command: Command): Command {
  return command
    .option(
      '--address <NIC=ADDRESS/PREFIX,…>',
      'IPv4 addresses that the guest agent gives a NIC, in the place of its own; gateway=…, dns=… beside them; repeatable',
      listed('--address', parseAddresses),
    )
    .option(
      '--address-tool <path>',
      'a program of the guest that sets them: it gets interface, addresses, gateway, resolvers',
    )
    .option('--new-macs', 'a new MAC address for each NIC; they keep theirs if absent')
    .option('--new-uuid', 'a new UUID; it keeps its own if absent');
}

/** `NIC=ADDRESS/PREFIX[,ADDRESS/PREFIX…][,gateway=ADDRESS][,dns=ADDRESS…]`. */
function parseAddresses(text: string): readonly [nicId: string, NicAddresses] {
  const [, nicId, rest] = /^([a-z0-9][a-z0-9-]{0,23})=(.+)$/.exec(text) ?? [];
  if (nicId === undefined || rest === undefined) throw invalid(text, FORM);
  const parts = rest.split(',');
  const after = (sign: string) =>
    parts.filter((part) => part.startsWith(sign)).map((part) => part.slice(sign.length));
  const [gateways, dns] = [after('gateway='), after('dns=')];
  const addresses = parts.filter((part) => !/^(gateway|dns)=/.test(part));
  if (addresses.length === 0 || !addresses.every(hasPrefix)) throw invalid(text, FORM);
  const wrong = [...gateways, ...dns].find((address) => !IPV4.test(address));
  if (wrong !== undefined) throw invalid(wrong, 'an IPv4 address, such as 192.0.2.1');
  const [gateway, second] = gateways;
  if (second !== undefined) throw invalid(text, 'one gateway for a NIC');
  return [
    nicId,
    { addresses, ...(gateway === undefined ? {} : { gateway }), ...(dns.length === 0 ? {} : { dns }) },
  ];
}

function hasPrefix(text: string): boolean {
  const [address = '', prefix = '', ...more] = text.split('/');
  return IPV4.test(address) && /^([1-9]|[12]\d|3[0-2])$/.test(prefix) && more.length === 0;
}

/** What the options say, as the site takes it. Throws CLI_USAGE. */
export function changesOf(o: ChangeOptions): { changes?: MachineChanges } {
  const addresses = new Map<string, NicAddresses>();
  for (const [nicId, wanted] of o.address ?? []) {
    if (addresses.has(nicId))
      throw cliFailure('CLI_USAGE', `--address names ${nicId} twice: give it all its addresses at once`);
    addresses.set(nicId, wanted);
  }
  if (o.addressTool !== undefined && addresses.size === 0)
    throw cliFailure('CLI_USAGE', '--address-tool sets what --address says: give that too');
  const changes: MachineChanges = {
    ...(addresses.size === 0 ? {} : { addresses: Object.fromEntries(addresses) }),
    ...(o.addressTool === undefined ? {} : { addressTool: o.addressTool }),
    ...(o.memory === undefined ? {} : { memoryBytes: o.memory }),
    ...(o.cpus === undefined ? {} : { cpus: o.cpus }),
    ...(o.newMacs ? { mac: 'new' as const } : {}),
    ...(o.newUuid ? { uuid: 'new' as const } : {}),
  };
  return Object.keys(changes).length === 0 ? {} : { changes };
}
